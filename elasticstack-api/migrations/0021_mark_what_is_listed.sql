-- The mark of the transaction that last changed a row, or what is told with it: on who uses a
-- drive, and what images it. 0 in a row that was saved before there were marks.
ALTER TABLE drives ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE servers ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE arrays ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
DROP INDEX drives_of_account;
DROP INDEX servers_of_account;
CREATE INDEX drives_of_account ON drives (account, changed);
CREATE INDEX servers_of_account ON servers (account, changed);
CREATE INDEX drives_by_change ON drives (changed);
CREATE INDEX servers_by_change ON servers (changed);
CREATE INDEX hosts_by_change ON hosts (changed);
CREATE INDEX arrays_of_host ON arrays (host);
CREATE INDEX arrays_by_change ON arrays (changed);
CREATE INDEX drives_published ON drives (drive) WHERE media IS NOT NULL;

-- Lists are searched in memory.
ALTER TABLE drives DROP COLUMN name;
ALTER TABLE drives DROP COLUMN tags;
ALTER TABLE servers DROP COLUMN name;
ALTER TABLE servers DROP COLUMN tags;

-- The network cards that are on a VLAN: each has an address that no other of the account has there.
CREATE TABLE cards (
    server TEXT NOT NULL REFERENCES servers (server),
    card BIGINT NOT NULL,
    vlan TEXT NOT NULL,
    mac TEXT NOT NULL,
    PRIMARY KEY (server, card)
);
CREATE INDEX cards_by_address ON cards (vlan, mac);
