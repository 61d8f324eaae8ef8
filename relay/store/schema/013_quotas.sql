-- What a business user may bind in a second and in a day, and what it has bound on that day (of China, since 1970). Of a quota NULL
-- is the configured one and 2^62 none at all; so it is of max_bindings, max_calls and max_cps. `qualification` is the version of it
-- that was approved last (business_change.seq); NULL: the first.
ALTER TABLE business ADD COLUMN max_binds_per_s INTEGER;
ALTER TABLE business ADD COLUMN max_binds_per_day INTEGER;
ALTER TABLE business ADD COLUMN bound_day INTEGER NOT NULL DEFAULT 0;
ALTER TABLE business ADD COLUMN bound_today INTEGER NOT NULL DEFAULT 0;
ALTER TABLE business ADD COLUMN qualification INTEGER;
