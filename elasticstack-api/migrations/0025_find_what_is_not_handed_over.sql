-- Usage that is to be handed over is found by itself, however much of it runs.
DROP INDEX usage_undelivered;
CREATE INDEX usage_undelivered ON usage_intervals (id)
    WHERE delivered = 0 OR (delivered = 1 AND to_us IS NOT NULL);
