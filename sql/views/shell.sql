-- Everything a detection's SELECT needs, for the duckdb shell, from the folder that holds sql/:
--   SET VARIABLE lake = '/…/lake';
--   .read sql/views/shell.sql
-- Generated: `make docs`.
.read sql/views/relations.sql
.read sql/views/macros/basics.sql
.read sql/views/macros/callers.sql
.read sql/views/macros/habits.sql
.read sql/views/macros/network.sql
.read sql/views/macros/policy.sql
.read sql/views/macros/questions.sql
.read sql/views/macros/rights.sql
.read sql/views/macros/signin.sql
.read sql/views/macros/storage.sql
.read sql/views/macros/usage.sql
.read sql/views/params.sql
