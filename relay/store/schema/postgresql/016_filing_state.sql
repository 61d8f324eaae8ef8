-- What the carrier has answered about a filing, until when it holds, and whose number it is.
ALTER TABLE filing ADD COLUMN state text COLLATE "C"; -- NULL: approved; submitted, rejected or revoked
ALTER TABLE filing ADD COLUMN expires_at bigint;
ALTER TABLE filing ADD COLUMN reference_hash bytea;   -- of the reference, keyed
ALTER TABLE filing ADD COLUMN documents bytea;        -- sealed: holder, identity document, reference of the photo
ALTER TABLE filing ADD COLUMN answered_at bigint;
ALTER TABLE filing ADD COLUMN answered_by text COLLATE "C";

-- A filing as it was before each change.
CREATE TABLE filing_change (
    business text COLLATE "C" NOT NULL,
    hash     bytea NOT NULL,
    at       bigint NOT NULL,  -- of the change
    sealed   bytea NOT NULL,   -- the whole filing
    PRIMARY KEY (business, hash, at)
);
