-- The store of several relays on one PostgreSQL server: the tables of a file, and what its nodes share.
-- Text is compared by its bytes, whatever the database's collation. What SQLite has and PostgreSQL has not is made here.
-- What is or may hold a real number, or a peer's or customer's text, is sealed; what finds it is a keyed hash.
-- 700 numbers are plain. Hashes have 17 bytes. Times are Unix milliseconds.
-- Call records are kept for 6 months at least: no purge may delete them earlier.

CREATE DOMAIN blob AS bytea;

CREATE FUNCTION instr(haystack text, needle text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT strpos(haystack, needle)';

-- A relay that uses this store. Its epoch goes up whenever it starts, and when another takes its calls over: what a node
-- writes with an earlier one is refused.
CREATE TABLE node (
    name         text COLLATE "C" PRIMARY KEY,
    epoch        bigint NOT NULL,
    batch        bigint NOT NULL DEFAULT 0, -- the last that its journal wrote in this epoch
    seen_at      timestamptz NOT NULL,      -- by the server's clock
    taken_by     text COLLATE "C",          -- who took its calls over since
    stopped_at   timestamptz,               -- it ended in order, and left no calls
    sealing_keys text COLLATE "C"           -- those that its process has: ids and proofs
);

-- A value that tells whether the key file is the one this store was made with.
CREATE TABLE key_check (
    hash bytea PRIMARY KEY
);

-- A call that is up. Its row goes when the call ends, in the transaction that adds its record.
CREATE TABLE live_call (
    call_id text COLLATE "C" PRIMARY KEY,
    id      bigint NOT NULL DEFAULT 0, -- as in SQLite's table, where it is the row's place
    node    text COLLATE "C" NOT NULL, -- whose call it is
    sealed  bytea NOT NULL             -- the record so far and what a restart needs to go on; bound to id and call_id
);

CREATE INDEX live_call_node ON live_call (node);

-- One row an attempt that has ended. Rows are added in the order of the chain and never change. So there is no index but on
-- what grows with the rowid: one on call_id or received_at would have a page written for each call that lasted a while.
CREATE TABLE call_record (
    chain_seq      bigint PRIMARY KEY,
    call_id        text COLLATE "C" NOT NULL,
    number_dialled text COLLATE "C", -- where it is a 700 number
    number_shown   text COLLATE "C", -- likewise
    received_at    bigint NOT NULL,
    ended_at       bigint NOT NULL,
    dialled_hash   bytea,            -- where number_dialled is NULL
    caller_hash    bytea NOT NULL,
    callee_hash    bytea,
    sealed         bytea NOT NULL,   -- the whole record; the columns before it are there to find it, and are checked against it
    chain_hash     bytea NOT NULL
);

CREATE INDEX call_record_ended ON call_record (ended_at);
-- The calls that lasted for ten minutes or more, which are few. So those received before a time are found without a look at
-- all that ended in the eight days after it: the others had ended ten minutes after it.
CREATE INDEX call_record_long ON call_record (ended_at) WHERE ended_at - received_at >= 600000;

-- The last link of the chain, so that a chain cut short is noticed. One row.
CREATE TABLE chain_head (
    id   bigint PRIMARY KEY CHECK (id = 1),
    seq  bigint NOT NULL,
    hash bytea NOT NULL, -- of the record with chain_seq = seq
    mac  bytea NOT NULL  -- keyed, over seq and hash
);

-- The number-protection service: who may use numbers, the numbers, their bindings, and what was told about them.
-- `by` and *_by name the actor: "key:ID", "cli:USER", "relay".

CREATE TABLE business (
    id                text COLLATE "C" PRIMARY KEY,
    state             text COLLATE "C" NOT NULL CHECK (state IN ('applied', 'approved', 'suspended', 'revoked')),
    name              text COLLATE "C" NOT NULL,
    licence           text COLLATE "C" NOT NULL DEFAULT '',
    application       text COLLATE "C" NOT NULL DEFAULT '', -- reference of the pilot application
    scenario          text COLLATE "C" NOT NULL DEFAULT 'other' CHECK (scenario IN ('express', 'takeaway', 'ride_hailing', 'other')),
    scheme            text COLLATE "C" NOT NULL DEFAULT '', -- reference of the technical scheme
    sealed_contact    bytea,            -- person and phone; bound to id
    modes             text COLLATE "C" NOT NULL DEFAULT 'AXB AXYB GXB GXYB AXN',
    -- Of these three and the two below NULL is the configured limit, and 2^62 none at all.
    max_bindings      bigint,
    max_calls         bigint,
    max_cps           bigint,
    white_only        bigint NOT NULL DEFAULT 0 CHECK (white_only IN (0, 1)),
    hours             text COLLATE "C", -- "08:00-22:00", Asia/Shanghai
    live_events       bigint NOT NULL DEFAULT 0 CHECK (live_events IN (0, 1)),
    version           bigint NOT NULL DEFAULT 1,
    created_at        bigint NOT NULL,
    updated_at        bigint NOT NULL,
    language          text COLLATE "C" CHECK (language IN ('zh', 'en')), -- of what its calls' parties hear; NULL: as configured
    max_binds_per_s   bigint,
    max_binds_per_day bigint,
    qualification     bigint,           -- business_change.seq of the approval in force; NULL: the first
    hook              bigint            -- 1: its hook is asked about its calls. NULL costs a look-up nothing
);

INSERT INTO business (id, state, name, created_at, updated_at)
VALUES ('default', 'approved', 'default', (extract(epoch FROM now()) * 1000)::bigint, (extract(epoch FROM now()) * 1000)::bigint);

CREATE TABLE business_change (
    business     text COLLATE "C" NOT NULL,
    at           bigint NOT NULL,
    seq          bigint NOT NULL, -- the business' version after it
    state        text COLLATE "C" NOT NULL,
    by           text COLLATE "C" NOT NULL,
    sealed       bytea NOT NULL,  -- the reason: free text; bound to business and seq
    sealed_terms bytea,           -- the qualification after it, and before it where that was another; bound likewise
    PRIMARY KEY (business, at, seq)
);

CREATE TABLE api_key (
    id         text COLLATE "C" PRIMARY KEY,
    business   text COLLATE "C", -- NULL: an operator's
    scopes     text COLLATE "C" NOT NULL,
    hash       bytea NOT NULL,   -- keyed hash of the secret
    sealed     bytea NOT NULL,   -- what requests are signed with: SHA-256 of the secret; bound to id, business, scopes
    created_at bigint NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    name       text COLLATE "C" -- of the program or person that has it; NULL: none
);

CREATE INDEX api_key_business ON api_key (business, id);

-- People who log in to the console.
CREATE TABLE user_account (
    name         text COLLATE "C" PRIMARY KEY,
    role         text COLLATE "C" NOT NULL,
    business     text COLLATE "C", -- NULL: an operator's
    sealed       bytea NOT NULL, -- password hash and secret of the codes; bound to name, role, business
    must_change  bigint NOT NULL DEFAULT 1 CHECK (must_change IN (0, 1)), -- 1: the password is the first one
    password_at  bigint NOT NULL, -- sessions begun before it are over
    created_at   bigint NOT NULL,
    created_by   text COLLATE "C" NOT NULL,
    disabled_at  bigint,
    failures     bigint NOT NULL DEFAULT 0, -- failed log-ins in a row
    locked_until bigint,
    last_step    bigint -- half-minute since 1970 of the last code: none is taken twice
);

CREATE TABLE pool (
    id           text COLLATE "C" PRIMARY KEY,
    business     text COLLATE "C", -- NULL: of all that have no pool of their own
    area         text COLLATE "C" NOT NULL DEFAULT '',
    max_bindings bigint NOT NULL DEFAULT 200 CHECK (max_bindings BETWEEN 1 AND 5000), -- of one number
    warn_percent bigint NOT NULL DEFAULT 80,
    created_at   bigint NOT NULL
);

INSERT INTO pool (id, created_at) VALUES ('default', (extract(epoch FROM now()) * 1000)::bigint);

CREATE TABLE prefix (
    prefix       text COLLATE "C" PRIMARY KEY CHECK (length(prefix) = 11),
    operator     text COLLATE "C" NOT NULL, -- its 4th digit
    platform     text COLLATE "C" NOT NULL, -- its 5th to 11th
    peer         text COLLATE "C" NOT NULL DEFAULT '',
    state        text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'locked', 'returned')),
    cool_down_ms bigint,                    -- NULL: as configured
    created_at   bigint NOT NULL
);

