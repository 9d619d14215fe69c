-- As 0021 for snapshots, which hold room on arrays too.
ALTER TABLE snapshots ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX snapshots_by_change ON snapshots (changed);
