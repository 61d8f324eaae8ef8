-- The hooks of business users, which decide about calls when they are made.
CREATE TABLE hook (
    business        TEXT PRIMARY KEY,
    sealed          BLOB NOT NULL,    -- URL, secret, and whether it may be outside the public internet
    parties         TEXT NOT NULL,    -- none, masked, clear
    unknown_callers INTEGER NOT NULL,
    disabled_at     INTEGER,
    created_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
