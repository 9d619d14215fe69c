-- What lists are searched by, taken from config when a row is saved: the name that is shown, and
-- the tags, each between spaces. Null in a row that was saved by an older program.
ALTER TABLE drives ADD COLUMN name TEXT;
ALTER TABLE drives ADD COLUMN tags TEXT;
ALTER TABLE servers ADD COLUMN name TEXT;
ALTER TABLE servers ADD COLUMN tags TEXT;