CREATE TABLE number (
    number      text COLLATE "C" PRIMARY KEY,
    prefix      text COLLATE "C" NOT NULL,
    pool        text COLLATE "C" NOT NULL,
    locked      bigint NOT NULL DEFAULT 0, -- bits: 1 operator, 2 fraud, 4 prefix. 0: may be used
    exclusive   bigint NOT NULL DEFAULT 0, -- an AXN is on it: nobody else
    bindings    integer NOT NULL DEFAULT 0 CHECK (bindings >= 0),
    cools_until bigint NOT NULL DEFAULT 0,
    legacy      bigint NOT NULL DEFAULT 0,
    -- Whose bindings are on it, or were last while it rests. It serves one business user at a time: from what is refused on
    -- a shared number one would learn whom another has bound there.
    holder      text COLLATE "C" NOT NULL DEFAULT ''
);

-- Covering: the choice of a number, and of one to share, reads nothing else.
CREATE INDEX number_choice ON number (pool, locked, exclusive, bindings, cools_until);
CREATE INDEX number_held ON number (pool, holder, locked, exclusive, bindings, cools_until) WHERE bindings > 0;

CREATE TABLE party_group (
    id         text COLLATE "C" PRIMARY KEY,
    business   text COLLATE "C" NOT NULL,
    size       bigint NOT NULL DEFAULT 0,
    version    bigint NOT NULL DEFAULT 1,
    created_at bigint NOT NULL,
    sealed     bytea -- its name: free text; bound to id
);

