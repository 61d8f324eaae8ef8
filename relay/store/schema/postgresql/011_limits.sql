-- How many calls all nodes together have granted of late, for caps on frequency. Keys are those of call_index: of a caller on a
-- number, and of a number. Calls are counted in slices of time by the server's clock; the last slice goes last.
CREATE TABLE frequency (
    key     bytea NOT NULL,
    granted bigint NOT NULL,   -- calls, counted from any number on
    begun   bigint[] NOT NULL, -- when each slice began
    before  bigint[] NOT NULL, -- what `granted` was then
    PRIMARY KEY (key)
) WITH (fillfactor = 80);

-- What each node has at the moment of what is limited, for the others. It writes its row once a second.
CREATE TABLE node_count (
    node   text COLLATE "C" NOT NULL,
    counts text COLLATE "C" NOT NULL, -- JSON: how many, by what is counted and by name
    PRIMARY KEY (node)
);
