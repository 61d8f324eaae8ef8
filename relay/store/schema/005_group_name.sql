-- A business user may write anything into the name of a group, a phone number too. seal(text, context) is given by who migrates.
ALTER TABLE party_group ADD COLUMN sealed BLOB; -- the name; bound to id
UPDATE party_group SET sealed = seal(CAST(name AS BLOB), CAST('group ' || id AS BLOB));
ALTER TABLE party_group DROP COLUMN name;