CREATE INDEX party_group_business ON party_group (business, id);

-- Who is in a group now.
CREATE TABLE group_member (
    group_id text COLLATE "C" NOT NULL,
    hash     bytea NOT NULL,
    sealed   bytea NOT NULL, -- bound to group_id
    added_at bigint NOT NULL,
    PRIMARY KEY (group_id, hash)
);

CREATE INDEX group_member_hash ON group_member (hash);

-- Who was in it from added_at to removed_at.
CREATE TABLE past_member (
    group_id   text COLLATE "C" NOT NULL,
    hash       bytea NOT NULL,
    sealed     bytea NOT NULL,
    added_at   bigint NOT NULL,
    removed_at bigint NOT NULL,
    PRIMARY KEY (group_id, hash, added_at)
);

CREATE INDEX past_member_hash ON past_member (hash);
CREATE INDEX past_member_removed ON past_member (removed_at);

-- Parties, limits and the expiry stand here alone, so that a change of them is one row and works with the next INVITE.
CREATE TABLE binding (
    id             text COLLATE "C" PRIMARY KEY, -- begins with its time, so that new rows lie together
    mode           text COLLATE "C" NOT NULL,
    business       text COLLATE "C" NOT NULL REFERENCES business (id),
    pool           text COLLATE "C" NOT NULL,
    x              text COLLATE "C" NOT NULL,
    y              text COLLATE "C",
    group_id       text COLLATE "C",
    a_hash         bytea,          -- AXB, AXYB, AXN: a; GXB, GXYB: the default a, or NULL
    b_hash         bytea,          -- AXN: the default b, or NULL
    order_hash     bytea,
    sealed         bytea NOT NULL, -- a, b, order_id, consent, user_data; bound to id, mode, x, y
    direction      text COLLATE "C" NOT NULL DEFAULT 'both' CHECK (direction IN ('both', 'a_to_b', 'b_to_a')),
    max_call_s     bigint,
    ring_timeout_s bigint,
    white_only     bigint NOT NULL DEFAULT 0 CHECK (white_only IN (0, 1)),
    hours          text COLLATE "C",
    version        bigint NOT NULL DEFAULT 1,
    created_at     bigint NOT NULL,
    created_by     text COLLATE "C" NOT NULL,
    changed_at     bigint,
    changed_by     text COLLATE "C",
    expires_at     bigint,
    ended_at       bigint,         -- unbound by somebody
    released_at    bigint,         -- its numbers were given back: at its end, or by the sweep after it expired
    ended_by       text COLLATE "C",
    record         bigint NOT NULL DEFAULT 0 CHECK (record IN (0, 1)), -- whether its calls are recorded
    idle_ttl_s     bigint,         -- it ends that long after its last call,
    max_expires_at bigint          -- and then at the latest
);

