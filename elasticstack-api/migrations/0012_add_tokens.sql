-- Credentials that an account makes beside its key.
CREATE TABLE tokens (
    token TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    name TEXT NOT NULL,
    -- read or full.
    access TEXT NOT NULL,
    -- SHA-256 of the whole token in lower-case hex.
    hash TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    -- Null if it is good until it is destroyed.
    expires_us BIGINT
);
CREATE INDEX tokens_of_account ON tokens (account, token);
