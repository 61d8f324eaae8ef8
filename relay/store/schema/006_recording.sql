-- Whether calls of the binding are recorded.
ALTER TABLE binding ADD COLUMN record INTEGER NOT NULL DEFAULT 0 CHECK (record IN (0, 1));

-- What was recorded of a call, once it was taken over from rtpengine. The sound is in a file of its own, sealed. When that is
-- purged the row stays, for as long as the call's record does.
CREATE TABLE recording (
    call_id   TEXT PRIMARY KEY,
    business  TEXT NOT NULL,     -- "" where there is none
    taken_at  INTEGER NOT NULL,
    length_ms INTEGER NOT NULL,  -- from its first packet to its last
    size      INTEGER NOT NULL,  -- bytes of what was recorded, as it is when it is opened
    sha256    TEXT NOT NULL,     -- of the same, in hexadecimal digits
    purged_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX recording_taken ON recording (taken_at, call_id);
CREATE INDEX recording_kept ON recording (taken_at) WHERE purged_at IS NULL;
