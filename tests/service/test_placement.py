"""Release of numbers: when a binding is ended, or by the sweep after it has expired."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from relay.errors import Refused
from relay.events.webhooks import make as make_webhook
from relay.service import placement
from relay.service.bindings import end
from relay.service.placement import release_due
from relay.store.database import connect
from relay.store.webhooks import next_events
from tests.service.conftest import COOL_MS, RULES, Backend
from tests.support.stored import NOW_MS, PREFIX, A, X, Y

HOUR_MS = 3_600_000


def swept(backend: Backend) -> int:
    return backend.run(lambda unit: release_due(unit, RULES))


def number(backend: Backend, number: str) -> tuple[int, int]:
    """The count of bindings of a number, and the end of its cool-down."""
    bindings, cools_until = backend.one("SELECT bindings, cools_until FROM number WHERE number = ?", number)
    return bindings, cools_until


def told(backend: Backend, webhook: str) -> list[tuple[str, dict[str, Any]]]:
    """The queued events of a webhook, in order."""
    events = next_events(backend.connection, backend.sealer, webhook, 50)
    return [(event.kind, event.data or {}) for event in events]


def test_a_sweep_releases_expired_bindings_oldest_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    later = backend.bind("AXYB", x=X, y=Y, expires_in="2h")
    sooner = backend.bind("AXB", "8001", "8002", x=X, expires_in="1h")
    backend.now_ms += HOUR_MS - 1
    assert swept(backend) == 0
    backend.now_ms += HOUR_MS + 1
    monkeypatch.setattr(placement, "SWEEP", 1)
    assert swept(backend) == 1
    assert [backend.binding(made.binding_id).released_at for made in (sooner, later)] == [backend.now_ms, None]
    assert (number(backend, X), number(backend, Y)) == ((1, backend.now_ms + COOL_MS), (1, 0))
    assert (swept(backend), swept(backend)) == (1, 0)
    assert number(backend, X) == number(backend, Y) == (0, backend.now_ms + COOL_MS)
    assert backend.one("SELECT live FROM business_count WHERE business = 'default'") == (0,)


def test_an_expired_binding_releases_its_numbers_once(backend: Backend) -> None:
    backend.bind("AXB", "8001", "8002", x=X)
    made = backend.bind(x=X, expires_in="1h")
    backend.now_ms += HOUR_MS
    swept(backend)
    backend.now_ms += 5
    ended = backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert (ended.ended_at, ended.released_at) == (NOW_MS + HOUR_MS + 5, NOW_MS + HOUR_MS)
    assert number(backend, X)[0] == 1


def test_a_number_cools_down_from_its_release_even_if_the_sweep_is_late(backend: Backend) -> None:
    backend.bind(x=X, expires_in="1h")
    backend.now_ms += 2 * HOUR_MS
    assert backend.reaches(X, A) == "expired"
    swept(backend)
    backend.now_ms += COOL_MS - 1
    with pytest.raises(Refused) as refusal:
        backend.bind("AXB", "8001", "8002", x=X)
    assert refusal.value.kind == "number_cooling"
    backend.now_ms += 1
    backend.bind("AXB", "8001", "8002", x=X)


def test_an_expired_binding_does_not_count_against_the_quota(backend: Backend) -> None:
    backend.business("acme", max_bindings=1)
    backend.bind(x=X, business="acme", order_id="1", expires_in="1h")
    backend.now_ms += HOUR_MS
    assert backend.bind(x=X, business="acme", order_id="2").x == X


def test_expiry_and_cool_down_emit_events(backend: Backend) -> None:
    webhook, _ = backend.run(lambda unit: make_webhook(unit, "default", "https://platform.example/events"))
    backend.bind("AXB", "8001", "8002", x=X)
    first = backend.bind(x=X, expires_in="1h", order_id="17", user_data="u1", industrial_id="88.1/7")
    backend.now_ms += HOUR_MS
    swept(backend)
    ((kind, data),) = told(backend, webhook.id)
    assert (kind, data["binding_id"]) == ("binding.expired", first.binding_id)
    assert (data["order_id"], data["user_data"], data["industrial_id"]) == ("17", "u1", "88.1/7")
    assert data["expired_at"] == "2026-01-01T01:00:00.000Z"
    second = backend.bind("AXYB", "8003", "8004", x=f"{PREFIX}0007", y=Y)
    backend.run(lambda unit: end(unit, second.binding_id, RULES))
    events = told(backend, webhook.id)[1:]
    assert [(kind, data["number"]) for kind, data in events] == [
        ("number.cooling", f"{PREFIX}0007"),
        ("number.cooling", Y),
    ]
    assert events[0][1]["cools_until"] == "2026-01-02T01:00:00.000Z"


def test_expiry_of_a_binding_that_someone_gave_to_another_business_user_tells_nobody(backend: Backend) -> None:
    """Someone with the database: the event has the order and the user data."""
    backend.business("thief")
    webhook, _ = backend.run(lambda unit: make_webhook(unit, "thief", "https://thief.example/events"))
    backend.bind(x=X, expires_in="1h", order_id="17", user_data="u1")
    with closing(connect(backend.path)) as connection:
        connection.execute("UPDATE binding SET business = 'thief'")
        connection.execute("DELETE FROM ledger_touch")
    backend.now_ms += HOUR_MS
    assert swept(backend) == 1
    assert [kind for kind, _ in told(backend, webhook.id)] == ["number.cooling"]
