-- Ranges of addresses that static IPs are taken from; addresses are numbers here.
CREATE TABLE pools (
    pool TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    first_address BIGINT NOT NULL,
    last_address BIGINT NOT NULL,
    netmask BIGINT NOT NULL,
    gateway BIGINT NOT NULL,
    nameserver TEXT NOT NULL
);

-- Static IPs and VLANs. No host knows them, so that a row goes with its resource.
CREATE TABLE resources (
    -- The address, or the VLAN's UUID.
    resource TEXT PRIMARY KEY,
    -- ip or vlan.
    kind TEXT NOT NULL,
    account TEXT NOT NULL REFERENCES accounts (account),
    -- Of a static IP; null for a VLAN.
    pool TEXT REFERENCES pools (pool),
    address BIGINT,
    -- The keys that its owner set, as a JSON object.
    config TEXT NOT NULL
);
CREATE INDEX resources_of_account ON resources (account, kind);
CREATE INDEX resources_of_pool ON resources (pool, address);

-- The intent of a server's newest run to use a resource.
CREATE TABLE resource_claims (
    resource TEXT NOT NULL REFERENCES resources (resource),
    kind TEXT NOT NULL,
    server TEXT NOT NULL REFERENCES servers (server),
    PRIMARY KEY (resource, server)
);
CREATE UNIQUE INDEX resource_claims_of_ip ON resource_claims (resource) WHERE kind = 'ip';
CREATE INDEX resource_claims_of_server ON resource_claims (server);
