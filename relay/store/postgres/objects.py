"""The objects of a store on a server that a statement of relay700 may run, or that decide what it finds.

Owns the statements that read the server's catalogs; `relay.store.schema_check` judges what they find. No object can be
compared with a new store's, as in a file: each version of the server writes expressions in another way. So a hash over
all of them is kept in the sealed head of the ledger when a script has run. Triggers, rules, policies and views are
compared by themselves.
"""

from __future__ import annotations

from typing import Final

_HERE: Final = "CAST(current_schema() AS regnamespace)"
_MADE: Final = 16_384  # the server's own objects have smaller oids
# Functions, operators and collations that somebody added to the server's own are found before those of the schema.
_IN_REACH: Final = f"({{0}} = {_HERE} OR ({{0}} = CAST('pg_catalog' AS regnamespace) AND {{1}}oid >= {_MADE}))"

# -- The settings and the schema of a session

# Settings of each connection, which override those of a role or the database: they decide how the server writes and
# reads texts, and when it ends a statement.
PINNED: Final = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
# Tables are those of one schema, whatever the role's or database's setting says: the first in its search_path that has
# a store, else the first. Functions, types and operators of the server come before those of the schema, temporary
# tables last.
PIN: Final = """
SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', coalesce((
    SELECT nspname FROM pg_catalog.pg_class
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid OPERATOR(pg_catalog.=) relnamespace
    WHERE relname OPERATOR(pg_catalog.=) 'schema_version'
        AND nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
    ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), nspname) LIMIT 1
), pg_catalog.current_schema())), false)
"""

# -- A value that changes with each change of an object

# The catalogs, and which of their rows count. Captures have a partition for a day, which comes and goes.
_CATALOGS: Final = {
    "pg_class": "NOT relispartition AND relnamespace <> CAST('pg_toast' AS regnamespace)",
    "pg_constraint": "conparentid = 0",
    "pg_attrdef": "NOT EXISTS (SELECT 1 FROM pg_class WHERE pg_class.oid = adrelid AND relispartition)",
    "pg_type": "typtype <> 'c' AND typelem = 0",
} | dict.fromkeys(
    (
        *("pg_proc", "pg_trigger", "pg_rewrite", "pg_policy", "pg_operator", "pg_cast", "pg_collation"),
        *("pg_event_trigger", "pg_opclass", "pg_publication", "pg_publication_rel", "pg_publication_namespace"),
    ),
    "true",
)
# The role that the session plays for triggers, the schema, the number of scripts, and a hash for each catalog.
# An object that was replaced, and put back, has another xmin.
_HASHES: Final = ", ".join(
    "(SELECT sha256(string_agg(oidsend(oid) || xidsend(xmin), NULL ORDER BY oid))"
    f" FROM {name} WHERE oid >= {_MADE} AND {condition})"
    for name, condition in _CATALOGS.items()
)
VERSION: Final = (
    "SELECT current_setting('session_replication_role'), current_schema(),"
    f" (SELECT seen FROM schema_version WHERE id = 1), {_HASHES}"
)

# -- Objects compared by themselves

TRIGGERS: Final = f"""
SELECT trigger.tgname, pg_get_triggerdef(trigger.oid), CAST(trigger.tgenabled AS text), function.prosrc,
    function.pronamespace = {_HERE}
FROM pg_trigger AS trigger
JOIN pg_proc AS function ON function.oid = trigger.tgfoid
JOIN pg_class AS relation ON relation.oid = trigger.tgrelid
WHERE NOT trigger.tgisinternal AND relation.relnamespace = {_HERE}
"""
# Never relay700's own. A table that inherits from one of ours has its rows found, and changed, in ours. A foreign key
# from another schema has the server run triggers there.
NEVER_OURS: Final = f"""
SELECT 'rule ' || rulename FROM pg_rules WHERE schemaname = current_schema()
UNION ALL SELECT 'policy ' || policyname FROM pg_policies WHERE schemaname = current_schema()
UNION ALL SELECT 'view ' || relname FROM pg_class WHERE relnamespace = {_HERE} AND relkind IN ('v', 'm')
UNION ALL SELECT 'child table ' || CAST(CAST(inhrelid AS regclass) AS text) FROM pg_inherits
    JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE parent.relnamespace = {_HERE} AND parent.relkind <> 'I'
        AND NOT (parent.relname = 'capture' AND parent.relkind = 'p')
UNION ALL SELECT 'foreign key ' || conname || ' of ' || CAST(CAST(conrelid AS regclass) AS text) FROM pg_constraint
    JOIN pg_class AS aim ON aim.oid = confrelid WHERE aim.relnamespace = {_HERE} AND connamespace <> {_HERE}
UNION ALL SELECT 'setting session_replication_role' WHERE current_setting('session_replication_role') <> 'origin'
"""

