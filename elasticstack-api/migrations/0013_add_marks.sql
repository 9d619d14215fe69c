-- What a transaction is marked with: on SQLite the last mark given out, on PostgreSQL what is added
-- to the number that the transaction has there, so that marks go on growing in a restored copy.
ALTER TABLE control ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
