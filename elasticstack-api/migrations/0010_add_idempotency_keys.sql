-- What was asked under a key that a client chose, and what came of it. A row is written in the
-- transaction of what it asks for.
CREATE TABLE idempotency_keys (
    account TEXT NOT NULL REFERENCES accounts (account),
    client_key TEXT NOT NULL,
    -- A keyed hash of the request.
    fingerprint TEXT NOT NULL,
    -- Which run of the call wrote the row, and in which server.
    attempt TEXT NOT NULL,
    owner TEXT NOT NULL,
    -- What was changed; null if nothing was.
    kind TEXT,
    object TEXT,
    -- The answer, sealed under a key that only the caller's secret gives; null until there is one.
    outcome TEXT,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (account, client_key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_us);
