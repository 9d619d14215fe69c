-- What holds room is looked up by where it is. With the state first, everything that was about to
-- change its state met on the same few pages of these indexes, where PostgreSQL takes two
-- transactions for each other's readers.
DROP INDEX servers_by_state;
DROP INDEX drives_by_state;
DROP INDEX snapshots_by_state;
CREATE INDEX servers_by_state ON servers (state, since_us);
CREATE INDEX drives_by_state ON drives (state, since_us);
CREATE INDEX snapshots_by_state ON snapshots (state, since_us);
CREATE INDEX servers_by_host ON servers (host, state);
CREATE INDEX drives_by_array ON drives (array_id, state);
CREATE INDEX snapshots_by_array ON snapshots (array_id, state);