CREATE INDEX binding_x ON binding (x, created_at);
CREATE INDEX binding_y ON binding (y, created_at) WHERE y IS NOT NULL;
CREATE INDEX binding_a ON binding (a_hash, created_at) WHERE a_hash IS NOT NULL;
CREATE INDEX binding_b ON binding (b_hash, created_at) WHERE b_hash IS NOT NULL;
CREATE INDEX binding_order ON binding (order_hash) WHERE order_hash IS NOT NULL;
CREATE INDEX binding_business ON binding (business, id);
CREATE INDEX binding_group ON binding (group_id, released_at) WHERE group_id IS NOT NULL;
CREATE INDEX binding_due ON binding (expires_at) WHERE expires_at IS NOT NULL AND released_at IS NULL;

CREATE TABLE binding_change (
    binding_id text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    at         bigint NOT NULL,
    by         text COLLATE "C" NOT NULL,
    sealed     bytea NOT NULL, -- the row as it was before: who was behind it at that minute
    PRIMARY KEY (binding_id, version)
);

-- What finds a binding by a party or a group ("group ID") that it was changed away from.
CREATE TABLE past_party (
    hash       bytea NOT NULL,
    binding_id text COLLATE "C" NOT NULL,
    to_ms      bigint NOT NULL, -- of the last change away
    PRIMARY KEY (hash, binding_id)
);

CREATE INDEX past_party_binding ON past_party (binding_id); -- it goes with its binding

-- What a call looks up, and the memory of who used a number: a route stays when its binding ends, with free_at.
CREATE TABLE route (
    number      text COLLATE "C" NOT NULL,
    caller_hash bytea NOT NULL, -- '': any caller (before every hash, which begins with 01)
    binding_id  text COLLATE "C" NOT NULL,
    party       text COLLATE "C" NOT NULL CHECK (party IN ('a', 'b', 'g', '*')),
    pair        bytea NOT NULL, -- keyed hash of the two ends that the binding joins: the same two again, or others
    free_at     bigint,         -- NULL while bound; then when this party may use this number again
    PRIMARY KEY (number, caller_hash)
);

CREATE INDEX route_free ON route (free_at) WHERE free_at IS NOT NULL;
CREATE INDEX route_binding ON route (binding_id);

CREATE TABLE list_entry (
    owner       text COLLATE "C" NOT NULL, -- "business ID" or "binding ID"
    caller_hash bytea NOT NULL,
    kind        text COLLATE "C" NOT NULL CHECK (kind IN ('black', 'white')),
    sealed      bytea NOT NULL,
    added_at    bigint NOT NULL,
    added_by    text COLLATE "C" NOT NULL,
    PRIMARY KEY (owner, caller_hash)
);

-- Whom b reaches who calls back.
CREATE TABLE last_caller (
    binding_id  text COLLATE "C" PRIMARY KEY,
    number      text COLLATE "C" NOT NULL,
    caller_hash bytea NOT NULL,
    sealed      bytea NOT NULL,
    at          bigint NOT NULL
);

-- The answer to a request that may be sent again, kept for a day.
CREATE TABLE idempotency (
    owner       text COLLATE "C" NOT NULL, -- "business ID" or "operator"
    key         bytea NOT NULL,            -- keyed hash of the asker's text
    fingerprint bytea NOT NULL,            -- keyed hash of method, path and body
    status      bigint NOT NULL,
    sealed      bytea NOT NULL,            -- the body of the answer; bound to owner and key
    at          bigint NOT NULL,
    PRIMARY KEY (owner, key)
);

CREATE INDEX idempotency_at ON idempotency (at);

-- Every administrative act and every reading of real numbers. Rows are added in the order of their chain, and never change.
CREATE TABLE audit (
    seq      bigint PRIMARY KEY,
    at       bigint NOT NULL,
    actor    text COLLATE "C" NOT NULL,
    action   text COLLATE "C" NOT NULL,
    object   text COLLATE "C" NOT NULL,
    business text COLLATE "C",
    sealed   bytea NOT NULL, -- the reason and the details; bound to seq
    hash     bytea NOT NULL  -- keyed, over the row and its predecessor's hash
);

CREATE TABLE audit_head (
    id   bigint PRIMARY KEY CHECK (id = 1),
    seq  bigint NOT NULL,
    hash bytea NOT NULL,
    mac  bytea NOT NULL
);

