-- What is or may hold a real number, or a peer's or customer's text, is sealed; what finds it is a keyed hash.
-- 700 numbers are plain. Hashes have 17 bytes. Times are Unix milliseconds.
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
    hash BLOB NOT NULL, -- of the record with chain_seq = seq
    mac  BLOB NOT NULL  -- keyed, over seq and hash
) STRICT;

-- The number-protection service: who may use numbers, the numbers, their bindings, and what was told about them.
-- `by` and *_by name the actor: "key:ID", "cli:USER", "relay".

CREATE TABLE business (
    id                TEXT PRIMARY KEY,
    state             TEXT NOT NULL CHECK (state IN ('applied', 'approved', 'suspended', 'revoked')),
    name              TEXT NOT NULL,
    licence           TEXT NOT NULL DEFAULT '',
    application       TEXT NOT NULL DEFAULT '', -- reference of the pilot application
    scenario          TEXT NOT NULL DEFAULT 'other' CHECK (scenario IN ('express', 'takeaway', 'ride_hailing', 'other')),
    scheme            TEXT NOT NULL DEFAULT '', -- reference of the technical scheme
    sealed_contact    BLOB,                     -- person and phone; bound to id
    modes             TEXT NOT NULL DEFAULT 'AXB AXYB GXB GXYB AXN',
    -- Of these three and the two below NULL is the configured limit, and 2^62 none at all.
    max_bindings      INTEGER,
    max_calls         INTEGER,
    max_cps           INTEGER,
    white_only        INTEGER NOT NULL DEFAULT 0 CHECK (white_only IN (0, 1)),
    hours             TEXT,                     -- "08:00-22:00", Asia/Shanghai
    live_events       INTEGER NOT NULL DEFAULT 0 CHECK (live_events IN (0, 1)),
    version           INTEGER NOT NULL DEFAULT 1,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    language          TEXT CHECK (language IN ('zh', 'en')), -- of what its calls' parties hear; NULL: as configured
    max_binds_per_s   INTEGER,
    max_binds_per_day INTEGER,
    qualification     INTEGER,                  -- business_change.seq of the approval in force; NULL: the first
    hook              INTEGER                   -- 1: its hook is asked about its calls. NULL costs a look-up nothing
) STRICT, WITHOUT ROWID;

INSERT INTO business (id, state, name, created_at, updated_at)
VALUES ('default', 'approved', 'default', unixepoch() * 1000, unixepoch() * 1000);

