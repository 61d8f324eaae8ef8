"""Every table and column is tampered with, one at a time: `verify` names it, or a declaration says why it may not.

What is expected follows from `relay.store.ledger_tables`: what is covered is named. The thief leaves no note of a
trigger, so nothing is found by those.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from relay.errors import StoreError
from relay.reports.recordings import verify_recordings
from relay.service.groups import set_entry
from relay.store.audit import verify_audit
from relay.store.captures import Captures
from relay.store.chain import AnchorFile, growth_faults, read_anchor
from relay.store.configurations import SEALED_CONFIGURATIONS
from relay.store.connection import DATABASE_ERRORS, Connection, Place, PostgresServer, local_path
from relay.store.journal.rows import SEALED_CALLERS
from relay.store.ledger_tables import CHAINS, NOT_COVERED, NOT_COVERED_COLUMNS, TABLES
from relay.store.rights_check import check_rights
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer, load_key
from relay.store.webhooks import event_context
from tests.support import places, postgres
from tests.support.acting import Acting
from tests.support.full_store import add_record, end_rights, fill
from tests.support.places import new_server_store, new_store
from tests.support.stored import NOW_MS, A
from tests.support.tampering import (
    Row,
    Table,
    Tampering,
    Thief,
    ThiefOfFile,
    ThiefOfServer,
    on_columns,
    on_rows,
    tables_of,
    without_notes,
)
from tests.support.varied import Varied, unvary, vary

pytestmark = pytest.mark.long
LATER_MS: Final = NOW_MS + 60_000
EMPTY: Final = {"ledger_touch"}  # it is written within a transaction only

# Rows that the ledger does not prove. What they are bound to, they are sealed to.
SEALED: Final = (
    SEALED_CALLERS,
    SEALED_CONFIGURATIONS,
    SealedRows("attempt", ("call_id",), ("call_id",), lambda call_id: f"shared attempt {call_id}".encode()),
    SealedRows("call_event", ("seq",), ("call_id", "kind"), lambda *of: f"event {' '.join(of)}".encode()),
    SealedRows(
        "idempotency",
        ("owner", "key"),
        ("owner", "key", "status"),
        lambda owner, key, status: f"answer {status} {owner} ".encode() + key,
    ),
    SealedRows("outbox", ("seq",), ("webhook", "event_id", "kind"), event_context),
)


class Full(NamedTuple):
    """A full store that nobody has open, and what the thief has kept of it."""

    place: Place
    folder: Path
    earlier: dict[str, list[Row]]  # the rows of each table at an earlier time
    former: list[Varied]  # rows of another, which relay700 has changed or deleted since
    foreign: list[Varied]  # rows of a store with the same key that went another way


@pytest.fixture(scope="module", params=[places.FILE, pytest.param(places.SERVER, marks=pytest.mark.outside)])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    folder = tmp_path_factory.mktemp("full")
    if request.param == places.FILE:
        path, key_file = folder / "relay.db", folder / "relay.key"
        yield made(Acting.of(path, new_store(path, key_file)), folder)
        return
    place, sealer = new_server_store(folder)
    yield made(Acting.of(place, sealer), folder)
    postgres.drop(place)


def made(store: Acting, folder: Path) -> Full:
    with closing(store):
        fill(store, folder)
        earlier = {table.name: table.rows(store.reader) for table in tables_of(store.reader)}
        former = vary(store)
        unvary(store, former)
        end_rights(store)
        asyncio.run(add_record(store))
        store.run(lambda unit: set_entry(unit, "business", "acme", A, "black"))
        AnchorFile(local_path(store.path), store.sealer).write(read_anchor(store.reader, store.sealer))
    with fork(store.path, folder) as other:
        foreign = vary(other)
    return Full(store.path, folder, earlier, former, foreign)


@contextmanager
def fork(place: Place, folder: Path) -> Iterator[Acting]:
    """A copy of the store, with the same key, which goes on by itself."""
    copy: Place
    if isinstance(place, PostgresServer):
        server = postgres.shared_server()
        copy = place._replace(url=server.url(server.new_database(postgres.database_of(place))))
    else:
        copy = folder / "fork" / "relay.db"
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        with closing(sqlite3.connect(place)) as whole, closing(sqlite3.connect(copy)) as file:
            whole.backup(file)
    with closing(Acting.of(copy, load_key(folder / "relay.key"))) as other:
        yield other
    if isinstance(copy, PostgresServer):
        postgres.drop(copy)


@contextmanager
def thief_of(full: Full) -> Iterator[Thief]:
    thief = ThiefOfFile(full.place) if isinstance(full.place, Path) else ThiefOfServer(full.place)
    with closing(thief):
        yield thief


def verified(connection: Connection, full: Full) -> list[str]:
    """All that `relay700 verify` would name, without its check against the anchor file."""
    sealer = load_key(full.folder / "relay.key")
    try:
        rights = check_rights(connection, sealer, lambda: LATER_MS)
        recorded = rights.records.recorded
        recordings = verify_recordings(connection, sealer, full.folder / "recordings", recorded, LATER_MS).broken
        broken = [rights.records.broken, verify_audit(connection, sealer).broken]
        return [*rights.named(), *recordings, *captures_broken(connection, full, sealer), *filter(None, broken)]
    except StoreError as error:
        return [str(error)]


def captures_broken(connection: Connection, full: Full, sealer: Sealer) -> list[str]:
    """On a server those that the thief's own transaction sees."""
    captures = Captures(full.place, sealer)
    if isinstance(full.place, PostgresServer):
        captures._connection = connection
    return captures.verify()[1]


