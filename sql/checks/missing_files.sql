-- ---
-- title  = "Files that are missing"
-- about  = "The ledger lists a file, and the lake does not have it."
-- remedy = "`kyra maintain restore` brings back those that a state restored from a backup still lists; others have to come from a backup of the lake."
-- ---
SELECT path, rows FROM files WHERE found_size IS NULL ORDER BY path
