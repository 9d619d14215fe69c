-- Which of several servers sends a host its documents and follows its reports, and until when.
CREATE TABLE host_leases (
    host TEXT PRIMARY KEY REFERENCES hosts (host),
    owner TEXT NOT NULL,
    until_us BIGINT NOT NULL
);
CREATE INDEX host_leases_of_owner ON host_leases (owner);

-- Numbers are drawn by the servers now: one counter had every two changes wait for each other.
ALTER TABLE control DROP COLUMN sequence;
