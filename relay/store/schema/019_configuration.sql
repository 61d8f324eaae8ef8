-- The configurations that a relay has had in force, each from `at` on.
CREATE TABLE configuration (
    node   TEXT NOT NULL,    -- '' of a store in a file
    at     INTEGER NOT NULL,
    hash   BLOB NOT NULL,    -- keyed, of the text
    sealed BLOB NOT NULL,    -- the text; bound to node and at
    PRIMARY KEY (node, at)
) STRICT, WITHOUT ROWID;
