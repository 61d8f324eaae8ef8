-- Whose room a capture takes: '' of those that the previous version wrote.
ALTER TABLE capture ADD COLUMN share bytea NOT NULL DEFAULT '';
