-- Carriers answer by the reference of a filing.
DROP INDEX CONCURRENTLY IF EXISTS filing_reference;
CREATE INDEX CONCURRENTLY filing_reference ON filing (business, reference_hash) WHERE reference_hash IS NOT NULL;
