-- The A numbers that business users have filed with the carriers. One that is withdrawn stays for as long as the audit log.
CREATE TABLE filing (
    business     TEXT NOT NULL,
    hash         BLOB NOT NULL,    -- of the number, keyed
    sealed       BLOB NOT NULL,    -- the number and the reference of its filing
    filed_at     INTEGER NOT NULL,
    filed_by     TEXT NOT NULL,
    withdrawn_at INTEGER,          -- NULL: it is in force
    withdrawn_by TEXT,
    PRIMARY KEY (business, hash)
) STRICT, WITHOUT ROWID;
