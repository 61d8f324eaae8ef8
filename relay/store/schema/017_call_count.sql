-- Ended calls and messages by time, owner and name, for charts. The follower adds to it with its cursor.
CREATE TABLE call_count (
    owner TEXT NOT NULL,    -- '' for all, 'business ID', 'peer NAME'
    span  INTEGER NOT NULL, -- seconds: 60, 600 or 3600
    at    INTEGER NOT NULL, -- the begin of the span, Unix seconds
    name  TEXT NOT NULL,    -- an outcome; 'ringing 0.25': it rang within 0.25 s
    count INTEGER NOT NULL,
    PRIMARY KEY (owner, span, at, name)
) STRICT, WITHOUT ROWID;
