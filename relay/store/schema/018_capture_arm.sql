-- Whose calls are captured for a while, whatever comes of them.
CREATE TABLE capture_arm (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,    -- number, business or peer
    sealed     BLOB NOT NULL,    -- the number, the id of the business user or the name of the peer
    armed_at   INTEGER NOT NULL,
    armed_by   TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
