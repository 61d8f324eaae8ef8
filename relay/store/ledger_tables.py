"""The tables whose rows the ledger proves, each declared once.

A table that grants a right or is evidence has a line here, from which its triggers, proofs and checks follow. All other
tables are in NOT_COVERED, with the reason. A new table is also named in `relay.store.migrate`. Owns the SQL that names
and reads a row; it proves nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from relay.store.connection import Connection

Kind = Literal["text", "integer", "blob"]
_KINDS: Final[dict[str, Kind]] = {"*": "blob", "#": "integer"}


class CoveredColumn(NamedTuple):
    """A covered column."""

    name: str
    kind: Kind


class LedgerTable(NamedTuple):
    """The covered part of a table. A column added later goes last and is nullable, so that older proofs stay valid."""

    name: str
    key: tuple[CoveredColumn, ...]  # only the first may contain blanks
    columns: tuple[CoveredColumn, ...]  # besides the key
    called: int  # number of leading columns that a look-up needs

    def parameters(self, row_key: str) -> list[Any]:
        """The values of the key columns, from `row_key`."""
        parts = row_key.rsplit(" ", len(self.key) - 1)
        return [_value(column.kind, part) for column, part in zip(self.key, parts, strict=True)]


def _value(kind: Kind, text: str) -> Any:
    if kind == "blob":
        return bytes.fromhex(text)
    return int(text) if kind == "integer" else text


def _columns(names: str) -> tuple[CoveredColumn, ...]:
    return tuple(CoveredColumn(name.rstrip("*#"), _KINDS.get(name[-1], "text")) for name in names.split())


def _table(name: str, key: str, columns: str) -> LedgerTable:
    called, _, rest = columns.rpartition("| ")
    return LedgerTable(name, _columns(key), _columns(f"{called}{rest}"), len(called.split()))


# "*" marks a blob, "#" an integer in a key. Columns before "|" are those that a look-up needs.
# `relay.store.lookup` reads those by place, for `BindingContext`: their order is part of the look-up.
TABLES: Final = {
    table.name: table
    for table in (
        _table(
            "business",
            "id",
            "state max_calls max_cps white_only hours language live_events qualification hook"
            " | name licence application scenario scheme sealed_contact* modes max_bindings version created_at"
            " updated_at max_binds_per_s max_binds_per_day",
        ),
        _table("business_change", "business at# seq#", "state by sealed* sealed_terms*"),
        _table("api_key", "id", "business scopes hash* sealed* created_at created_by expires_at revoked_at name"),
        _table(
            "user_account",
            "name",
            "role business sealed* must_change password_at created_at created_by disabled_at failures locked_until"
            " last_step",
        ),
        _table("pool", "id", "business area max_bindings warn_percent created_at"),
        _table("prefix", "prefix", "operator platform peer state cool_down_ms created_at"),
        _table("number", "number", "locked legacy | prefix pool"),
        _table("party_group", "id", "business created_at sealed*"),
        _table("group_member", "group_id hash*", "sealed* added_at"),
        _table("past_member", "group_id hash* added_at#", "sealed* removed_at"),
        _table(
            "binding",
            "id",
            "mode business x y direction max_call_s ring_timeout_s white_only hours expires_at ended_at record sealed*"
            " | pool group_id a_hash* b_hash* order_hash* version created_at created_by changed_at changed_by"
            " released_at ended_by idle_ttl_s max_expires_at",
        ),
        _table("binding_change", "binding_id version#", "at by sealed*"),
        _table("past_party", "hash* binding_id", "to_ms"),
        _table("route", "number caller_hash*", "party binding_id free_at | pair*"),
        _table("list_entry", "owner caller_hash*", "kind | sealed* added_at added_by"),
        _table(
            "filing",
            "business hash*",
            "withdrawn_at state expires_at | sealed* filed_at filed_by withdrawn_by reference_hash* documents*"
            " answered_at answered_by",
        ),
        _table("filing_change", "business hash* at#", "sealed*"),
        _table(
            "paper",
            "id",
            "owner kind version state valid_from valid_until due_at sha256 size media_type sealed* submitted_at"
            " submitted_by answered_at answered_by withdrawn_at withdrawn_by",
        ),
        _table("capture_arm", "id", "kind sealed* expires_at | armed_at armed_by"),
        _table("hook", "business", "sealed* parties unknown_callers disabled_at created_at changed_at"),
        _table("webhook", "id", "business sealed* kinds parties disabled_at created_at"),
        _table("recording", "call_id", "business taken_at length_ms size sha256 purged_at"),
        _table("complaint", "day business prefix", "count by"),
        _table("checkpoint", "chain", "seq hash* at"),
        _table("sealing_key", "id#", "proof* added_at used_at dropped_at"),
    )
}

# Each binding reads rows of these tables, and few change them: units of work may read them at the same time. The lock
# on another table is that of UPDATE, as a weaker one would have to be raised, by two units of work at once.
READ_BY_MANY: Final = frozenset(["business", "pool", "prefix", "api_key", "party_group", "hook"])

# The chains prove their own links; triggers also note foreign changes and deletions.
CHAINS: Final = {"call_record": "chain_seq", "audit": "seq"}

# Columns of covered tables that are not proven, and why forging them grants no right.
NOT_COVERED_COLUMNS: Final = {
    "number": {
        "exclusive": "affects the choice of a number; routes refuse a second use",
        "bindings": "affects the choice of a number; routes refuse a second use",
        "cools_until": "affects the choice of a number; routes refuse a former party's call",
        "holder": "affects the choice of a number; routes refuse a second use",
    },
    "party_group": {"size": "a count", "version": "incremented with each change of the members"},
    "webhook": {
        "failures": "affects the retry time",
        "next_at": "the retry time",
        "last_error": "for display only",
        "last_error_at": "for display only",
    },
}

NOT_COVERED: Final = {
    "key_check": "binds the key file to the store; if it is altered, the relay does not start",
    "live_call": "calls that are up, each sealed to its row; one without it has no record if the relay dies",
    "attempt": "on a server; attempts under way, each sealed to its call",
    "chain_head": "has its own MAC; copies are in the head of the ledger and in the audit log",
    "audit_head": "has its own MAC; copies are in the head of the ledger and in the records",
    "last_caller": "the target of a call-back; sealed to its binding, and must have a route itself",
    "idempotency": "answers to repeated requests for a day, each sealed to its request and status",
    "call_event": "events of calls under way, each sealed to its call",
    "record_index": "an index of records; evidence reads the chain, and each record found is checked by its content",
    "call_count": "counts, for charts and for rates of complaints, which suspend nobody",
    "configuration": "former configurations, for explanations only; each sealed to its node and time",
    "business_count": "counts, compared with limits",
    "frequency": "counts, compared with caps; deleting them restarts the count",
    "cursor": "the position of the follower, which remembers its own while it runs",
    "outbox": "events waiting for delivery, each sealed to its webhook and kind",
    "schema_least": "the versions that may use the store",
    "schema_version": "the scripts that the store has seen",
    "node": "the relays that use the store; altering it ends them, and gives no right",
    "node_count": "counts, compared with limits",
    "paper_part": "files of papers, each part sealed to its place; the proven paper has the hash of the whole",
    "capture": "on a server; captures are no evidence, and each is sealed to its call",
    "ledger": "the proofs; their sum is in the sealed head",
    "ledger_touch": "rows changed and not yet proven",
    "ledger_head": "sealed; an older copy shows by its revision",
    "ledger_change": "recent changes; each has a MAC, and their number is in the sealed head",
    "sqlite_sequence": "SQLite's own",
}


class Dialect(NamedTuple):
    """The SQL that differs between SQLite and PostgreSQL."""

    is_server: bool
    own_touch: str  # the condition that selects the rows of ledger_touch of this transaction
    claim: str  # behind a SELECT: locks its rows, without those that another transaction has locked

    def only_reads(self, connection: Connection) -> bool:
        """Whether the connection is read-only, so that touched rows it sees are foreign changes."""
        return not self.is_server and connection.execute("PRAGMA query_only").fetchone() != (0,)

    def lock(self, table: LedgerTable) -> str:
        """On a server, behind a SELECT from the table: locks its rows until the transaction ends."""
        return f" FOR {'SHARE' if table.name in READ_BY_MANY else 'NO KEY UPDATE'} OF {table.name}"

    def row_key(self, table: LedgerTable, prefix: str = "") -> str:
        """The expression for the key of a row, in the form that `LedgerTable.parameters` reads."""
        parts = [self._key_part(column, prefix) for column in table.key]
        return " || ' ' || ".join(parts) if len(parts) > 1 else parts[0]

    def values(self, table: LedgerTable, prefix: str = "") -> str:
        """The expression for the covered columns as the text of a JSON array. Blobs are hex."""
        return self.json(*(self._value(column, prefix) for column in table.columns))

    def any_key(self, table: LedgerTable, prefix: str = "") -> str:
        """As `row_key`, and text whatever the row holds: values of other types can be stored in a file."""
        key = self.row_key(table, prefix)
        return key if self.is_server else f"coalesce(CAST({key} AS text), '')"

    def any_values(self, table: LedgerTable, prefix: str = "") -> str:
        """As `values`, for rows with values of any type: one that the column must not have is named with its type."""
        if self.is_server:
            return self.values(table, prefix)
        return self.json(*(self._any_value(column, prefix) for column in table.columns))

    def json(self, *parts: str) -> str:
        """The expression for a JSON array of `parts` as text."""
        return f"CAST({self._array(parts)} AS text)" if self.is_server else self._array(parts)

    def proven(self, rows: Iterable[tuple[str, str]], hashes: Mapping[str, str]) -> list[str]:
        """Expressions for rows given as (table, alias): an array of key, proof and columns of a look-up, or NULL.

        `hashes`: expressions for the last part of the key in hex, by alias, where it need not be read from the row.
        """
        return [self._proven(TABLES[table], f"{alias}.", hashes.get(alias)) for table, alias in rows]

    def _array(self, parts: Iterable[str]) -> str:
        return f"{'pg_catalog.json_build_array' if self.is_server else 'json_array'}({', '.join(parts)})"

    def _proven(self, table: LedgerTable, prefix: str, last_part: str | None) -> str:
        first = self._name(table.key[0], prefix)
        key = self.row_key(table, prefix) if last_part is None else f"{first} || ' ' || {last_part}"
        proof = f"SELECT {self._hex('proof')} FROM ledger WHERE table_name = '{table.name}' AND row_key = {key}"
        columns = [self._value(column, prefix) for column in table.columns[: table.called]]
        return f"CASE WHEN {first} IS NOT NULL THEN {self._array((key, f'({proof})', *columns))} END"

    def _key_part(self, column: CoveredColumn, prefix: str) -> str:
        name = self._name(column, prefix)
        if column.kind == "blob":
            return self._hex(name)
        return f"CAST({name} AS text)" if column.kind == "integer" else name

    def _value(self, column: CoveredColumn, prefix: str) -> str:
        name = self._name(column, prefix)
        if column.kind != "blob":
            return name
        # SQLite's hex makes '' of NULL.
        return self._hex(name) if self.is_server else f"CASE WHEN {name} IS NOT NULL THEN hex({name}) END"

    def _any_value(self, column: CoveredColumn, prefix: str) -> str:
        name = self._name(column, prefix)
        good = f"'blob' THEN hex({name})" if column.kind == "blob" else f"'text' THEN {name} WHEN 'integer' THEN {name}"
        return f"CASE typeof({name}) WHEN 'null' THEN NULL WHEN {good} ELSE typeof({name}) || ' ' || quote({name}) END"

    def _name(self, column: CoveredColumn, prefix: str) -> str:
        """The column, quoted after a prefix: PL/pgSQL reserves words such as "by"."""
        return f'{prefix}"{column.name}"' if prefix else column.name

    def _hex(self, name: str) -> str:
        """On a server the functions are named in full: one of the schema could fit the arguments better."""
        return f"pg_catalog.upper(pg_catalog.encode({name}, 'hex'))" if self.is_server else f"hex({name})"


SQLITE: Final = Dialect(False, "1", "")  # has one writer at a time
# A note's `tx` alone proves nothing: anyone with the database can write it. The xmin of a note that another transaction
# has committed since ours began is no longer in progress; that of our own is our xid, or a later one in a savepoint.
_SINCE: Final = (
    "(CAST(CAST(xmin AS text) AS bigint) - txid_current_if_assigned() % 4294967296 + 4294967296) % 4294967296"
)
_OURS: Final = (
    f"tx = txid_current_if_assigned() AND CASE WHEN {_SINCE} < 2147483648"
    f" THEN txid_status(txid_current_if_assigned() + {_SINCE}) = 'in progress' ELSE false END"
)
POSTGRES: Final = Dialect(True, _OURS, " FOR NO KEY UPDATE SKIP LOCKED")


def dialect_of(connection: Connection) -> Dialect:
    return SQLITE if isinstance(connection, sqlite3.Connection) else POSTGRES


def triggers(dialect: Dialect) -> dict[str, list[str]]:
    """The statements that create each trigger, by its name."""
    if dialect.is_server:
        return dict(_server_triggers())
    found = [trigger for table in TABLES.values() for trigger in _file_triggers(table)]
    return dict(found + [trigger for name, seq in CHAINS.items() for trigger in _file_chain_triggers(name, seq)])


def _file_triggers(table: LedgerTable) -> Iterator[tuple[str, list[str]]]:
    name = table.name
    old, new = SQLITE.row_key(table, "OLD."), SQLITE.row_key(table, "NEW.")
    before = SQLITE.values(table, "OLD.")
    of_key, of_any = _names(table.key), _names((*table.key, *table.columns))
    yield _file_trigger(name, "insert", "INSERT", [(new, "NULL")])
    yield _file_trigger(name, "update", f"UPDATE OF {of_any}", [(old, before)])
    yield _file_trigger(name, "rename", f"UPDATE OF {of_key}", [(new, "NULL")])
    yield _file_trigger(name, "delete", "DELETE", [(old, before)])


def _file_chain_triggers(name: str, seq: str) -> Iterator[tuple[str, list[str]]]:
    old = f"CAST(OLD.{seq} AS text)"
    yield _file_trigger(name, "update", "UPDATE", [(old, "NULL")])
    yield _file_trigger(name, "delete", f"DELETE ON {name} WHEN OLD.{seq} > {_purged_to(name)}", [(old, "NULL")])


def _purged_to(name: str) -> str:
    chain = {"call_record": "record", "audit": "audit"}[name]
    return f"coalesce((SELECT seq FROM checkpoint WHERE chain = '{chain}'), 0)"


def _file_trigger(name: str, what: str, when: str, touched: Iterable[tuple[str, str]]) -> tuple[str, list[str]]:
    statements = " ".join(
        f"INSERT INTO ledger_touch (table_name, row_key, before) VALUES ('{name}', {key}, {before})"
        " ON CONFLICT (table_name, row_key) DO NOTHING;"
        for key, before in touched
    )
    on = "" if " ON " in when else f" ON {name}"
    return f"ledger_{name}_{what}", [f"CREATE TRIGGER ledger_{name}_{what} AFTER {when}{on} BEGIN {statements} END"]


def _server_triggers() -> Iterator[tuple[str, list[str]]]:
    for table in TABLES.values():
        old, new = POSTGRES.row_key(table, "OLD."), POSTGRES.row_key(table, "NEW.")
        before = POSTGRES.values(table, "OLD.")
        of_key, of_any = _names(table.key), _names((*table.key, *table.columns))
        yield _server_trigger(table.name, "insert", "INSERT", new, "NULL")
        yield _server_trigger(table.name, "update", f"UPDATE OF {of_any}", old, before)
        yield _server_trigger(table.name, "rename", f"UPDATE OF {of_key}", new, "NULL")
        yield _server_trigger(table.name, "delete", "DELETE", old, before)
        yield _server_trigger(table.name, "truncate", "TRUNCATE", "'*'", "NULL")
    for name, seq in CHAINS.items():
        old = f"CAST(OLD.{seq} AS text)"
        yield _server_trigger(name, "update", "UPDATE", old, "NULL")
        yield _server_trigger(name, "delete", "DELETE", old, "NULL", f"OLD.{seq} > {_purged_to(name)}")
        yield _server_trigger(name, "truncate", "TRUNCATE", "'*'", "NULL")


def _server_trigger(
    name: str, what: str, when: str, key: str, before: str, condition: str = ""
) -> tuple[str, list[str]]:
    function = f"ledger_{name}_{what}"
    insert = (
        f"INSERT INTO ledger_touch (table_name, row_key, before) VALUES ('{name}', {key}, {before})"
        " ON CONFLICT (table_name, row_key) DO NOTHING;"
    )
    body = f"IF {condition} THEN {insert} END IF;" if condition else insert
    each = "STATEMENT" if when == "TRUNCATE" else "ROW"
    return function, [
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN {body.replace(chr(39), chr(39) * 2)} RETURN NULL; END'",
        f"CREATE TRIGGER {function} AFTER {when} ON {name} FOR EACH {each} EXECUTE FUNCTION {function}()",
    ]


def _names(columns: Iterable[CoveredColumn]) -> str:
    return ", ".join(column.name for column in columns)
