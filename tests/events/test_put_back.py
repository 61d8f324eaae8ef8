"""Someone who has the database puts back a right that has ended, with its old proof: it is found, named, refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from relay.errors import StoreError
from relay.events.ledger_watch import CHECK_S, LedgerWatch
from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.service.bindings import change, end
from relay.service.businesses import set_state
from relay.service.groups import set_entry
from relay.store import database
from relay.store.audit import verify_audit
from relay.store.connection import transaction
from relay.store.database import connect, open_store, reading
from relay.store.history import CALL_GRACE_MS, KEY_GRACE_MS, UsesOfRights
from relay.store.keys import find_key
from relay.store.postgres import connection
from relay.store.rights_check import check_rights
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor
from tests.service.conftest import RULES, Backend
from tests.support.full_store import journal_of
from tests.support.ledger_attacks import NOT_UTF8, NOTE_NOT_UTF8, OTHER_TYPES, Copies, any_type
from tests.support.look_ups import LookUps
from tests.support.put_back import Attacked, put_back_later
from tests.support.stored import A, B, X, Y, ended_record
from tests.support.tampering import without_notes

C, D = "8613700000003", "8613700000004"


class Watching:
    """A watch with clocks that the test sets, and the calls that the follower has noted."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._now_s = 0.0
        self.uses: UsesOfRights = deque()
        self.watch = LedgerWatch(
            backend.path,
            backend.sealer,
            get_logger(),
            self.uses,
            clock_s=lambda: self._now_s,
            clock_ms=lambda: backend.now_ms,
        )

    def looks(self) -> list[str]:
        with capture_logs() as logs:
            asyncio.run(self.watch.look())
        return [log["fault"] for log in logs if log["event"] == "ledger.fault"]

    def checks(self) -> list[str]:
        """The faults that it finds within a minute."""
        self._now_s += CHECK_S
        return self.looks()


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Attacked]:
    attacked = Attacked(tmp_path)
    with closing(attacked.backend):
        yield attacked


RIGHTS = pytest.mark.parametrize("name", ["key", "binding", "business"])


@RIGHTS
def test_right_put_back_is_named_by_the_next_look_and_refused(attacked: Attacked, name: str) -> None:
    right = attacked.rights[name]
    watching = Watching(attacked.backend)
    put = put_back_later(attacked, right)
    assert watching.checks() == []
    put()
    assert not right.is_granted()  # the process has seen its end
    found = watching.looks()
    assert any(fault.startswith(f"{right.row}: was put back") for fault in found)
    assert not right.is_granted()


@RIGHTS
def test_right_stays_refused_when_its_old_proof_is_put_back_again(attacked: Attacked, name: str) -> None:
    right = attacked.rights[name]
    put = put_back_later(attacked, right)
    put()
    Watching(attacked.backend).checks()
    put()
    assert not right.is_granted()


@RIGHTS
def test_right_stays_refused_after_a_restart_and_on_another_node(attacked: Attacked, name: str) -> None:
    right = attacked.rights[name]
    put = put_back_later(attacked, right)
    put()
    sealer = open_store(attacked.backend.path, attacked.folder / "relay.key")
    forget(sealer)
    with closing(LookUps(attacked.backend.path, sealer)) as node:
        assert name == "key" or not is_refused(node, attacked)
        Watching(attacked.backend).checks()
        put()
        node.look()
        assert name == "key" or is_refused(node, attacked)
    started = open_store(attacked.backend.path, attacked.folder / "relay.key")
    if name == "key":
        with pytest.raises(StoreError, match="is not as relay700 wrote it"):
            find_key(attacked.backend.reader, started, attacked.key)
        return
    with closing(LookUps(attacked.backend.path, started)) as restarted:
        assert is_refused(restarted, attacked)


@RIGHTS
def test_right_is_refused_until_an_operator_accepts_it(attacked: Attacked, name: str) -> None:
    right, watching = attacked.rights[name], Watching(attacked.backend)
    watching.looks()
    put = put_back_later(attacked, right)
    put()
    found = watching.checks()
    assert found != []
    table, row_key = right.row.split()
    routes = [("route", fault.removeprefix("route ").partition(":")[0]) for fault in found if fault[:6] == "route "]
    attacked.accept((table, row_key), *routes)
    assert watching.checks() == []
    assert right.is_granted()


