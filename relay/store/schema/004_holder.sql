-- Whose bindings are on a number, or were last while it rests. It serves one business user at a time: from what is refused
-- on a number that it shared, one would learn whom another has bound there.
ALTER TABLE number ADD COLUMN holder TEXT NOT NULL DEFAULT '';

UPDATE number SET holder = ifnull((
    SELECT business FROM binding WHERE released_at IS NULL AND (x = number OR y = number) LIMIT 1), '')
WHERE bindings > 0;

-- The choice of one to share reads nothing else.
CREATE INDEX number_held ON number (pool, holder, locked, exclusive, bindings, cools_until) WHERE bindings > 0;
