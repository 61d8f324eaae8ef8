-- Who unbound a binding, beside who made and who changed it.
ALTER TABLE binding ADD COLUMN ended_by TEXT;

-- The choice of a number steps over none that an AXN has for itself, however many there are. Still covering.
DROP INDEX number_choice;
CREATE INDEX number_choice ON number (pool, locked, exclusive, bindings, cools_until);
