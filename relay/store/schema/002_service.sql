-- The number-protection service: who may use numbers, the numbers, their bindings, and what was told about them.
-- As in 001: parties and free text are sealed and found by keyed hashes of 17 bytes, 700 numbers are plain, times are Unix
-- milliseconds. `by` and *_by name the actor: "key:ID", "cli:USER", "relay".

CREATE TABLE business (
    id             TEXT PRIMARY KEY,
    state          TEXT NOT NULL CHECK (state IN ('applied', 'approved', 'suspended', 'revoked')),
    name           TEXT NOT NULL,
    licence        TEXT NOT NULL DEFAULT '',
    application    TEXT NOT NULL DEFAULT '',  -- reference of the pilot application
    scenario       TEXT NOT NULL DEFAULT 'other' CHECK (scenario IN ('express', 'takeaway', 'ride_hailing', 'other')),
    scheme         TEXT NOT NULL DEFAULT '',  -- reference of the technical scheme
    sealed_contact BLOB,                      -- person and phone; bound to id
    modes          TEXT NOT NULL DEFAULT 'AXB AXYB GXB GXYB AXN',
    max_bindings   INTEGER,                   -- these three: NULL is no limit
    max_calls      INTEGER,
    max_cps        INTEGER,
    live_bindings  INTEGER NOT NULL DEFAULT 0 CHECK (live_bindings >= 0), -- counted when bindings are made and released
    white_only     INTEGER NOT NULL DEFAULT 0 CHECK (white_only IN (0, 1)),
    hours          TEXT,                      -- "08:00-22:00", Asia/Shanghai
    live_events    INTEGER NOT NULL DEFAULT 0 CHECK (live_events IN (0, 1)),
    version        INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO business (id, state, name, created_at, updated_at)
VALUES ('default', 'approved', 'default', unixepoch() * 1000, unixepoch() * 1000);

CREATE TABLE business_change (
    business TEXT NOT NULL,
    at       INTEGER NOT NULL,
    seq      INTEGER NOT NULL, -- the business' version after it
    state    TEXT NOT NULL,
    by       TEXT NOT NULL,
    sealed   BLOB NOT NULL,    -- the reason: free text; bound to business and seq
    PRIMARY KEY (business, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY,
    business   TEXT,             -- NULL: an operator's
    scopes     TEXT NOT NULL,
    hash       BLOB NOT NULL,    -- keyed hash of the secret
    sealed     BLOB NOT NULL,    -- what requests are signed with: SHA-256 of the secret; bound to id, business, scopes
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX api_key_business ON api_key (business, id);

CREATE TABLE pool (
    id           TEXT PRIMARY KEY,
    business     TEXT,          -- NULL: of all that have no pool of their own
    area         TEXT NOT NULL DEFAULT '',
    max_bindings INTEGER NOT NULL DEFAULT 200 CHECK (max_bindings BETWEEN 1 AND 5000), -- of one number
    warn_percent INTEGER NOT NULL DEFAULT 80,
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO pool (id, created_at) VALUES ('default', unixepoch() * 1000);

CREATE TABLE prefix (
    prefix       TEXT PRIMARY KEY CHECK (length(prefix) = 11),
    operator     TEXT NOT NULL, -- its 4th digit
    platform     TEXT NOT NULL, -- its 5th to 11th
    peer         TEXT NOT NULL DEFAULT '',
    state        TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'locked', 'returned')),
    cool_down_ms INTEGER,       -- NULL: as configured
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE number (
    number      TEXT PRIMARY KEY,
    prefix      TEXT NOT NULL,
    pool        TEXT NOT NULL,
    locked      INTEGER NOT NULL DEFAULT 0, -- bits: 1 operator, 2 fraud, 4 prefix. 0: may be used
    exclusive   INTEGER NOT NULL DEFAULT 0, -- an AXN is on it: nobody else
    bindings    INTEGER NOT NULL DEFAULT 0 CHECK (bindings >= 0),
    cools_until INTEGER NOT NULL DEFAULT 0,
    legacy      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Covering: the choice of a number reads nothing else.
CREATE INDEX number_choice ON number (pool, locked, bindings, cools_until, exclusive);

CREATE TABLE party_group (
    id         TEXT PRIMARY KEY,
    business   TEXT NOT NULL,
    name       TEXT NOT NULL,
    size       INTEGER NOT NULL DEFAULT 0,
    version    INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX party_group_business ON party_group (business, id);

-- Who is in a group now.
CREATE TABLE group_member (
    group_id TEXT NOT NULL,
    hash     BLOB NOT NULL,
    sealed   BLOB NOT NULL,     -- bound to group_id
    added_at INTEGER NOT NULL,
    PRIMARY KEY (group_id, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_member_hash ON group_member (hash);

-- Who was in it from added_at to removed_at.
CREATE TABLE past_member (
    group_id   TEXT NOT NULL,
    hash       BLOB NOT NULL,
    sealed     BLOB NOT NULL,
    added_at   INTEGER NOT NULL,
    removed_at INTEGER NOT NULL,
    PRIMARY KEY (group_id, hash, added_at)
) STRICT, WITHOUT ROWID;

CREATE INDEX past_member_hash ON past_member (hash);
CREATE INDEX past_member_removed ON past_member (removed_at);

-- Parties, limits and the expiry stand here alone, so that a change of them is one row and works with the next INVITE.
CREATE TABLE binding (
    id             TEXT PRIMARY KEY,  -- begins with its time, so that new rows lie together
    mode           TEXT NOT NULL,
    business       TEXT NOT NULL REFERENCES business (id),
    pool           TEXT NOT NULL,
    x              TEXT NOT NULL,
    y              TEXT,
    group_id       TEXT,
    a_hash         BLOB,              -- AXB, AXYB, AXN: a; GXB, GXYB: the default a, or NULL
    b_hash         BLOB,              -- AXN: the default b, or NULL
    order_hash     BLOB,
    sealed         BLOB NOT NULL,     -- a, b, order_id, consent, user_data; bound to id, mode, x, y
    direction      TEXT NOT NULL DEFAULT 'both' CHECK (direction IN ('both', 'a_to_b', 'b_to_a')),
    max_call_s     INTEGER,
    ring_timeout_s INTEGER,
    white_only     INTEGER NOT NULL DEFAULT 0 CHECK (white_only IN (0, 1)),
    hours          TEXT,
    version        INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    changed_at     INTEGER,
    changed_by     TEXT,
    expires_at     INTEGER,
    ended_at       INTEGER,           -- unbound by somebody
    released_at    INTEGER            -- its numbers were given back: at its end, or by the sweep after it expired
) STRICT, WITHOUT ROWID;

CREATE INDEX binding_x ON binding (x, created_at);
CREATE INDEX binding_y ON binding (y, created_at) WHERE y IS NOT NULL;
CREATE INDEX binding_a ON binding (a_hash, created_at) WHERE a_hash IS NOT NULL;
CREATE INDEX binding_b ON binding (b_hash, created_at) WHERE b_hash IS NOT NULL;
CREATE INDEX binding_order ON binding (order_hash) WHERE order_hash IS NOT NULL;
CREATE INDEX binding_business ON binding (business, id);
CREATE INDEX binding_group ON binding (group_id, released_at) WHERE group_id IS NOT NULL;
CREATE INDEX binding_due ON binding (expires_at) WHERE expires_at IS NOT NULL AND released_at IS NULL;

CREATE TABLE binding_change (
    binding_id TEXT NOT NULL,
    version    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    by         TEXT NOT NULL,
    sealed     BLOB NOT NULL,  -- the row as it was before: who was behind it at that minute
    PRIMARY KEY (binding_id, version)
) STRICT, WITHOUT ROWID;

-- What finds a binding by a party or a group ("group ID") that it was changed away from.
CREATE TABLE past_party (
    hash       BLOB NOT NULL,
    binding_id TEXT NOT NULL,
    to_ms      INTEGER NOT NULL, -- of the last change away
    PRIMARY KEY (hash, binding_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX past_party_binding ON past_party (binding_id); -- it goes with its binding

-- What a call looks up, and the memory of who used a number: a route stays when its binding ends, with free_at.
CREATE TABLE route (
    number      TEXT NOT NULL,
    caller_hash BLOB NOT NULL,  -- x'': any caller (before every hash, which begins with 01)
    binding_id  TEXT NOT NULL,
    party       TEXT NOT NULL CHECK (party IN ('a', 'b', 'g', '*')),
    pair        BLOB NOT NULL,  -- keyed hash of the two ends that the binding joins: the same two again, or others
    free_at     INTEGER,        -- NULL while bound; then when this party may use this number again
    mac         BLOB NOT NULL,  -- keyed, over number, caller_hash, binding_id, party: no row can be turned to another binding
    PRIMARY KEY (number, caller_hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX route_free ON route (free_at) WHERE free_at IS NOT NULL;
CREATE INDEX route_binding ON route (binding_id);

CREATE TABLE list_entry (
    owner       TEXT NOT NULL,  -- "business ID" or "binding ID"
    caller_hash BLOB NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('black', 'white')),
    sealed      BLOB NOT NULL,
    added_at    INTEGER NOT NULL,
    added_by    TEXT NOT NULL,
    PRIMARY KEY (owner, caller_hash)
) STRICT, WITHOUT ROWID;

-- Whom b reaches who calls back.
CREATE TABLE last_caller (
    binding_id  TEXT PRIMARY KEY,
    number      TEXT NOT NULL,
    caller_hash BLOB NOT NULL,
    sealed      BLOB NOT NULL,
    at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The answer to a request that may be sent again, kept for a day.
CREATE TABLE idempotency (
    owner       TEXT NOT NULL,  -- "business ID" or "operator"
    key         BLOB NOT NULL,  -- keyed hash of the asker's text
    fingerprint BLOB NOT NULL,  -- keyed hash of method, path and body
    status      INTEGER NOT NULL,
    sealed      BLOB NOT NULL,  -- the body of the answer; bound to owner and key
    at          INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_at ON idempotency (at);

-- Every administrative act and every reading of real numbers. Rows are added in the order of their chain, and never change.
CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    object   TEXT NOT NULL,
    business TEXT,
    sealed   BLOB NOT NULL,    -- the reason and the details; bound to seq
    hash     BLOB NOT NULL     -- keyed, over the row and its predecessor's hash
) STRICT;

CREATE TABLE audit_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL,
    mac  BLOB NOT NULL
) STRICT;

-- How far the oldest links of a chain were purged: it is verified from there on.
CREATE TABLE checkpoint (
    chain TEXT PRIMARY KEY CHECK (chain IN ('record', 'audit')),
    seq   INTEGER NOT NULL,    -- of the last link that was purged
    hash  BLOB NOT NULL,
    at    INTEGER NOT NULL,
    mac   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to calls that go on, where their business wants to hear it. The follower deletes what it has told.
CREATE TABLE call_event (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT, -- a number never comes back
    call_id TEXT NOT NULL,
    kind    TEXT NOT NULL,
    sealed  BLOB NOT NULL
) STRICT;

-- What a call record is found by: keyed hashes of its numbers, order, call_id.
CREATE TABLE call_index (
    key    BLOB NOT NULL,
    at     INTEGER NOT NULL,
    record INTEGER NOT NULL,   -- call_record.chain_seq
    PRIMARY KEY (key, at, record)
) STRICT, WITHOUT ROWID;

-- How far the follower has come: 'call_event' (seq), 'call_record' (chain_seq).
CREATE TABLE cursor (
    name TEXT PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook (
    id          TEXT PRIMARY KEY,
    business    TEXT NOT NULL,
    sealed      BLOB NOT NULL, -- url, secret, whether it may be internal; bound to id and business
    kinds       TEXT NOT NULL, -- separated by blanks
    parties     TEXT NOT NULL DEFAULT 'masked' CHECK (parties IN ('none', 'masked', 'clear')),
    disabled_at INTEGER,
    failures    INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_business ON webhook (business, id);

-- Events that a webhook has not taken yet.
CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    kind       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    sealed     BLOB NOT NULL,  -- the event; bound to webhook and event_id
    tries      INTEGER NOT NULL DEFAULT 0,
    dead_at    INTEGER,
    last_error TEXT,
    UNIQUE (webhook, event_id)
) STRICT;

CREATE INDEX outbox_due ON outbox (webhook, seq) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (webhook, seq) WHERE dead_at IS NOT NULL;

CREATE TABLE complaint (
    day      TEXT NOT NULL,
    business TEXT NOT NULL,
    prefix   TEXT NOT NULL,
    count    INTEGER NOT NULL,
    by       TEXT NOT NULL,
    PRIMARY KEY (day, business, prefix)
) STRICT, WITHOUT ROWID;
