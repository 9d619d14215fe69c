-- What a job reads instead of a drive, and its SHA-256; null if it reads a drive. Its source is its target then.
ALTER TABLE jobs ADD COLUMN url TEXT;
ALTER TABLE jobs ADD COLUMN sha256 TEXT;
