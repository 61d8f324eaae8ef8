"""The check of a whole store names rights that were put back, and their uses, even when all rows are right again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.service.businesses import set_state
from relay.store.database import connect
from relay.store.history import CALL_GRACE_MS, KEY_GRACE_MS
from relay.store.rights_check import Rights, check_rights
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import Actor
from tests.support.ledger_attacks import Copies
from tests.support.put_back import Attacked, put_back_later
from tests.support.stored import ended_record


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Attacked]:
    attacked = Attacked(tmp_path)
    with closing(attacked.backend):
        yield attacked


def checked(attacked: Attacked) -> Rights:
    backend = attacked.backend
    return check_rights(backend.reader, backend.sealer, lambda: backend.now_ms)


def keep(attacked: Attacked, *records: CallRecord) -> None:
    async def journal() -> None:
        journal = sqlite_journal(attacked.backend.path, attacked.backend.sealer, lambda *_: None)
        await journal.open()
        for record in records:
            journal.queue.append(Commit(0, record, None), lambda _: None)
        await journal.close()

    asyncio.run(journal())


def call(attacked: Attacked, call_id: str, received_at: int, **more: object) -> CallRecord:
    return ended_record(
        call_id,
        binding_id=attacked.binding,
        business="acme",
        received_at=received_at,
        **{"routed_at": received_at} | more,
    )


@pytest.mark.parametrize("name", ["key", "binding", "business"])
def test_right_put_back_is_named(attacked: Attacked, name: str) -> None:
    right = attacked.rights[name]
    put = put_back_later(attacked, right)
    assert checked(attacked).named() == []
    put()
    assert any(fault.startswith(f"{right.row}: was put back") for fault in map(str, checked(attacked).ended))


def test_right_put_back_for_a_moment_is_named_by_its_uses(attacked: Attacked) -> None:
    backend = attacked.backend
    before = backend.now_ms
    keep(attacked, call(attacked, "good", before))
    ended_at = before + 1_000
    backend.now_ms = ended_at
    with closing(connect(backend.path)) as thief:
        copies = Copies(thief, "api_key", "binding", "route")
        attacked.rights["key"].end()
        attacked.rights["binding"].end()
        genuine = Copies(thief, "api_key", "binding", "route")
        backend.now_ms += KEY_GRACE_MS + 1
        copies.put_back(thief)
        actor = Actor(f"key:{attacked.key}", "acme", frozenset())
        backend.run(lambda unit: unit.audit("binding.make", "b9"), actor)
        late = call(attacked, "late", ended_at + CALL_GRACE_MS + 1)
        refused = call(attacked, "refused", ended_at + CALL_GRACE_MS + 1, routed_at=None, outcome="expired")
        keep(attacked, call(attacked, "in time", ended_at + CALL_GRACE_MS), late, refused)
        genuine.put_back(thief)
    backend.now_ms += CALL_GRACE_MS
    found = checked(attacked)
    assert (found.ended, found.rows) == ([], [])
    of_key, of_binding = found.uses
    assert of_key.startswith(f"api_key {attacked.key}: was used after line ")
    assert of_key.endswith("(binding.make)")
    assert of_binding.startswith(f"binding {attacked.binding}: was used after line ")
    assert of_binding.endswith(": call late")
    attacked.accept()
    assert checked(attacked).named() == []


def test_call_of_a_suspended_business_user_is_named_also_after_it_was_resumed(attacked: Attacked) -> None:
    backend = attacked.backend
    suspended_at = backend.now_ms
    attacked.rights["business"].end()
    backend.now_ms = resumed_at = suspended_at + 10 * CALL_GRACE_MS
    backend.run(lambda unit: set_state(unit, "acme", "resume", "settled"))
    times = (suspended_at, suspended_at + 5 * CALL_GRACE_MS, resumed_at - 1, resumed_at + 5 * CALL_GRACE_MS)
    keep(attacked, *(call(attacked, f"c{place}", at) for place, at in enumerate(times)))
    backend.now_ms += 10 * CALL_GRACE_MS
    (use,) = checked(attacked).uses
    assert use.startswith("business acme: was used after line ")
    assert use.endswith(": call c1")


def test_altered_line_that_ended_a_right_is_named(attacked: Attacked) -> None:
    """Whoever hides the end of a right in the log shows by that."""
    attacked.rights["key"].end()
    with closing(connect(attacked.backend.path)) as thief:
        thief.execute("UPDATE audit SET action = 'key.make' WHERE action = 'key.revoke'")
    assert any("of the audit log was altered" in fault for fault in checked(attacked).uses)