-- How far the oldest links of a chain were purged: it is verified from there on.
CREATE TABLE checkpoint (
    chain text COLLATE "C" PRIMARY KEY CHECK (chain IN ('record', 'audit')),
    seq   bigint NOT NULL, -- of the last link that was purged
    hash  bytea NOT NULL,
    at    bigint NOT NULL
);

-- What happened to calls that go on, where their business wants to hear it. The follower deletes what it has told.
CREATE TABLE call_event (
    seq     bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, -- a number never comes back
    call_id text COLLATE "C" NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    sealed  bytea NOT NULL
);

-- What a call record is found by. relay/store/record_index.py tells the keys.
CREATE TABLE record_index (
    key    bigint NOT NULL,
    at     bigint NOT NULL, -- received_at
    record bigint NOT NULL, -- call_record.chain_seq
    PRIMARY KEY (key, at, record)
);

-- How far the follower and the index have come: 'call_event' (seq); 'followed', 'record_index' (chain_seq).
CREATE TABLE cursor (
    name text COLLATE "C" PRIMARY KEY,
    at   bigint NOT NULL
);

CREATE TABLE webhook (
    id            text COLLATE "C" PRIMARY KEY,
    business      text COLLATE "C" NOT NULL,
    sealed        bytea NOT NULL,            -- url, secret, whether it may be internal; bound to id and business
    kinds         text COLLATE "C" NOT NULL, -- separated by blanks
    parties       text COLLATE "C" NOT NULL DEFAULT 'masked' CHECK (parties IN ('none', 'masked', 'clear')),
    disabled_at   bigint,
    failures      bigint NOT NULL DEFAULT 0,
    next_at       bigint NOT NULL DEFAULT 0,
    created_at    bigint NOT NULL,
    last_error    text COLLATE "C",          -- why the last delivery that failed did. It stays when later ones are taken
    last_error_at bigint
);

CREATE INDEX webhook_business ON webhook (business, id);

-- Events that a webhook has not taken yet.
CREATE TABLE outbox (
    seq        bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    webhook    text COLLATE "C" NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    at         bigint NOT NULL,
    sealed     bytea NOT NULL, -- the event; bound to webhook and event_id
    tries      bigint NOT NULL DEFAULT 0,
    dead_at    bigint,
    last_error text COLLATE "C",
    UNIQUE (webhook, event_id)
);

CREATE INDEX outbox_due ON outbox (webhook, seq) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (webhook, seq) WHERE dead_at IS NOT NULL;

CREATE TABLE complaint (
    day      text COLLATE "C" NOT NULL,
    business text COLLATE "C" NOT NULL,
    prefix   text COLLATE "C" NOT NULL,
    count    bigint NOT NULL,
    by       text COLLATE "C" NOT NULL,
    PRIMARY KEY (day, business, prefix)
);

-- What was recorded of a call, once it was taken over from rtpengine. The sound is in a file of its own, sealed. When that is
-- purged the row stays, for as long as the call's record does.
CREATE TABLE recording (
    call_id   text COLLATE "C" PRIMARY KEY,
    business  text COLLATE "C" NOT NULL, -- "" where there is none
    taken_at  bigint NOT NULL,
    length_ms bigint NOT NULL,           -- from its first packet to its last
    size      bigint NOT NULL,           -- bytes of what was recorded, as it is when it is opened
    sha256    text COLLATE "C" NOT NULL, -- of the same, in hexadecimal digits
    purged_at bigint
);

CREATE INDEX recording_taken ON recording (taken_at, call_id);
CREATE INDEX recording_kept ON recording (taken_at) WHERE purged_at IS NULL;

-- How many scripts the store has seen. One row.
CREATE TABLE schema_version (
    id   bigint PRIMARY KEY,
    seen bigint NOT NULL
);

-- The fewest scripts that a relay must know to use this store: one that knows fewer than this store has seen may go on with
-- what they added. A script that changes what an earlier relay reads or writes raises it, to its own number.
CREATE TABLE schema_least (
    id    bigint PRIMARY KEY CHECK (id = 1),
    least bigint NOT NULL
);

INSERT INTO schema_least (id, least) VALUES (1, 1);

