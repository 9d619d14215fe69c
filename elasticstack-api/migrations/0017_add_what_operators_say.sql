-- What operators say of accounts, hosts and arrays, and what hosts have that no intent knows.
ALTER TABLE accounts ADD COLUMN standing TEXT NOT NULL DEFAULT 'active';
-- The limits that an operator set, by key, as a JSON object.
ALTER TABLE accounts ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';

-- Whether anything new may be placed there: open or closed.
ALTER TABLE hosts ADD COLUMN placements TEXT NOT NULL DEFAULT 'open';
ALTER TABLE arrays ADD COLUMN placements TEXT NOT NULL DEFAULT 'open';
-- When a host entered its state.
ALTER TABLE hosts ADD COLUMN since_us BIGINT NOT NULL DEFAULT 0;
-- SHA-256 of the one certificate that the host is known by, in lower-case hex; revoked if none is;
-- empty if any is that names it.
ALTER TABLE hosts ADD COLUMN certificate TEXT NOT NULL DEFAULT '';
-- online or failed, as its host says, or missing if its host does not tell of it.
ALTER TABLE arrays ADD COLUMN state TEXT NOT NULL DEFAULT 'online';

-- Drives and servers that a host has and no intent knows, kept until an operator decides.
CREATE TABLE quarantine (
    quarantined TEXT PRIMARY KEY,
    host TEXT NOT NULL REFERENCES hosts (host),
    -- drive or server.
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    why TEXT NOT NULL,
    -- The newest status that its host gave of it, as the internal wire's JSON.
    status TEXT NOT NULL
);
CREATE UNIQUE INDEX quarantine_of_object ON quarantine (host, kind, object);
