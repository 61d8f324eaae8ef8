"""The unit of work: its audit entries and its events."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from relay.errors import Refused
from relay.store.audit_log import AuditQuery, newest_entries
from relay.store.unit_of_work import Scope, UnitOfWork, operator_cli
from relay.store.webhooks import tell
from tests.support.acting import Acting, acting, key_of
from tests.support.stored import NOW_MS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def webhook(act: UnitOfWork, webhook_id: str, business: str, kinds: str, disabled_at: int | None = None) -> None:
    act.connection.execute(
        "INSERT INTO webhook (id, business, sealed, kinds, disabled_at, created_at) VALUES (?, ?, x'', ?, ?, 0)",
        (webhook_id, business, kinds, disabled_at),
    )


def test_audit_entry_has_actor_and_time(store: Acting) -> None:
    store.run(
        lambda act: act.audit("number.lock", "700", business="acme", reason="fraud", details={"calls": 3}),
        key_of("acme"),
    )
    ((seq, entry),) = newest_entries(store.reader, store.sealer, AuditQuery(), None, 9)
    assert seq == 1
    assert entry == (NOW_MS, "key:0123456789ab", "number.lock", "700", "acme", "fraud", {"calls": 3})


def test_refused_unit_of_work_leaves_no_audit_entry_and_no_event(store: Acting) -> None:
    def do(act: UnitOfWork) -> None:
        webhook(act, "w1", "acme", "binding.expired")
        act.audit("bind", "b1")
        tell(act, "acme", "binding.expired", "b1.expired", {})
        raise Refused("conflict", "a", "taken")

    with pytest.raises(Refused):
        store.run(do)
    for table in ("audit", "outbox"):
        assert store.reader.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_event_is_queued_once_for_each_webhook_of_its_kind(store: Acting) -> None:
    def do(act: UnitOfWork) -> None:
        webhook(act, "w1", "acme", "call.ended binding.expired")
        webhook(act, "w2", "acme", "binding.expired")
        webhook(act, "w3", "acme", "call.ended binding.expired_not")
        webhook(act, "w4", "acme", "binding.expired", disabled_at=1)
        webhook(act, "w5", "other", "binding.expired")
        for _ in range(2):
            tell(act, "acme", "binding.expired", "b1.expired", {"a": "13800000001"})

    store.run(do)
    rows = store.reader.execute("SELECT webhook, event_id, kind, at FROM outbox ORDER BY webhook").fetchall()
    assert rows == [(w, "b1.expired", "binding.expired", NOW_MS) for w in ("w1", "w2")]


def test_user_of_a_command_is_an_operator_with_all_scopes() -> None:
    actor = operator_cli()
    assert actor.name == f"cli:{getpass.getuser()}"
    assert (actor.business, actor.scopes) == (None, frozenset(get_args(Scope)))


def test_user_id_without_a_name_may_run_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert operator_cli().name == "cli:unknown"