-- The master keys that values of this store were sealed with. The keys themselves are in the key file. The one in use is
-- the one with the highest id that has a used_at.
CREATE TABLE sealing_key (
    id         bigint PRIMARY KEY CHECK (id BETWEEN 1 AND 255), -- the first byte of what was sealed with it
    proof      bytea NOT NULL, -- made from the key: whether the one at hand is this one
    added_at   bigint NOT NULL,
    used_at    bigint,         -- since when it was in use; NULL: never
    dropped_at bigint          -- since when nothing needs it
);

-- The ledger: what proves each row that gives a right or is evidence (relay/store/ledger_tables.py says which tables).
CREATE TABLE ledger (
    table_name text COLLATE "C" NOT NULL,
    row_key    text COLLATE "C" NOT NULL,
    proof      bytea NOT NULL, -- revision (6 bytes), keyed MACs (16 each) over the row and over what of it no call goes by; empty: distrusted
    PRIMARY KEY (table_name, row_key)
);

-- Rows that were changed and are not proven yet. Triggers add them; whoever writes through relay700 proves them in the same
-- transaction. So what is found here between two transactions was changed by somebody else.
CREATE TABLE ledger_touch (
    table_name text COLLATE "C" NOT NULL,
    row_key    text COLLATE "C" NOT NULL,
    before     text COLLATE "C", -- the covered columns as they were, as JSON; NULL: there was no such row
    tx         bigint NOT NULL DEFAULT txid_current(), -- whose change it is
    PRIMARY KEY (table_name, row_key)
);

-- What all rows of each table add up to, and where the chains of records and of the audit log ended then. One row.
CREATE TABLE ledger_head (
    id       bigint PRIMARY KEY CHECK (id = 1),
    revision bigint NOT NULL, -- how often it was written
    sealed   bytea NOT NULL   -- bound to revision
);

-- The covered rows that were changed or deleted lately: an older proof of theirs was put back.
CREATE TABLE ledger_change (
    seq      bigint PRIMARY KEY,  -- of the last row that it names; the head of the ledger has the latest
    revision bigint NOT NULL,     -- of the ledger
    named    bytea NOT NULL,      -- tables and keys
    mac      bytea NOT NULL
);

-- The A numbers that business users have filed with the carriers. One that is withdrawn stays for as long as the audit log.
CREATE TABLE filing (
    business       text COLLATE "C" NOT NULL,
    hash           bytea NOT NULL,   -- of the number, keyed
    sealed         bytea NOT NULL,   -- the number and the reference of its filing
    filed_at       bigint NOT NULL,
    filed_by       text COLLATE "C" NOT NULL,
    withdrawn_at   bigint,           -- NULL: it is in force
    withdrawn_by   text COLLATE "C",
    state          text COLLATE "C", -- what the carrier has answered: submitted, rejected or revoked; NULL: approved
    expires_at     bigint,
    reference_hash bytea,            -- of the reference, keyed
    documents      bytea,            -- sealed: holder, identity document, reference of the photo
    answered_at    bigint,
    answered_by    text COLLATE "C",
    PRIMARY KEY (business, hash)
);

CREATE INDEX filing_reference ON filing (business, reference_hash) WHERE reference_hash IS NOT NULL;
CREATE INDEX filing_expiry ON filing (expires_at) WHERE expires_at IS NOT NULL;

-- A filing as it was before each change.
CREATE TABLE filing_change (
    business text COLLATE "C" NOT NULL,
    hash     bytea NOT NULL,
    at       bigint NOT NULL, -- of the change
    sealed   bytea NOT NULL,  -- the whole filing
    PRIMARY KEY (business, hash, at)
);

-- Papers that the platform, the carriers and the business users present: one version of one paper each.
CREATE TABLE paper (
    id           text COLLATE "C" NOT NULL PRIMARY KEY,
    owner        text COLLATE "C" NOT NULL, -- 'platform', 'carrier NAME' or 'business ID'
    kind         text COLLATE "C" NOT NULL,
    version      bigint NOT NULL,           -- counted for each owner and kind
    state        text COLLATE "C" NOT NULL, -- submitted, supplement_asked, accepted, rejected or withdrawn
    valid_from   bigint,                    -- NULL: since ever
    valid_until  bigint,                    -- from then on it is over; NULL: without end
    due_at       bigint,                    -- by when a supplement is due
    sha256       text COLLATE "C" NOT NULL, -- of the file
    size         bigint NOT NULL,
    media_type   text COLLATE "C" NOT NULL,
    sealed       bytea NOT NULL,            -- reference, issuer, scope, text of the answer
    submitted_at bigint NOT NULL,
    submitted_by text COLLATE "C" NOT NULL,
    answered_at  bigint,
    answered_by  text COLLATE "C",
    withdrawn_at bigint,
    withdrawn_by text COLLATE "C"
);