@RIGHTS
def test_right_put_back_and_not_seen_in_time_is_named_after_a_restart(attacked: Attacked, name: str) -> None:
    right = attacked.rights[name]
    put_back_later(attacked, right)()
    assert any(fault.startswith(f"{right.row}: was put back") for fault in Watching(attacked.backend).checks())
    assert not right.is_granted()


def test_right_that_nobody_put_back_is_no_fault(attacked: Attacked) -> None:
    watching = Watching(attacked.backend)
    for right in attacked.rights.values():
        right.end()
        assert watching.checks() == []
    attacked.backend.run(lambda unit: set_state(unit, "acme", "resume", "settled"))
    assert watching.checks() == []
    assert Watching(attacked.backend).checks() == []


def test_business_user_with_the_id_of_a_purged_one_is_no_fault(attacked: Attacked) -> None:
    backend = attacked.backend
    for step in ("suspend", "resume", "revoke"):
        backend.run(lambda unit, step=step: set_state(unit, "acme", step, "settled"))
    backend.run(lambda unit: end(unit, attacked.binding, RULES))
    for table, column in (
        ("business_change", "business"),
        ("api_key", "business"),
        ("route", "binding_id"),
        ("binding", "business"),
        ("business", "id"),
    ):
        whose = attacked.binding if column == "binding_id" else "acme"
        backend.run(
            lambda unit, at=(table, column), whose=whose: unit.connection.execute(
                f"DELETE FROM {at[0]} WHERE {at[1]} = ?", (whose,)
            )
        )
    backend.business("acme")
    assert Watching(backend).checks() == []


def test_binding_put_back_as_it_was_before_a_change_is_named(attacked: Attacked) -> None:
    watching = Watching(attacked.backend)
    with closing(connect(attacked.backend.path)) as thief:
        copies = Copies(thief, "binding")
        attacked.backend.run(lambda unit: change(unit, attacked.binding, {"direction": "b_to_a"}, RULES))
        assert watching.checks() == []
        copies.put_back(thief)
    assert any(fault.startswith(f"binding {attacked.binding}: was put back") for fault in watching.looks())
    assert not attacked.calls()


def test_route_of_a_former_party_is_named_and_no_other_is_refused(attacked: Attacked) -> None:
    backend, watching = attacked.backend, Watching(attacked.backend)
    with closing(connect(backend.path)) as thief:
        copies = Copies(thief, "route")
        backend.run(lambda unit: change(unit, attacked.binding, {"b": C}, RULES))
        assert watching.checks() == []
        copies.put_back(thief)
    assert backend.reaches(X, B) == "store_failed"
    forget(backend.sealer)
    assert backend.reaches(X, B) == A
    assert any("was put back: its binding has no such line" in fault for fault in watching.checks())
    assert [backend.reaches(X, caller) for caller in (A, B, C)] == [C, "store_failed", A]


def test_table_whose_rows_cannot_be_named_is_refused_as_a_whole(attacked: Attacked) -> None:
    watching = Watching(attacked.backend)
    with closing(connect(attacked.backend.path)) as thief:
        copies = Copies(thief, "number")
        attacked.backend.run(
            lambda unit: unit.connection.execute("UPDATE number SET locked = 3 WHERE number = ?", (X,))
        )
        attacked.accept()  # the store forgets what was changed lately
        forget(attacked.backend.sealer)
        copies.put_back(thief)
        assert attacked.calls()
        assert any(fault.startswith("number: rows were removed, or put back") for fault in watching.checks())
        assert not attacked.calls()
        copies.put_back(thief)
        assert not attacked.calls()
    attacked.accept()
    assert watching.checks() == []
    assert attacked.calls()


def test_owner_of_a_list_is_refused_when_an_entry_may_be_gone(attacked: Attacked) -> None:
    backend = attacked.backend
    backend.business("other")
    backend.bind(business="other", order_id="2", a=C, b=D, x=Y)
    backend.run(lambda unit: set_entry(unit, "business", "acme", A, "black"))
    backend.run(lambda unit: set_entry(unit, "business", "acme", C, "black"))
    watching = Watching(backend)
    assert watching.checks() == []
    assert backend.reaches(X, A) == "caller_blacklisted"
    with closing(connect(backend.path)) as thief, transaction(thief):
        (key,) = thief.execute("SELECT row_key FROM ledger WHERE table_name = 'list_entry' ORDER BY row_key").fetchone()
        thief.execute("DELETE FROM list_entry WHERE caller_hash = ?", (bytes.fromhex(key.split()[-1]),))
        thief.execute("DELETE FROM ledger WHERE table_name = 'list_entry' AND row_key = ?", (key,))
        thief.execute("DELETE FROM ledger_touch")
    assert any(fault.startswith("list_entry: rows were removed") for fault in watching.checks())
    assert [backend.reaches(X, A), backend.reaches(X, B)] == ["store_failed", "store_failed"]
    assert backend.reaches(Y, C) == D


