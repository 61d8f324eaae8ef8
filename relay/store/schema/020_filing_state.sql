-- What the carrier has answered about a filing, until when it holds, and whose number it is.
ALTER TABLE filing ADD COLUMN state TEXT;           -- NULL: approved; submitted, rejected or revoked
ALTER TABLE filing ADD COLUMN expires_at INTEGER;
ALTER TABLE filing ADD COLUMN reference_hash BLOB;  -- of the reference, keyed
ALTER TABLE filing ADD COLUMN documents BLOB;       -- sealed: holder, identity document, reference of the photo
ALTER TABLE filing ADD COLUMN answered_at INTEGER;
ALTER TABLE filing ADD COLUMN answered_by TEXT;
CREATE INDEX filing_reference ON filing (business, reference_hash) WHERE reference_hash IS NOT NULL;
CREATE INDEX filing_expiry ON filing (expires_at) WHERE expires_at IS NOT NULL;

-- A filing as it was before each change.
CREATE TABLE filing_change (
    business TEXT NOT NULL,
    hash     BLOB NOT NULL,
    at       INTEGER NOT NULL,  -- of the change
    sealed   BLOB NOT NULL,     -- the whole filing
    PRIMARY KEY (business, hash, at)
) STRICT, WITHOUT ROWID;
