"""The unit of work: its audit entries and its events."""

from __future__ import annotations

import getpass
import re
from contextlib import closing
from itertools import pairwise
from typing import get_args

import pytest

from relay.errors import Refused, StoreError
from relay.model.binding import number_of
from relay.store.audit import AuditQuery, newest_entries
from relay.store.chain import AUDIT, EMPTY, read_head
from relay.store.database import connect
from relay.store.unit_of_work import Scope, UnitOfWork, operator_cli
from relay.store.webhooks import queue_event
from tests.support.acting import Acting, key_of
from tests.support.stored import NOW_MS


def webhook(unit: UnitOfWork, webhook_id: str, business: str, kinds: str) -> None:
    unit.connection.execute(
        "INSERT INTO webhook (id, business, sealed, kinds, created_at) VALUES (?, ?, x'', ?, 0)",
        (webhook_id, business, kinds),
    )


def test_ids_of_one_moment_have_numbers_of_their_own(store: Acting) -> None:
    ids = store.run(lambda unit: [unit.new_id() for _ in range(4096)])
    assert len({number_of(one) for one in ids}) == 4096
    assert all(re.fullmatch("[0-9a-f]{24}", one) for one in ids)


def test_ids_of_different_moments_do_not_count_what_is_made_between(store: Acting) -> None:
    serials = []
    for _ in range(8):
        store.now_ms += 1
        serials.append(int(store.run(lambda unit: unit.new_id())[12:15], 16))
    assert len({(later - earlier) & 0xFFF for earlier, later in pairwise(serials)}) > 1


def test_audit_entry_has_actor_and_time(store: Acting) -> None:
    store.run(
        lambda unit: unit.audit("number.lock", "700", business="acme", reason="fraud", details={"calls": 3}),
        key_of("acme"),
    )
    ((seq, entry, _),) = newest_entries(store.reader, store.sealer, AuditQuery(), None, 9)
    assert seq == 1
    assert entry == (NOW_MS, "key:0123456789ab", "number.lock", "700", "acme", "fraud", {"calls": 3})


def test_refused_unit_of_work_leaves_no_audit_entry_and_no_event(store: Acting) -> None:
    def do(unit: UnitOfWork) -> None:
        webhook(unit, "w1", "acme", "binding.expired")
        unit.audit("bind", "b1")
        queue_event(unit, "acme", "binding.expired", "b1.expired", {})
        raise Refused("conflict", "a", "taken")

    with pytest.raises(Refused):
        store.run(do)
    for table in ("audit", "outbox"):
        assert store.reader.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_user_of_a_command_is_an_operator_with_all_scopes() -> None:
    actor = operator_cli()
    assert actor.name == f"cli:{getpass.getuser()}"
    assert (actor.business, actor.scopes) == (None, frozenset(get_args(Scope)))


def test_user_id_without_a_name_may_run_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert operator_cli().name == "cli:unknown"


# -- Entries of the audit log: chained in order, with free text sealed


def logged(store: Acting, count: int = 1) -> None:
    for _ in range(count):
        store.run(lambda unit: unit.audit("read", "b1", reason="canary 13800000001", details={"canary": "13800000001"}))


def alter(store: Acting, statement: str) -> None:
    with closing(connect(store.path)) as connection:
        connection.execute(statement)


def test_entries_are_numbered_without_gaps(store: Acting) -> None:
    assert read_head(store.reader, store.sealer, AUDIT) == EMPTY
    logged(store, 3)
    assert read_head(store.reader, store.sealer, AUDIT).seq == 3
    assert store.reader.execute("SELECT seq FROM audit").fetchall() == [(1,), (2,), (3,)]


def test_reason_and_details_are_sealed(store: Acting) -> None:
    logged(store)
    raw = b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    assert b"b1" in raw
    assert b"canary" not in raw and b"13800000001" not in raw


@pytest.mark.parametrize(
    "theft",
    [
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = seq - 1",
        "UPDATE audit_head SET hash = (SELECT hash FROM audit WHERE seq = 1)",
        "UPDATE audit_head SET mac = x'00'",
        "UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 1)",
        "INSERT INTO audit SELECT 4, at, actor, action, object, business, sealed, hash FROM audit WHERE seq = 2",
    ],
)
def test_no_entry_is_added_after_an_altered_head(store: Acting, theft: str) -> None:
    logged(store, 3)
    alter(store, theft)
    with pytest.raises(StoreError, match="the head of the audit log was altered or removed"):
        logged(store)
