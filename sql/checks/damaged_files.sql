-- ---
-- title  = "Files that cannot be read, or are not what was written"
-- about  = "A file is cut off, overwritten, or of another size than it was written with."
-- remedy = "Restore these files from a backup; until then queries over their days fail. Without one, load their days again into a new lake."
-- ---
SELECT path, problem FROM files WHERE problem IS NOT NULL ORDER BY path