# -- Uses of a right that is gone again


def test_line_of_a_key_after_its_end_is_named(attacked: Attacked) -> None:
    backend, watching = attacked.backend, Watching(attacked.backend)
    watching.looks()
    attacked.rights["key"].end()
    actor = Actor(f"key:{attacked.key}", "acme", frozenset())
    backend.now_ms += KEY_GRACE_MS
    backend.run(lambda unit: unit.audit("binding.make", "b9"), actor)
    assert watching.looks() == []
    backend.now_ms += 1
    backend.run(lambda unit: unit.audit("binding.make", "b9"), actor)
    for found in (watching.looks(), Watching(backend).looks()):
        assert [fault.partition(" line")[0] for fault in found] == [f"api_key {attacked.key}: was used after"]
    attacked.accept()
    assert Watching(backend).looks() == []


@pytest.mark.parametrize("name", ["binding", "business"])
def test_call_after_the_end_is_named(attacked: Attacked, name: str) -> None:
    backend, watching = attacked.backend, Watching(attacked.backend)
    watching.looks()
    ended_at = backend.now_ms
    attacked.rights[name].end()
    for received_at in (ended_at - 1, ended_at + CALL_GRACE_MS, ended_at + CALL_GRACE_MS + 1):
        watching.uses.append((f"c{received_at - ended_at}", attacked.binding, "acme", received_at, 0))
    assert watching.looks() == []  # the clocks of nodes may differ
    backend.now_ms += 3 * CALL_GRACE_MS
    (found,) = watching.looks()
    assert found.startswith(f"{attacked.rights[name].row}: was used after line ")
    assert found.endswith(f": call c{CALL_GRACE_MS + 1}")
    assert watching.looks() == []


def test_calls_of_a_business_user_that_was_resumed_are_no_fault(attacked: Attacked) -> None:
    backend, watching = attacked.backend, Watching(attacked.backend)
    attacked.rights["business"].end()
    backend.now_ms += 10 * CALL_GRACE_MS
    resumed_at = backend.now_ms
    backend.run(lambda unit: set_state(unit, "acme", "resume", "settled"))
    backend.now_ms += 10 * CALL_GRACE_MS
    for late_ms in (-CALL_GRACE_MS - 1, -CALL_GRACE_MS, 0, 5 * CALL_GRACE_MS):
        watching.uses.append((f"c{late_ms}", attacked.binding, "acme", resumed_at + late_ms, 0))
    (found,) = watching.looks()
    assert found.endswith(f": call c{-CALL_GRACE_MS - 1}")


def test_call_that_went_as_before_a_change_is_named(attacked: Attacked) -> None:
    """The row was put back with its proof for one call, and then restored: the call alone is left of it."""
    backend, watching = attacked.backend, Watching(attacked.backend)
    watching.looks()
    backend.run(lambda unit: change(unit, attacked.binding, {"b": C}, RULES))
    at = backend.now_ms + 2 * CALL_GRACE_MS
    of = {"binding_id": attacked.binding, "business": "acme", "received_at": at, "routed_at": at, "ended_at": at}
    write_records(backend, [ended_record("c1", callee=C, **of), ended_record("c2", callee=B, **of)])
    watching.uses.extend((f"c{seq}", attacked.binding, "acme", at, seq) for seq in (1, 2))
    backend.now_ms += 4 * CALL_GRACE_MS
    (found,) = watching.looks()
    assert found.startswith(f"binding {attacked.binding}: was used as it was before line ")
    assert found.endswith("call c2")
    assert watching.looks() == []


