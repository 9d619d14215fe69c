-- One dialect for SQLite and PostgreSQL: TEXT ids, BIGINT numbers, instants in microseconds since
-- 1970 in columns ending in _us. A state is the word that the core's state machines use for it.

-- The one row about this database: its era, and the last number given out by its one sequence.
CREATE TABLE control (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    era BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
INSERT INTO control (one, era, sequence) VALUES (1, 1, 0);

CREATE TABLE accounts (
    account TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    -- customer or operator.
    scope TEXT NOT NULL,
    -- SHA-256 of the secret key in lower-case hex; empty where nobody may log in.
    key_hash TEXT NOT NULL
);

CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL,
    state TEXT NOT NULL,
    cpu_mhz BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    accelerator TEXT NOT NULL,
    cpu_limits TEXT NOT NULL,
    -- Up to where its reports are taken in; null for nowhere.
    cursor_life TEXT,
    cursor_sequence BIGINT
);

CREATE TABLE arrays (
    array_id TEXT PRIMARY KEY,
    host TEXT NOT NULL REFERENCES hosts (host),
    name TEXT NOT NULL,
    capacity BIGINT NOT NULL
);

-- Rows of gone drives and servers stay, so that their generations and epochs never start again.
CREATE TABLE drives (
    drive TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    host TEXT NOT NULL REFERENCES hosts (host),
    array_id TEXT NOT NULL REFERENCES arrays (array_id),
    size BIGINT NOT NULL,
    state TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    access TEXT NOT NULL,
    -- The keys that its owner set and that mean nothing to us, as a JSON object.
    config TEXT NOT NULL,
    -- What its host last said: the generation it has made true (0 for none) and the size.
    seen_generation BIGINT NOT NULL,
    seen_size BIGINT NOT NULL,
    -- The document that its host could not make true, with the code of the reason.
    fault_generation BIGINT NOT NULL,
    fault_code TEXT NOT NULL,
    -- The sentence on its last failure; null if none.
    failed TEXT,
    -- A standard drive has a media and the hash of what was published on it.
    media TEXT,
    format TEXT,
    rawsize BIGINT,
    sha256 TEXT
);
CREATE INDEX drives_of_account ON drives (account, state);
CREATE INDEX drives_by_state ON drives (state, array_id);

CREATE TABLE servers (
    server TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    host TEXT REFERENCES hosts (host),
    state TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    run BIGINT NOT NULL,
    powered BIGINT NOT NULL,
    reset BIGINT NOT NULL,
    shutdown BIGINT NOT NULL,
    -- The keys that its owner set, as a JSON object.
    config TEXT NOT NULL,
    -- What its newest run is to look like, as the internal wire's JSON; null if it never ran.
    hardware TEXT,
    -- What it takes of its host while it holds resources.
    cpu_mhz BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    -- The change that its biller allowed for the newest run.
    change_id TEXT,
    -- What its host last said.
    seen_generation BIGINT NOT NULL,
    seen_reset BIGINT NOT NULL,
    -- The newest run that is known to be over: its claims are released, its usage is closed.
    ended_run BIGINT NOT NULL,
    started_us BIGINT,
    screen TEXT,
    -- The run that failed, and the sentence on it; 0 and null if none.
    failed_run BIGINT NOT NULL,
    failed TEXT
);
CREATE INDEX servers_of_account ON servers (account, state);
CREATE INDEX servers_by_state ON servers (state, host);

-- A claim is the intent of its holder, a server or a job, to use a drive.
CREATE TABLE claims (
    drive TEXT NOT NULL REFERENCES drives (drive),
    holder TEXT NOT NULL,
    holder_kind TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    access TEXT NOT NULL,
    PRIMARY KEY (drive, holder)
);
CREATE UNIQUE INDEX claims_exclusive ON claims (drive) WHERE access = 'exclusive';
CREATE INDEX claims_of_holder ON claims (holder);

CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    host TEXT NOT NULL REFERENCES hosts (host),
    source TEXT NOT NULL REFERENCES drives (drive),
    source_epoch BIGINT NOT NULL,
    target TEXT NOT NULL REFERENCES drives (drive),
    target_epoch BIGINT NOT NULL,
    conversion TEXT NOT NULL,
    state TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    -- Hundredths of the source that are read; null while it waits its turn.
    percent BIGINT
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_of_target ON jobs (target);

-- Objects whose current document the host has not confirmed.
CREATE TABLE outbox (
    host TEXT NOT NULL REFERENCES hosts (host),
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    generation BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (host, kind, object)
);

-- Half-open intervals [from_us, to_us); to_us is null while one goes on.
CREATE TABLE usage_intervals (
    id BIGINT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    resource TEXT NOT NULL,
    meter TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    from_us BIGINT NOT NULL,
    to_us BIGINT,
    -- The instants as the host stamped them, before they were clamped; null where we set them.
    stamped_from_us BIGINT,
    stamped_to_us BIGINT,
    change_id TEXT,
    -- 0 not delivered, 1 delivered while it went on, 2 delivered with its end.
    delivered BIGINT NOT NULL
);
CREATE UNIQUE INDEX usage_one_open ON usage_intervals (resource, meter) WHERE to_us IS NULL;
CREATE INDEX usage_by_end ON usage_intervals (resource, meter, to_us);
CREATE INDEX usage_undelivered ON usage_intervals (delivered, id);
