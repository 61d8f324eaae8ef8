-- Why the last delivery that failed did, and when. It stays when later ones are taken.
ALTER TABLE webhook ADD COLUMN last_error text COLLATE "C", ADD COLUMN last_error_at bigint;
