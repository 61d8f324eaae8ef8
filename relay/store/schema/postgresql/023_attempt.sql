-- An attempt under way that has lasted for a moment: what another node needs to end it if its own node stays away. That
-- node has it in a file, too. The row goes once the attempt is over, after its record was written.
CREATE TABLE attempt (
    call_id text COLLATE "C" PRIMARY KEY,
    node    text COLLATE "C" NOT NULL, -- who ends it
    sealed  bytea NOT NULL             -- the record so far, and the caller's and callees' transactions; bound to call_id
);
