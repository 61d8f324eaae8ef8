-- Routes are proven in the ledger.
ALTER TABLE route DROP COLUMN mac;

UPDATE schema_least SET least = 5;