def not_openable(connection: Connection, full: Full, rows: SealedRows) -> int:
    """How many sealed rows of a table cannot be opened as what they say that they are."""
    sealer, found = load_key(full.folder / "relay.key"), 0
    for *of, sealed in connection.execute(f"SELECT {', '.join(rows.bound_to)}, sealed FROM {rows.table}").fetchall():
        try:
            sealer.open_(sealed, rows.context(*of))
        except (StoreError, TypeError):  # a value of another type
            found += 1
    return found


# -- What comes of each

NAMED, REFUSED, NOT_OPENED, HARMLESS = "named", "not allowed by the schema", "refused when used", "harmless"


def outcome(thief: Thief, full: Full, tampering: Tampering) -> tuple[str, list[str]]:
    """What comes of it, and the words of `verify`. The store is as before afterwards."""
    thief.begin()
    try:
        tampering.do(thief.connection)
        without_notes(thief.connection)
        found = verified(thief.connection, full)
        if found:
            return NAMED, found
        refused = [rows for rows in SEALED if rows.table == tampering.table]
        if any(not_openable(thief.connection, full, rows) for rows in refused):
            return NOT_OPENED, []
        return HARMLESS, []
    except DATABASE_ERRORS as error:
        return REFUSED, [str(error)]
    finally:
        thief.undo()


def expected(tampering: Tampering) -> set[str]:
    """What may come of it by the declarations."""
    table, column = tampering.table, tampering.column
    if table in CHAINS or (table in TABLES and column not in NOT_COVERED_COLUMNS.get(table, {})):
        return {NAMED, REFUSED}
    assert table in TABLES or table in NOT_COVERED
    sealed = next((rows for rows in SEALED if rows.table == table), None)
    if sealed is not None and (column in (*sealed.bound_to, "sealed") or is_moved(tampering.deed, sealed)):
        return {NAMED, REFUSED, NOT_OPENED}
    return {NAMED, REFUSED, NOT_OPENED, HARMLESS}


def is_moved(deed: str, sealed: SealedRows) -> bool:
    """Whether the deed has something sealed in a row that it is not bound to."""
    return deed in ("row added", "rows swapped") and not set(sealed.key).isdisjoint(sealed.bound_to)


def counted(full: Full, tamperings: Callable[[Connection, Table], Iterable[Tampering]]) -> Counter[str]:
    """The outcomes. Raises AssertionError for what is not expected."""
    found: Counter[str] = Counter()
    harmless: Counter[str] = Counter()
    with thief_of(full) as thief:
        for table in tables_of(thief.connection):
            if table.name in EMPTY:
                continue
            for tampering in tamperings(thief.connection, table):
                what, words = outcome(thief, full, tampering)
                assert what in expected(tampering), f"{tampering}: {what} {words}"
                assert what != NAMED or table.name not in TABLES or any(table.name in fault for fault in words), words
                found[what] += 1
                harmless[table.name] += what == HARMLESS
    print(dict(found), "harmless:", dict(+harmless))
    return found


def test_each_table_has_a_row(full: Full) -> None:
    with thief_of(full) as thief:
        assert {table.name for table in tables_of(thief.connection) if not table.rows(thief.connection)} == EMPTY
        assert verified(thief.connection, full) == []


def test_each_column(full: Full) -> None:
    """A column more or less changes the figures: look which, and that what is harmless has its reason there."""
    of_file = {NAMED: 674, NOT_OPENED: 46, HARMLESS: 88, REFUSED: 77}
    of_server = {NAMED: 282, NOT_OPENED: 19, HARMLESS: 58, REFUSED: 265}
    assert counted(full, on_columns) == (of_file if isinstance(full.place, Path) else of_server)


def test_rows_of_each_table(full: Full) -> None:
    of_file = {NAMED: 215, NOT_OPENED: 6, HARMLESS: 42, REFUSED: 3}
    of_server = {NAMED: 212, NOT_OPENED: 8, HARMLESS: 53, REFUSED: 13}
    assert counted(full, on_rows) == (of_file if isinstance(full.place, Path) else of_server)


