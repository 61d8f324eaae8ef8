-- Whose calls are captured for a while, whatever comes of them.
CREATE TABLE capture_arm (
    id         text COLLATE "C" PRIMARY KEY,
    kind       text COLLATE "C" NOT NULL, -- number, business or peer
    sealed     bytea NOT NULL,            -- the number, the id of the business user or the name of the peer
    armed_at   bigint NOT NULL,
    armed_by   text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL
);
