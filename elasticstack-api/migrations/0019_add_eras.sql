-- A restored copy begins a new era. Until a host has told all that it has, nothing is sent to it:
-- 1 for one that has not yet.
ALTER TABLE hosts ADD COLUMN unheard BIGINT NOT NULL DEFAULT 0;
-- The last instant that a restored copy knows of; null in one that never was restored.
ALTER TABLE control ADD COLUMN known_until_us BIGINT;
