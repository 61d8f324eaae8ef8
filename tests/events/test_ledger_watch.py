"""The watch of a running relay finds what was changed from outside, and keeps the anchor of a good store only."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from relay.errors import StoreError
from relay.events.ledger_watch import CHECK_S, LedgerWatch, RightsWatch
from relay.store.chain import AnchorFile, present_anchor, read_anchor
from relay.store.database import connect
from relay.store.ledger import require_proofs, sign_all
from relay.store.ledger_tables import TABLES
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting, acting
from tests.support.ledger_attacks import (
    ATTACKS,
    HEAD_CHANGES,
    SCHEMA_CHANGES,
    Attack,
    add,
    change,
    covered,
    delete_with_its_proof,
    fill,
    proofs,
    put_back,
)
from tests.support.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


class Watching:
    """A watch whose clock the test sets."""

    def __init__(self, store: Acting) -> None:
        self._now_s = 0.0
        self.watch = LedgerWatch(store.path, store.sealer, get_logger(), clock_s=lambda: self._now_s)

    async def looks(self) -> list[str]:
        """The faults that it logs in one look."""
        with capture_logs() as logs:
            await self.watch.look()
        return [log["fault"] for log in logs if log["event"] == "ledger.fault"]

    async def checks(self) -> list[str]:
        """The faults that it logs when it reads all rows."""
        self._now_s += CHECK_S
        return await self.looks()


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacked_rows_are_found(store: Acting, attack: Attack) -> None:
    rows = [fill(store, table) for table in TABLES.values()]
    watching = Watching(store)
    assert await watching.checks() == []
    with closing(connect(store.path)) as thief:
        thief.execute("PRAGMA foreign_keys = OFF")
        for row in rows:
            attack(thief, row)
    found = await watching.checks()
    for row in rows:
        assert any(f"{row.table.name} {row.key}" in fault for fault in found), row.table.name


@pytest.mark.parametrize("noted", [True, False])
async def test_restored_rows_are_found(store: Acting, noted: bool) -> None:
    rows = [fill(store, table) for table in TABLES.values()]
    old, proof = [covered(store.reader, row) for row in rows], proofs(store.reader)
    for row in rows:
        change(store, row)
    watching = Watching(store)
    assert await watching.checks() == []
    with closing(connect(store.path)) as thief:
        for row, values in zip(rows, old, strict=True):
            put_back(thief, row, values, proof)
        if not noted:
            thief.execute("DELETE FROM ledger_touch")
    found = await watching.checks()
    for row in rows:
        said = f"{row.table.name} {row.key}" if noted else f"{row.table.name}: rows were removed"
        assert any(fault.startswith(said) for fault in found), row.table.name


async def test_added_rows_are_found(store: Acting) -> None:
    watching = Watching(store)
    assert await watching.checks() == []
    with closing(connect(store.path)) as thief:
        for table in TABLES.values():
            add(thief, table)
    assert {fault.split()[0] for fault in await watching.checks()} >= TABLES.keys()


async def test_noted_change_is_found_by_the_next_look_and_logged_once(store: Acting) -> None:
    fill(store, TABLES["api_key"])
    watching = Watching(store)
    assert await watching.looks() == []
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
    assert await watching.looks() != []
    assert await watching.looks() == []
    faults = watching.watch.statistics()["ledger_faults"]
    assert await watching.checks() == []
    assert watching.watch.statistics() == {"ledger_faults": faults}


async def test_accepted_change_is_no_fault_any_more_and_found_when_it_is_repeated(store: Acting) -> None:
    fill(store, TABLES["api_key"])
    watching, file = Watching(store), AnchorFile(store.path, store.sealer)
    await watching.looks()
    for _ in range(2):
        with closing(connect(store.path)) as thief:
            thief.execute("UPDATE api_key SET scopes = scopes || ' operator'")
        assert await watching.looks() != []
        accept(store, file)
        assert await watching.looks() == []
        assert watching.watch.statistics() == {"ledger_faults": 0}


@pytest.mark.parametrize(
    "forgery",
    [
        "INSERT INTO audit SELECT 9000000000000000, at, actor, 'ledger.accept', object, business, sealed, hash"
        " FROM audit WHERE seq = 1",
        "UPDATE audit SET action = 'ledger.accept' WHERE action = 'ledger.fault'",
    ],
)
async def test_forged_acceptance_ends_no_fault(store: Acting, forgery: str) -> None:
    fill(store, TABLES["api_key"])
    watching = Watching(store)
    await watching.looks()
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
        faults = await watching.looks()
        assert thief.execute(forgery).rowcount == 1
    assert faults != []
    assert any("of the audit log" in fault for fault in await watching.looks())
    assert watching.watch.statistics()["ledger_faults"] > len(faults)


@pytest.mark.parametrize(("deed", "named"), HEAD_CHANGES)
async def test_altered_head_is_found(store: Acting, deed: str, named: str) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(named in fault for fault in await Watching(store).looks())


@pytest.mark.parametrize("deed", SCHEMA_CHANGES)
async def test_changed_schema_is_found(store: Acting, deed: str) -> None:
    watching = Watching(store)
    await watching.looks()
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(fault.startswith("schema") for fault in await watching.looks())


async def test_running_watch_stops_the_process_from_granting_beside_a_foreign_object(store: Acting) -> None:
    fill(store, TABLES["api_key"])
    watching = asyncio.create_task(RightsWatch(store.path, store.sealer).run())
    with closing(connect(store.path)) as thief:
        thief.execute("CREATE VIEW another AS SELECT 1 AS one")
        await until(lambda: store.sealer.stopped)
        with pytest.raises(StoreError, match="view another"):
            require_proofs(store.reader, store.sealer, "api_key", ["text0"])
        thief.execute("DROP VIEW another")
    await until(lambda: not store.sealer.stopped)
    require_proofs(store.reader, store.sealer, "api_key", ["text0"])
    watching.cancel()
    await asyncio.wait([watching])


async def test_restored_ledger_is_found_by_the_running_relay(store: Acting) -> None:
    old = store.reader.execute("SELECT revision, sealed FROM ledger_head").fetchone()
    row = fill(store, TABLES["api_key"])
    watching = Watching(store)
    await watching.looks()
    with closing(connect(store.path)) as thief:
        delete_with_its_proof(thief, row)
        thief.execute("DELETE FROM ledger_touch")
        thief.execute("UPDATE ledger_head SET revision = ?, sealed = ?", old)
    assert any("has 1 now" in fault or "revision" in fault for fault in await watching.looks())


# -- The anchor file


async def test_anchor_follows_the_store_until_it_has_a_fault(store: Acting) -> None:
    watching, file = Watching(store), AnchorFile(store.path, store.sealer)
    await watching.looks()
    first = file.read()
    assert first == read_anchor(store.reader, store.sealer)
    old = store.reader.execute("SELECT revision, sealed FROM ledger_head").fetchone()
    row = fill(store, TABLES["api_key"])
    await watching.looks()
    second = file.read()
    assert first != second == read_anchor(store.reader, store.sealer)
    with closing(connect(store.path)) as thief:
        delete_with_its_proof(thief, row)
        thief.execute("DELETE FROM ledger_touch")
        thief.execute("UPDATE ledger_head SET revision = ?, sealed = ?", old)
    assert await watching.looks() != []
    assert file.read() == second


async def test_anchor_that_cannot_be_written_is_logged_once_until_it_can(store: Acting) -> None:
    watching, file = Watching(store), AnchorFile(store.path, store.sealer)
    file.path.mkdir()
    with capture_logs() as logs:
        await watching.watch.look()
        await watching.watch.look()
    assert [log["event"] for log in logs] == ["ledger.anchor_not_kept"]
    file.path.rmdir()
    await watching.watch.look()
    assert file.read() == read_anchor(store.reader, store.sealer)


async def test_anchor_follows_a_store_that_was_put_back_and_accepted(store: Acting) -> None:
    watching, file, old = Watching(store), AnchorFile(store.path, store.sealer), backup(store)
    store.run(lambda unit: unit.audit("do", "o1"))
    await watching.looks()
    put_in_place(store, old)
    assert await watching.looks() != []
    accept(store, file)
    assert await watching.looks() == []
    assert watching.watch.statistics() == {"ledger_faults": 0}
    store.run(lambda unit: unit.audit("do", "o2"))
    assert await watching.looks() == []
    assert file.read() == read_anchor(store.reader, store.sealer)


@pytest.mark.parametrize("attack", [Path.unlink, lambda path: path.write_text("forged"), None])
async def test_anchor_file_of_an_older_store_does_not_hide_it(
    store: Acting, attack: Callable[[Path], object] | None
) -> None:
    """Neither does one that was lost or altered."""
    watching, file, old = Watching(store), AnchorFile(store.path, store.sealer), backup(store)
    older = read_anchor(store.reader, store.sealer)
    store.run(lambda unit: unit.audit("do", "o1"))
    await watching.looks()
    put_in_place(store, old)
    if attack is None:
        file.write(older)
    else:
        attack(file.path)
    assert any(f"when {file.path} was written" in fault for fault in await watching.looks())


async def test_watch_that_is_started_again_finds_that_the_store_was_put_back(store: Acting) -> None:
    """As by a restart of the backend, or on another leader: the file is older than its process."""
    file, old = AnchorFile(store.path, store.sealer), backup(store)
    store.run(lambda unit: unit.audit("do", "o1"))
    await Watching(store).looks()
    kept = file.read()
    put_in_place(store, old)
    watching = Watching(store)
    assert any(f"when {file.path} was written" in fault for fault in await watching.looks())
    assert await watching.looks() == []  # told once
    assert file.read() == kept
    accept(store, file)
    assert await watching.looks() == []
    assert file.read() == read_anchor(store.reader, store.sealer)


def backup(store: Acting) -> sqlite3.Connection:
    """A copy of the whole store."""
    copy = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(str(store.path))) as source:
        source.backup(copy)
    return copy


def put_in_place(store: Acting, copy: sqlite3.Connection) -> None:
    with closing(copy), closing(sqlite3.connect(str(store.path))) as target:
        copy.backup(target)


def accept(store: Acting, file: AnchorFile) -> None:
    """As `relay700 verify --accept`."""
    known = file.read()
    assert known is not None

    def do(unit: UnitOfWork) -> None:
        sign_all(unit.connection, unit.sealer, beyond=known.revision)
        unit.audit("ledger.accept", "store", reason="a test")

    store.run(do)
    file.write(present_anchor(store.reader, store.sealer))
