-- The qualification after a change, and before it where that was another one; sealed, bound to business and seq.
ALTER TABLE business_change ADD COLUMN sealed_terms BLOB;
