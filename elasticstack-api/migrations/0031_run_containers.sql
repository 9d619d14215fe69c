-- Whether a host runs containers: 0 or 1.
ALTER TABLE hosts ADD COLUMN containers BIGINT NOT NULL DEFAULT 0;
