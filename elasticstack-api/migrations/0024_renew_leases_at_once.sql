-- Until when the leases of a server are good: one row to be renewed, however many hosts it has.
CREATE TABLE lease_owners (
    owner TEXT PRIMARY KEY,
    until_us BIGINT NOT NULL
);
INSERT INTO lease_owners (owner, until_us)
    SELECT owner, MAX(until_us) FROM host_leases GROUP BY owner;
ALTER TABLE host_leases DROP COLUMN until_us;