def test_altered_record_is_named_within_a_minute(attacked: Attacked) -> None:
    backend, watching = attacked.backend, Watching(attacked.backend)
    write_records(backend, [ended_record(f"c{seq}") for seq in (1, 2, 3)])
    assert watching.checks() == []
    with closing(connect(backend.path)) as thief:
        thief.execute("UPDATE call_record SET number_dialled = ? WHERE chain_seq = 2", (Y,))
        without_notes(thief)
    (found,) = watching.checks()
    assert found.startswith("call_record: record 2: call record c2 was altered")


def forget(sealer: Sealer) -> None:
    """As if what it knows of was changed long ago."""
    sealer.outdated.clear()


def write_records(backend: Backend, records: list[CallRecord]) -> None:
    async def write() -> None:
        async with journal_of(backend) as journal:
            for record in records:
                journal.queue.append(Commit(0, record, None), lambda _: None)

    asyncio.run(write())


def is_refused(node: LookUps, attacked: Attacked) -> bool:
    found = node.fetch(X, A, attacked.backend.now_ms / 1000)
    return getattr(found, "outcome", None) == "store_failed"


# -- Attacks that blind the watch


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("deed", [NOT_UTF8, NOTE_NOT_UTF8])
def test_text_that_is_not_utf8_hides_no_other_fault_and_can_be_accepted(attacked: Attacked, deed: str) -> None:
    right, watching = attacked.rights["binding"], Watching(attacked.backend)
    assert watching.checks() == []
    put = put_back_later(attacked, right)
    put()
    with closing(connect(attacked.backend.path)) as thief:
        thief.execute(deed)
    assert any(right.row in fault for fault in watching.checks())
    assert not right.is_granted()
    with reading(attacked.backend.path) as reader:
        assert check_rights(reader, attacked.backend.sealer, lambda: attacked.backend.now_ms).named() != []
    attacked.accept()
    with reading(attacked.backend.path) as reader:
        assert check_rights(reader, attacked.backend.sealer, lambda: attacked.backend.now_ms).rows == []


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("table", "deed"), OTHER_TYPES)
def test_values_of_other_types_are_faults_and_hide_none(attacked: Attacked, table: str, deed: str) -> None:
    right, watching = attacked.rights["binding"], Watching(attacked.backend)
    assert watching.checks() == []
    put_back_later(attacked, right)()
    with closing(connect(attacked.backend.path)) as thief, any_type(thief, table):
        thief.execute(deed)
    assert watching.checks() != []
    assert not right.is_granted()
    with reading(attacked.backend.path) as reader:
        found = check_rights(reader, attacked.backend.sealer, lambda: attacked.backend.now_ms).named()
        assert (
            any(table in fault or table == "ledger" for fault in found)
            or verify_audit(reader, attacked.backend.sealer).broken
        )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections opened from now on wait for a lock for 0.2 s, not 5 s."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connection, "OPTIONS", connection.OPTIONS.replace(f"={connection.LOCK_MS}", "=200"))


@pytest.mark.usefixtures("impatient")
def test_row_found_while_the_store_is_locked_is_refused_at_once_and_written_later(
    attacked: Attacked, store_kind: str
) -> None:
    right, watching = attacked.rights["binding"], Watching(attacked.backend)
    assert watching.checks() == []
    put_back_later(attacked, right)()
    with closing(connect(attacked.backend.path)) as thief:
        thief.execute("BEGIN IMMEDIATE")
        if store_kind == "postgresql":  # nothing ends the thief's transaction
            thief.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        assert any(right.row in fault for fault in watching.checks())
        assert not right.is_granted()
        thief.execute("ROLLBACK")
    other = open_store(attacked.backend.path, attacked.folder / "relay.key")
    assert not other.refused.get("binding")
    watching.looks()
    other = open_store(attacked.backend.path, attacked.folder / "relay.key")
    assert attacked.binding in other.refused["binding"]
    assert not right.is_granted()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
def test_table_that_someone_locks_is_a_fault_and_hides_none_of_others(attacked: Attacked) -> None:
    watching = Watching(attacked.backend)
    assert watching.checks() == []
    with closing(connect(attacked.backend.path)) as thief:
        thief.execute("UPDATE pool SET area = 'x'")
        thief.execute("DELETE FROM ledger_touch")
        thief.execute("START TRANSACTION")
        thief.execute("LOCK TABLE complaint")
        found = watching.checks()
        thief.execute("ROLLBACK")
    assert any(fault.startswith("complaint: could not be checked") for fault in found)
    assert any(fault.startswith("pool ") for fault in found)
