-- ---
-- title  = "Files with another number of rows than was committed"
-- about  = "A file is whole, but it is not the one the ledger lists."
-- remedy = "Restore these files from a backup."
-- ---
SELECT path, rows AS committed, found_rows AS found
FROM files
WHERE found_rows <> rows
ORDER BY path
