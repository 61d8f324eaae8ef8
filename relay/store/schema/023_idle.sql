-- Bindings that end some time after their last call: how long after, and when at the latest.
ALTER TABLE binding ADD COLUMN idle_ttl_s INTEGER;
ALTER TABLE binding ADD COLUMN max_expires_at INTEGER;
