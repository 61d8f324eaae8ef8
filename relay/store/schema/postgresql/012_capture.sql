-- Captures of calls, for some days: a partition a day, made by who writes the first row of it (relay/store/postgres/captures.py).
CREATE TABLE capture (
    call_id text COLLATE "C" NOT NULL,
    at      bigint NOT NULL, -- of the first message, Unix microseconds
    sealed  bytea NOT NULL,
    PRIMARY KEY (call_id, at)
) PARTITION BY RANGE (at);
CREATE INDEX capture_at ON capture (at);
