-- The configurations that a relay has had in force, each from `at` on.
CREATE TABLE configuration (
    node   text COLLATE "C" NOT NULL,
    at     bigint NOT NULL,
    hash   bytea NOT NULL,   -- keyed, of the text
    sealed bytea NOT NULL,   -- the text; bound to node and at
    PRIMARY KEY (node, at)
);
