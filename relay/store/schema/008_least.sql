-- The fewest scripts that a relay must know to use this store: one that knows fewer than this store has seen may go on with
-- what they added. A script that changes what an earlier relay reads or writes raises it, to its own number.
CREATE TABLE schema_least (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    least INTEGER NOT NULL
) STRICT;

INSERT INTO schema_least (id, least) VALUES (1, 8);
