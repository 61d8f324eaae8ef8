-- The A numbers that business users have filed with the carriers. One that is withdrawn stays for as long as the audit log.
CREATE TABLE filing (
    business     text COLLATE "C" NOT NULL,
    hash         bytea NOT NULL,   -- of the number, keyed
    sealed       bytea NOT NULL,   -- the number and the reference of its filing
    filed_at     bigint NOT NULL,
    filed_by     text COLLATE "C" NOT NULL,
    withdrawn_at bigint,           -- NULL: it is in force
    withdrawn_by text COLLATE "C",
    PRIMARY KEY (business, hash)
);
