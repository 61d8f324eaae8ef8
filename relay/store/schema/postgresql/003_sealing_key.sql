-- The master keys that values of this store were sealed with. The keys themselves are in the key file. The one in use is
-- the one with the highest id that has a used_at.
CREATE TABLE sealing_key (
    id         bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 255), -- the first byte of what was sealed with it
    proof      bytea NOT NULL,   -- made from the key: whether the one at hand is this one
    added_at   bigint NOT NULL,
    used_at    bigint,           -- since when it was in use; NULL: never
    dropped_at bigint            -- since when nothing needs it
);

-- The ids of the keys that its process has, separated by blanks; NULL: it was of a version that has one.
ALTER TABLE node ADD COLUMN sealing_keys text COLLATE "C";
