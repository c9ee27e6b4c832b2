-- ---
-- title  = "Files that are missing"
-- about  = "The ledger lists a file, and the lake does not have it."
-- remedy = "Restore these files from a backup; nobody but kyra may remove files of the lake."
-- ---
SELECT path, rows FROM files WHERE found_size IS NULL ORDER BY path
