-- What happened to what customers have. A row is written in the transaction of what it tells of, and
-- is found again by that transaction's mark: mark and position order the rows of an era.
CREATE TABLE events (
    era BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    position BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    happened TEXT NOT NULL,
    status TEXT,
    PRIMARY KEY (era, mark, position)
);
CREATE INDEX events_by_account ON events (account, era, mark, position);

-- From which mark on every event of that era is still there.
CREATE TABLE events_kept (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    era BIGINT NOT NULL,
    mark BIGINT NOT NULL
);
INSERT INTO events_kept (one, era, mark) VALUES (1, 0, 0);
