-- How many calls all nodes together have granted of late, for caps on frequency. Keys are those of call_index: of a caller on a
-- number, and of a number. Calls are counted in slices of time by the server's clock; the last slice goes last.
CREATE TABLE frequency (
    key     bytea NOT NULL,
    granted bigint NOT NULL,   -- calls, counted from any number on
    begun   bigint[] NOT NULL, -- when each slice began
    before  bigint[] NOT NULL, -- what `granted` was then
    PRIMARY KEY (key)
) WITH (fillfactor = 80);
