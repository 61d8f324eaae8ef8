-- The ledger: what proves each row that gives a right or is evidence (relay/store/ledger_tables.py says which tables).
CREATE TABLE ledger (
    table_name TEXT NOT NULL,
    row_key    TEXT NOT NULL,
    proof      BLOB NOT NULL, -- revision (6 bytes), keyed MACs (16 each) over the row and over what of it no call goes by; empty: distrusted
    PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID;

-- Rows that were changed and are not proven yet. Triggers add them; whoever writes through relay700 proves them in the same
-- transaction. So what is found here between two transactions was changed by somebody else.
CREATE TABLE ledger_touch (
    table_name TEXT NOT NULL,
    row_key    TEXT NOT NULL,
    before     TEXT, -- the covered columns as they were, as JSON; NULL: there was no such row
    PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID;

-- What all rows of each table add up to, and where the chains of records and of the audit log ended then. One row.
CREATE TABLE ledger_head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL, -- how often it was written
    sealed   BLOB NOT NULL     -- bound to revision
) STRICT;

UPDATE schema_least SET least = 10;
