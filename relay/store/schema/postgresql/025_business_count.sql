-- Counts of a business user's bindings, which were columns of business: there each binding kept others from reading the row.
CREATE TABLE business_count (
    business text COLLATE "C" PRIMARY KEY,
    live     bigint NOT NULL,
    day      bigint NOT NULL,  -- since 1970, of China: that of today
    today    bigint NOT NULL
);
INSERT INTO business_count (business, live, day, today) SELECT id, live_bindings, bound_day, bound_today FROM business
WHERE live_bindings > 0 OR bound_today > 0;

-- The previous version counts in business alone.
UPDATE schema_least SET least = 25;
