-- 1: the hook of the business user is asked about its calls. Proven with what a look-up reads; NULL costs it nothing.
ALTER TABLE business ADD COLUMN hook INTEGER;
