-- The master keys that values of this store were sealed with. The keys themselves are in the key file. The one in use is
-- the one with the highest id that has a used_at.
CREATE TABLE sealing_key (
    id         INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 255), -- the first byte of what was sealed with it
    proof      BLOB NOT NULL,    -- made from the key: whether the one at hand is this one
    added_at   INTEGER NOT NULL,
    used_at    INTEGER,          -- since when it was in use; NULL: never
    dropped_at INTEGER           -- since when nothing needs it
) STRICT;
