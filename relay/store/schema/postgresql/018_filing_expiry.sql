-- Which filings expire soon.
DROP INDEX CONCURRENTLY IF EXISTS filing_expiry;
CREATE INDEX CONCURRENTLY filing_expiry ON filing (expires_at) WHERE expires_at IS NOT NULL;