# -- Objects that the ledger's head vouches for

_OWN: Final = f"relnamespace = {_HERE} AND relkind NOT IN ('i', 'I') AND NOT relispartition"
# Indexes count if they evaluate an expression, keep rows out, or call something that is not the server's own. A later
# version may be building others CONCURRENTLY (tests/store/test_scripts.py has their form). A publication makes an
# UPDATE fail where the replica identity of its table does not suffice.
OBJECTS: Final = f"""
SELECT 'function ' || CAST(CAST(oid AS regprocedure) AS text) AS name,
    CASE WHEN prokind IN ('f', 'p') THEN pg_get_functiondef(oid) ELSE CAST(prokind AS text) END AS made,
    pronamespace = {_HERE} AS is_here
FROM pg_proc WHERE {_IN_REACH.format("pronamespace", "")}
UNION ALL SELECT 'operator ' || CAST(CAST(oid AS regoperator) AS text), CAST(oprcode AS text), oprnamespace = {_HERE}
FROM pg_operator WHERE {_IN_REACH.format("oprnamespace", "")}
UNION ALL SELECT 'type ' || typname,
    concat_ws(' ', typtype, format_type(typbasetype, typtypmod), typnotnull, typcollation), true
FROM pg_type WHERE typnamespace = {_HERE} AND typtype <> 'c' AND typelem = 0
UNION ALL SELECT 'collation ' || collname, concat_ws(' ', collprovider, collisdeterministic, collcollate),
    collnamespace = {_HERE}
FROM pg_collation WHERE {_IN_REACH.format("collnamespace", "")}
UNION ALL SELECT concat('cast of ', format_type(castsource, NULL), ' to ', format_type(casttarget, NULL)),
    concat_ws(' ', castcontext, castmethod, CAST(castfunc AS regprocedure)), false
FROM pg_cast WHERE oid >= {_MADE} AND castsource < {_MADE} AND casttarget < {_MADE}
UNION ALL SELECT 'event trigger ' || evtname,
    concat_ws(' ', evtevent, evtenabled, CAST(evttags AS text), pg_get_functiondef(evtfoid)), false
FROM pg_event_trigger
UNION ALL SELECT 'operator class ' || opcname, concat_ws(' ', opcmethod, format_type(opcintype, NULL), opcdefault),
    opcnamespace = {_HERE}
FROM pg_opclass WHERE {_IN_REACH.format("opcnamespace", "")}
UNION ALL SELECT CASE relkind WHEN 'S' THEN 'sequence ' WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || relname,
    concat_ws(' ', relkind, relpersistence, relrowsecurity, relforcerowsecurity, relreplident), true
FROM pg_class WHERE {_OWN}
UNION ALL SELECT concat('column ', relname, '.', attname),
    concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attgenerated, attidentity,
        (SELECT concat(collname, ' ', collisdeterministic) FROM pg_collation WHERE pg_collation.oid = attcollation),
        pg_get_expr(adbin, adrelid)),
    true
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE {_OWN} AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT concat('constraint ', conname, ' of ', CAST(nullif(conrelid, CAST(0 AS oid)) AS regclass)),
    pg_get_constraintdef(oid), true
FROM pg_constraint WHERE connamespace = {_HERE} AND contype <> 't'
    AND NOT EXISTS (SELECT 1 FROM pg_class WHERE pg_class.oid = conrelid AND relispartition)
UNION ALL SELECT 'index ' || relname, pg_get_indexdef(indexrelid), true
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = {_HERE} AND NOT relispartition AND (indisunique OR indexprs IS NOT NULL
    OR pg_get_expr(indpred, indrelid) !~ '^\\(\\w+ IS NOT NULL\\)$' OR EXISTS (
    SELECT 1 FROM pg_depend
    WHERE classid = CAST('pg_class' AS regclass) AND objid = indexrelid AND refobjid >= {_MADE} AND refclassid IN (
        CAST('pg_proc' AS regclass), CAST('pg_operator' AS regclass), CAST('pg_opclass' AS regclass),
        CAST('pg_collation' AS regclass))))
UNION ALL SELECT 'publication ' || pubname,
    concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot), false
FROM pg_publication WHERE puballtables
    OR EXISTS (SELECT 1 FROM pg_publication_tables AS its
        WHERE its.pubname = pg_publication.pubname AND schemaname = current_schema())
"""
HASH: Final = f"""
SELECT sha256(convert_to(string_agg(concat(name, ' ', made), ' ' ORDER BY name COLLATE "C", made COLLATE "C"), 'UTF8'))
FROM ({OBJECTS}) AS objects
"""
