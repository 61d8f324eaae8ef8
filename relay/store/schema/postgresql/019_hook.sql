-- The hooks of business users, which decide about calls when they are made.
CREATE TABLE hook (
    business        text COLLATE "C" PRIMARY KEY,
    sealed          bytea NOT NULL,            -- URL, secret, and whether it may be outside the public internet
    parties         text COLLATE "C" NOT NULL, -- none, masked, clear
    unknown_callers bigint NOT NULL,
    disabled_at     bigint,
    created_at      bigint NOT NULL,
    changed_at      bigint NOT NULL
);
