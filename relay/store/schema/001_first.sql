-- What is or may hold a real number, or a peer's or customer's text, is sealed; what finds it is a keyed hash.
-- 700 numbers are plain. Times are Unix milliseconds.
-- Call records are kept for 6 months at least: no purge may delete them earlier.

-- A value that tells whether the key file is the one this store was made with.
CREATE TABLE key_check (
    hash BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- A call that is up. Its row goes when the call ends, in the transaction that adds its record.
CREATE TABLE live_call (
    id      INTEGER PRIMARY KEY, -- in the order of answers, so that new rows lie together
    call_id TEXT NOT NULL,
    sealed  BLOB NOT NULL        -- the record so far and what a restart needs to go on; bound to id and call_id
) STRICT;

-- One row an attempt that has ended. Rows are added in the order of the chain and never change. So there is no index but on
-- what grows with the rowid: one on call_id or received_at would have a page written for each call that lasted a while.
CREATE TABLE call_record (
    chain_seq      INTEGER PRIMARY KEY,
    call_id        TEXT NOT NULL,
    number_dialled TEXT,          -- where it is a 700 number
    number_shown   TEXT,          -- likewise
    received_at    INTEGER NOT NULL,
    ended_at       INTEGER NOT NULL,
    dialled_hash   BLOB,          -- where number_dialled is NULL
    caller_hash    BLOB NOT NULL,
    callee_hash    BLOB,
    sealed         BLOB NOT NULL, -- the whole record; the columns before it are there to find it, and are checked against it
    chain_hash     BLOB NOT NULL
) STRICT;

CREATE INDEX call_record_ended ON call_record (ended_at);
-- The calls that lasted for ten minutes or more, which are few. So those received before a time are found without a look at
-- all that ended in the eight days after it: the others had ended ten minutes after it.
CREATE INDEX call_record_long ON call_record (ended_at) WHERE ended_at - received_at >= 600000;

-- The last link of the chain, so that a chain cut short is noticed. One row.
CREATE TABLE chain_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL,          -- of the record with chain_seq = seq
    mac  BLOB NOT NULL           -- keyed, over seq and hash
) STRICT;
