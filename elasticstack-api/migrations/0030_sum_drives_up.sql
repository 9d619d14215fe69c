-- Of how many bytes a job makes the SHA-256; null if it images. What it is to be is in sha256.
ALTER TABLE jobs ADD COLUMN sum_length BIGINT;
-- The SHA-256 of so many bytes from a drive's beginning on; null if none is known of what it holds now.
ALTER TABLE drives ADD COLUMN sum TEXT;
ALTER TABLE drives ADD COLUMN sum_length BIGINT;
