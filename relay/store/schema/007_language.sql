-- What its calls' parties hear from the relay is in this language; NULL: in the one that is configured.
ALTER TABLE business ADD COLUMN language TEXT CHECK (language IN ('zh', 'en'));