CREATE UNIQUE INDEX paper_owner ON paper (owner, kind, version);
CREATE INDEX paper_end ON paper (valid_until) WHERE valid_until IS NOT NULL;

-- The files of papers, in parts.
CREATE TABLE paper_part (
    paper_id text COLLATE "C" NOT NULL,
    part     bigint NOT NULL,
    sealed   bytea NOT NULL,
    PRIMARY KEY (paper_id, part)
);

-- Ended calls and messages by time, owner and name, for charts. The follower adds to it with its cursor.
CREATE TABLE call_count (
    owner text COLLATE "C" NOT NULL, -- '' for all, 'business ID', 'peer NAME'
    span  bigint NOT NULL,           -- seconds: 60, 600 or 3600
    at    bigint NOT NULL,           -- the begin of the span, Unix seconds
    name  text COLLATE "C" NOT NULL, -- an outcome; 'ringing 0.25': it rang within 0.25 s
    count bigint NOT NULL,
    PRIMARY KEY (owner, span, at, name)
);

-- Whose calls are captured for a while, whatever comes of them.
CREATE TABLE capture_arm (
    id         text COLLATE "C" PRIMARY KEY,
    kind       text COLLATE "C" NOT NULL, -- number, business or peer
    sealed     bytea NOT NULL,            -- the number, the id of the business user or the name of the peer
    armed_at   bigint NOT NULL,
    armed_by   text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL
);

-- The configurations that a relay has had in force, each from `at` on.
CREATE TABLE configuration (
    node   text COLLATE "C" NOT NULL,
    at     bigint NOT NULL,
    hash   bytea NOT NULL, -- keyed, of the text
    sealed bytea NOT NULL, -- the text; bound to node and at
    PRIMARY KEY (node, at)
);

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

-- Counts of a business user's bindings. In its row of business each binding would keep others from reading it.
CREATE TABLE business_count (
    business text COLLATE "C" PRIMARY KEY,
    live     bigint NOT NULL,
    day      bigint NOT NULL, -- since 1970, of China: that of today
    today    bigint NOT NULL
);

-- Tables of a server alone.

-- How many calls all nodes together have granted of late, for caps on frequency: by caller and
-- number, and by number. Calls are counted in slices of time by the server's clock; the last slice goes last.
CREATE TABLE frequency (
    key     bytea NOT NULL,
    granted bigint NOT NULL,   -- calls, counted from any number on
    begun   bigint[] NOT NULL, -- when each slice began
    before  bigint[] NOT NULL, -- what `granted` was then
    PRIMARY KEY (key)
) WITH (fillfactor = 80);

-- What each node has at the moment of what is limited, for the others. It writes its row once a second.
CREATE TABLE node_count (
    node   text COLLATE "C" NOT NULL,
    counts text COLLATE "C" NOT NULL, -- JSON: how many, by what is counted and by name
    PRIMARY KEY (node)
);

-- Captures of calls, for some days: a partition a day, made by who writes the first row of it (relay/store/postgres/captures.py).
CREATE TABLE capture (
    call_id text COLLATE "C" NOT NULL,
    at      bigint NOT NULL, -- of the first message, Unix microseconds
    sealed  bytea NOT NULL,
    share   bytea NOT NULL,  -- whose room it takes
    PRIMARY KEY (call_id, at)
) PARTITION BY RANGE (at);
CREATE INDEX capture_at ON capture (at);

-- An attempt under way that has lasted for a moment: what another node needs to end it if its own node stays away. That
-- node has it in a file, too. The row goes once the attempt is over, after its record was written.
CREATE TABLE attempt (
    call_id text COLLATE "C" PRIMARY KEY,
    node    text COLLATE "C" NOT NULL, -- who ends it
    sealed  bytea NOT NULL             -- the record so far, and the caller's and callees' transactions; bound to call_id
);
