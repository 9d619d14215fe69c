-- What drives held at one instant. Rows of gone snapshots stay, as those of drives do.
CREATE TABLE snapshots (
    snapshot TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (account),
    drive TEXT NOT NULL REFERENCES drives (drive),
    host TEXT NOT NULL REFERENCES hosts (host),
    array_id TEXT NOT NULL REFERENCES arrays (array_id),
    size BIGINT NOT NULL,
    state TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    -- The newest restore asked for, counted from 1, and the epoch of its claim on the drive.
    restore_number BIGINT NOT NULL,
    restore_epoch BIGINT NOT NULL,
    -- The keys that its owner set, as a JSON object.
    config TEXT NOT NULL,
    -- The newest restore that its host says is over, and the newest that left the drive as it was.
    seen_restore BIGINT NOT NULL,
    failed_restore BIGINT NOT NULL,
    -- The document that its host could not make true, with the code of the last failure.
    fault_generation BIGINT NOT NULL,
    fault_code TEXT NOT NULL,
    failed TEXT
);
CREATE INDEX snapshots_of_account ON snapshots (account, state);
CREATE INDEX snapshots_of_drive ON snapshots (drive, state);
CREATE INDEX snapshots_by_state ON snapshots (state, array_id);