@pytest.mark.parametrize("whose", ["former", "foreign"])
def test_proven_row_of_another_time_or_store_is_named(full: Full, whose: str) -> None:
    """Rows that relay700 has changed or deleted since, and those of a copy of the store that went another way."""
    varied: list[Varied] = getattr(full, whose)
    rows = [row for one in varied for row in (one.changed, one.added) if row is not None]
    with thief_of(full) as thief:
        for row in rows:
            what, _ = outcome(thief, full, Tampering("put", row.table.name, "", row.put))
            assert what == NAMED, row.table.name
    assert len(rows) == 47


# -- The ends of the chains, and the whole store


class PutBack(NamedTuple):
    """What is put back as it was earlier."""

    links: tuple[str, ...]  # chains that lose their later links
    tables: tuple[str, ...]  # tables that are as they were then


HEADS: Final = {"call_record": "chain_head", "audit": "audit_head"}
ENDS: Final = {
    "end of records": PutBack(("call_record",), ()),
    "end of records, its head": PutBack(("call_record",), ("chain_head",)),
    "end of records, its head and the ledger's": PutBack(("call_record",), ("chain_head", "ledger_head")),
    "end of the audit log": PutBack(("audit",), ()),
    "end of the audit log, its head": PutBack(("audit",), ("audit_head",)),
    "end of the audit log, its head and the ledger's": PutBack(("audit",), ("audit_head", "ledger_head")),
    "both ends": PutBack(tuple(HEADS), ()),
    "both ends and their heads": PutBack(tuple(HEADS), tuple(HEADS.values())),
    "both ends and all heads": PutBack(tuple(HEADS), (*HEADS.values(), "ledger_head")),
    "the heads alone": PutBack((), (*HEADS.values(), "ledger_head")),
    "the proofs and all heads": PutBack((), (*HEADS.values(), "ledger_head", "ledger")),
}


@pytest.mark.parametrize("what", ENDS)
def test_end_that_was_cut_off_is_named(full: Full, what: str) -> None:
    with thief_of(full) as thief:
        thief.begin()
        tables = tables_of(thief.connection)
        for chain in ENDS[what].links:
            put_earlier(thief.connection, full, [table for table in tables if table.name == chain])
        put_earlier(thief.connection, full, [table for table in tables if table.name in ENDS[what].tables])
        without_notes(thief.connection)
        assert verified(thief.connection, full) != []
        thief.undo()


@pytest.mark.parametrize("but", ["call_record", "audit", "ledger_head", "business", "route", "api_key"])
def test_store_that_was_put_back_but_for_a_table_is_named(full: Full, but: str) -> None:
    kept = {but, HEADS.get(but)}
    with thief_of(full) as thief:
        thief.begin()
        put_earlier(thief.connection, full, [table for table in tables_of(thief.connection) if table.name not in kept])
        thief.connection.execute("DELETE FROM ledger_touch")
        assert verified(thief.connection, full) != []
        thief.undo()


def test_store_that_was_put_back_as_a_whole_shows_by_its_anchor_alone(full: Full) -> None:
    with thief_of(full) as thief:
        thief.begin()
        put_earlier(thief.connection, full, tables_of(thief.connection))
        thief.connection.execute("DELETE FROM ledger_touch")
        assert verified(thief.connection, full) == []
        with pytest.raises(StoreError, match="an earlier copy of the store"):
            AnchorFile(local_path(full.place), load_key(full.folder / "relay.key")).check(thief.connection)
        thief.undo()


@pytest.mark.parametrize("chain", HEADS)
def test_link_written_since_the_last_change_shows_by_the_anchor_alone(full: Full, chain: str) -> None:
    """It is cut off the end, and the head put back that was there before it."""
    with fork(full.place, full.folder) as store:
        earlier = {table.name: table.rows(store.reader) for table in tables_of(store.reader)}
        if chain == "audit":
            store.run(lambda unit: unit.audit("read", "store"))
        else:
            asyncio.run(add_record(store, "last"))
        anchor = read_anchor(store.reader, store.sealer)
        forked = full._replace(place=store.path, earlier=earlier)
        with thief_of(forked) as thief:
            thief.begin()
            cut = [table for table in tables_of(thief.connection) if table.name in (chain, HEADS[chain])]
            put_earlier(thief.connection, forked, cut)
            without_notes(thief.connection)
            assert verified(thief.connection, forked) == []
            assert growth_faults(thief.connection, anchor, "then") != []
            thief.undo()


def put_earlier(connection: Connection, full: Full, tables: list[Table]) -> None:
    """Have the tables hold the rows of the earlier time; a business user has its row before its bindings do."""
    for table in sorted(tables, key=lambda table: table.name != "binding"):
        for row in table.rows(connection):
            table.delete(connection, row)
    for table in sorted(tables, key=lambda table: table.name != "business"):
        for row in full.earlier[table.name]:
            table.insert(connection, row)
