-- Checkpoints are proven in the ledger.
ALTER TABLE checkpoint DROP COLUMN mac;

UPDATE schema_least SET least = 6;