CREATE TABLE business_change (
    business     TEXT NOT NULL,
    at           INTEGER NOT NULL,
    seq          INTEGER NOT NULL, -- the business' version after it
    state        TEXT NOT NULL,
    by           TEXT NOT NULL,
    sealed       BLOB NOT NULL,    -- the reason: free text; bound to business and seq
    sealed_terms BLOB,             -- the qualification after it, and before it where that was another; bound likewise
    PRIMARY KEY (business, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY,
    business   TEXT,          -- NULL: an operator's
    scopes     TEXT NOT NULL,
    hash       BLOB NOT NULL, -- keyed hash of the secret
    sealed     BLOB NOT NULL, -- what requests are signed with: SHA-256 of the secret; bound to id, business, scopes
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    name       TEXT           -- of the program or person that has it; NULL: none
) STRICT, WITHOUT ROWID;

CREATE INDEX api_key_business ON api_key (business, id);

-- People who log in to the console.
CREATE TABLE user_account (
    name         TEXT PRIMARY KEY,
    role         TEXT NOT NULL,
    business     TEXT, -- NULL: an operator's
    sealed       BLOB NOT NULL, -- password hash and secret of the codes; bound to name, role, business
    must_change  INTEGER NOT NULL DEFAULT 1 CHECK (must_change IN (0, 1)), -- 1: the password is the first one
    password_at  INTEGER NOT NULL, -- sessions begun before it are over
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    disabled_at  INTEGER,
    failures     INTEGER NOT NULL DEFAULT 0, -- failed log-ins in a row
    locked_until INTEGER,
    last_step    INTEGER -- half-minute since 1970 of the last code: none is taken twice
) STRICT, WITHOUT ROWID;

CREATE TABLE pool (
    id           TEXT PRIMARY KEY,
    business     TEXT, -- NULL: of all that have no pool of their own
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
    legacy      INTEGER NOT NULL DEFAULT 0,
    -- Whose bindings are on it, or were last while it rests. It serves one business user at a time: from what is refused on
    -- a shared number one would learn whom another has bound there.
    holder      TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- Covering: the choice of a number, and of one to share, reads nothing else.
CREATE INDEX number_choice ON number (pool, locked, exclusive, bindings, cools_until);
CREATE INDEX number_held ON number (pool, holder, locked, exclusive, bindings, cools_until) WHERE bindings > 0;

CREATE TABLE party_group (
    id         TEXT PRIMARY KEY,
    business   TEXT NOT NULL,
    size       INTEGER NOT NULL DEFAULT 0,
    version    INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    sealed     BLOB -- its name: free text; bound to id
) STRICT, WITHOUT ROWID;

CREATE INDEX party_group_business ON party_group (business, id);

-- Who is in a group now.
CREATE TABLE group_member (
    group_id TEXT NOT NULL,
    hash     BLOB NOT NULL,
    sealed   BLOB NOT NULL, -- bound to group_id
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
    id             TEXT PRIMARY KEY, -- begins with its time, so that new rows lie together
    mode           TEXT NOT NULL,
    business       TEXT NOT NULL REFERENCES business (id),
    pool           TEXT NOT NULL,
    x              TEXT NOT NULL,
    y              TEXT,
    group_id       TEXT,
    a_hash         BLOB,             -- AXB, AXYB, AXN: a; GXB, GXYB: the default a, or NULL
    b_hash         BLOB,             -- AXN: the default b, or NULL
    order_hash     BLOB,
    sealed         BLOB NOT NULL,    -- a, b, order_id, consent, user_data; bound to id, mode, x, y
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
    ended_at       INTEGER,          -- unbound by somebody
    released_at    INTEGER,          -- its numbers were given back: at its end, or by the sweep after it expired
    ended_by       TEXT,
    record         INTEGER NOT NULL DEFAULT 0 CHECK (record IN (0, 1)), -- whether its calls are recorded
    idle_ttl_s     INTEGER,          -- it ends that long after its last call,
    max_expires_at INTEGER           -- and then at the latest
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
    sealed     BLOB NOT NULL, -- the row as it was before: who was behind it at that minute
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
    caller_hash BLOB NOT NULL, -- x'': any caller (before every hash, which begins with 01)
    binding_id  TEXT NOT NULL,
    party       TEXT NOT NULL CHECK (party IN ('a', 'b', 'g', '*')),
    pair        BLOB NOT NULL, -- keyed hash of the two ends that the binding joins: the same two again, or others
    free_at     INTEGER,       -- NULL while bound; then when this party may use this number again
    PRIMARY KEY (number, caller_hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX route_free ON route (free_at) WHERE free_at IS NOT NULL;
CREATE INDEX route_binding ON route (binding_id);

CREATE TABLE list_entry (
    owner       TEXT NOT NULL, -- "business ID" or "binding ID"
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
    owner       TEXT NOT NULL, -- "business ID" or "operator"
    key         BLOB NOT NULL, -- keyed hash of the asker's text
    fingerprint BLOB NOT NULL, -- keyed hash of method, path and body
    status      INTEGER NOT NULL,
    sealed      BLOB NOT NULL, -- the body of the answer; bound to owner and key
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
    sealed   BLOB NOT NULL, -- the reason and the details; bound to seq
    hash     BLOB NOT NULL  -- keyed, over the row and its predecessor's hash
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
    seq   INTEGER NOT NULL, -- of the last link that was purged
    hash  BLOB NOT NULL,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened to calls that go on, where their business wants to hear it. The follower deletes what it has told.
CREATE TABLE call_event (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT, -- a number never comes back
    call_id TEXT NOT NULL,
    kind    TEXT NOT NULL,
    sealed  BLOB NOT NULL
) STRICT;

-- What a call record is found by. relay/store/record_index.py tells the keys.
CREATE TABLE record_index (
    key    INTEGER NOT NULL,
    at     INTEGER NOT NULL, -- received_at
    record INTEGER NOT NULL, -- call_record.chain_seq
    PRIMARY KEY (key, at, record)
) STRICT, WITHOUT ROWID;

-- How far the follower and the index have come: 'call_event' (seq); 'followed', 'record_index' (chain_seq).
CREATE TABLE cursor (
    name TEXT PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook (
    id            TEXT PRIMARY KEY,
    business      TEXT NOT NULL,
    sealed        BLOB NOT NULL, -- url, secret, whether it may be internal; bound to id and business
    kinds         TEXT NOT NULL, -- separated by blanks
    parties       TEXT NOT NULL DEFAULT 'masked' CHECK (parties IN ('none', 'masked', 'clear')),
    disabled_at   INTEGER,
    failures      INTEGER NOT NULL DEFAULT 0,
    next_at       INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    last_error    TEXT,          -- why the last delivery that failed did. It stays when later ones are taken
    last_error_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_business ON webhook (business, id);

-- Events that a webhook has not taken yet.
CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    kind       TEXT NOT NULL,
    at         INTEGER NOT NULL,
    sealed     BLOB NOT NULL, -- the event; bound to webhook and event_id
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

-- What was recorded of a call, once it was taken over from rtpengine. The sound is in a file of its own, sealed. When that is
-- purged the row stays, for as long as the call's record does.
CREATE TABLE recording (
    call_id   TEXT PRIMARY KEY,
    business  TEXT NOT NULL,    -- "" where there is none
    taken_at  INTEGER NOT NULL,
    length_ms INTEGER NOT NULL, -- from its first packet to its last
    size      INTEGER NOT NULL, -- bytes of what was recorded, as it is when it is opened
    sha256    TEXT NOT NULL,    -- of the same, in hexadecimal digits
    purged_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX recording_taken ON recording (taken_at, call_id);
CREATE INDEX recording_kept ON recording (taken_at) WHERE purged_at IS NULL;

-- The fewest scripts that a relay must know to use this store: one that knows fewer than this store has seen may go on with
-- what they added. A script that changes what an earlier relay reads or writes raises it, to its own number.
CREATE TABLE schema_least (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    least INTEGER NOT NULL
) STRICT;

INSERT INTO schema_least (id, least) VALUES (1, 1);

-- The master keys that values of this store were sealed with. The keys themselves are in the key file. The one in use is
-- the one with the highest id that has a used_at.
CREATE TABLE sealing_key (
    id         INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 255), -- the first byte of what was sealed with it
    proof      BLOB NOT NULL, -- made from the key: whether the one at hand is this one
    added_at   INTEGER NOT NULL,
    used_at    INTEGER,       -- since when it was in use; NULL: never
    dropped_at INTEGER        -- since when nothing needs it
) STRICT;

-- The ledger: what proves each row that gives a right or is evidence (relay/store/ledger_tables.py says which tables).
CREATE TABLE ledger (
    table_name TEXT NOT NULL,
    row_key    TEXT NOT NULL,
    proof      BLOB NOT NULL, -- revision (6 bytes), keyed MACs (16 each) over the row and over what of it no call goes by; empty: distrusted
    PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID;

-- Rows that were changed and are not proven yet. Triggers add them; whoever writes through relay700 proves them in the same
-- transaction. So what is found here between two transactions was changed by somebody else.
CREATE TABLE ledger_touch (
    table_name TEXT NOT NULL,
    row_key    TEXT NOT NULL,
    before     TEXT, -- the covered columns as they were, as JSON; NULL: there was no such row
    PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID;

-- What all rows of each table add up to, and where the chains of records and of the audit log ended then. One row.
CREATE TABLE ledger_head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL, -- how often it was written
    sealed   BLOB NOT NULL     -- bound to revision
) STRICT;

-- The covered rows that were changed or deleted lately: an older proof of theirs was put back.
CREATE TABLE ledger_change (
    seq      INTEGER PRIMARY KEY,  -- of the last row that it names; the head of the ledger has the latest
    revision INTEGER NOT NULL,     -- of the ledger
    named    BLOB NOT NULL,        -- tables and keys
    mac      BLOB NOT NULL
) STRICT;

-- The A numbers that business users have filed with the carriers. One that is withdrawn stays for as long as the audit log.
CREATE TABLE filing (
    business       TEXT NOT NULL,
    hash           BLOB NOT NULL, -- of the number, keyed
    sealed         BLOB NOT NULL, -- the number and the reference of its filing
    filed_at       INTEGER NOT NULL,
    filed_by       TEXT NOT NULL,
    withdrawn_at   INTEGER,       -- NULL: it is in force
    withdrawn_by   TEXT,
    state          TEXT,          -- what the carrier has answered: submitted, rejected or revoked; NULL: approved
    expires_at     INTEGER,
    reference_hash BLOB,          -- of the reference, keyed
    documents      BLOB,          -- sealed: holder, identity document, reference of the photo
    answered_at    INTEGER,
    answered_by    TEXT,
    PRIMARY KEY (business, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX filing_reference ON filing (business, reference_hash) WHERE reference_hash IS NOT NULL;
CREATE INDEX filing_expiry ON filing (expires_at) WHERE expires_at IS NOT NULL;

-- A filing as it was before each change.
CREATE TABLE filing_change (
    business TEXT NOT NULL,
    hash     BLOB NOT NULL,
    at       INTEGER NOT NULL, -- of the change
    sealed   BLOB NOT NULL,    -- the whole filing
    PRIMARY KEY (business, hash, at)
) STRICT, WITHOUT ROWID;

-- Papers that the platform, the carriers and the business users present: one version of one paper each.
CREATE TABLE paper (
    id           TEXT NOT NULL PRIMARY KEY,
    owner        TEXT NOT NULL,    -- 'platform', 'carrier NAME' or 'business ID'
    kind         TEXT NOT NULL,
    version      INTEGER NOT NULL, -- counted for each owner and kind
    state        TEXT NOT NULL,    -- submitted, supplement_asked, accepted, rejected or withdrawn
    valid_from   INTEGER,          -- NULL: since ever
    valid_until  INTEGER,          -- from then on it is over; NULL: without end
    due_at       INTEGER,          -- by when a supplement is due
    sha256       TEXT NOT NULL,    -- of the file
    size         INTEGER NOT NULL,
    media_type   TEXT NOT NULL,
    sealed       BLOB NOT NULL,    -- reference, issuer, scope, text of the answer
    submitted_at INTEGER NOT NULL,
    submitted_by TEXT NOT NULL,
    answered_at  INTEGER,
    answered_by  TEXT,
    withdrawn_at INTEGER,
    withdrawn_by TEXT
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX paper_owner ON paper (owner, kind, version);
CREATE INDEX paper_end ON paper (valid_until) WHERE valid_until IS NOT NULL;

-- The files of papers, in parts.
CREATE TABLE paper_part (
    paper_id TEXT NOT NULL,
    part     INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (paper_id, part)
) STRICT;

-- Ended calls and messages by time, owner and name, for charts. The follower adds to it with its cursor.
CREATE TABLE call_count (
    owner TEXT NOT NULL,    -- '' for all, 'business ID', 'peer NAME'
    span  INTEGER NOT NULL, -- seconds: 60, 600 or 3600
    at    INTEGER NOT NULL, -- the begin of the span, Unix seconds
    name  TEXT NOT NULL,    -- an outcome; 'ringing 0.25': it rang within 0.25 s
    count INTEGER NOT NULL,
    PRIMARY KEY (owner, span, at, name)
) STRICT, WITHOUT ROWID;

-- Whose calls are captured for a while, whatever comes of them.
CREATE TABLE capture_arm (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL, -- number, business or peer
    sealed     BLOB NOT NULL, -- the number, the id of the business user or the name of the peer
    armed_at   INTEGER NOT NULL,
    armed_by   TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The configurations that a relay has had in force, each from `at` on.
CREATE TABLE configuration (
    node   TEXT NOT NULL, -- '' of a store in a file
    at     INTEGER NOT NULL,
    hash   BLOB NOT NULL, -- keyed, of the text
    sealed BLOB NOT NULL, -- the text; bound to node and at
    PRIMARY KEY (node, at)
) STRICT, WITHOUT ROWID;

-- The hooks of business users, which decide about calls when they are made.
CREATE TABLE hook (
    business        TEXT PRIMARY KEY,
    sealed          BLOB NOT NULL, -- URL, secret, and whether it may be outside the public internet
    parties         TEXT NOT NULL, -- none, masked, clear
    unknown_callers INTEGER NOT NULL,
    disabled_at     INTEGER,
    created_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counts of a business user's bindings. In its row of business each binding would keep others from reading it.
CREATE TABLE business_count (
    business TEXT PRIMARY KEY,
    live     INTEGER NOT NULL,
    day      INTEGER NOT NULL, -- since 1970, of China: that of today
    today    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
