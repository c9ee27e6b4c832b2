-- ---
-- title  = "Files that the ledger does not know"
-- about  = "Somebody else put a file there, or the lake is younger than the state. Plain globs read it, kyra does not."
-- remedy = "`kyra maintain restore` sets them aside, and brings back what they took the place of; the next sync loads what the ledger lacks."
-- ---
SELECT path, size FROM strangers ORDER BY path
