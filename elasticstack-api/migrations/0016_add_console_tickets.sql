-- What opens a server's screen, once. Taken away when it is used.
CREATE TABLE console_tickets (
    ticket TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    server TEXT NOT NULL,
    -- Good for this run alone.
    run BIGINT NOT NULL,
    -- The token that it was asked with; null if that was the account's key.
    token TEXT,
    -- SHA-256 of the whole ticket in lower-case hex.
    hash TEXT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE INDEX console_tickets_of_account ON console_tickets (account, ticket);
CREATE INDEX console_tickets_by_end ON console_tickets (expires_us);
