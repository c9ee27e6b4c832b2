-- ---
-- title  = "Files that the ledger does not know"
-- about  = "Somebody else put a file there, or the lake is younger than the state. Plain globs read it, kyra does not."
-- remedy = "Move these files out of the lake: what they hold and the ledger lacks is loaded again from the bucket."
-- ---
SELECT path, size FROM strangers ORDER BY path
