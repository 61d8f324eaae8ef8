-- Ended calls and messages by time, owner and name, for charts. The follower adds to it with its cursor.
CREATE TABLE call_count (
    owner text COLLATE "C" NOT NULL, -- '' for all, 'business ID', 'peer NAME'
    span  bigint NOT NULL,           -- seconds: 60, 600 or 3600
    at    bigint NOT NULL,           -- the begin of the span, Unix seconds
    name  text COLLATE "C" NOT NULL, -- an outcome; 'ringing 0.25': it rang within 0.25 s
    count bigint NOT NULL,
    PRIMARY KEY (owner, span, at, name)
);
