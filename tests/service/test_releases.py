"""Release of numbers: when a binding is ended, or by the sweep after it has expired."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Refused
from relay.events.webhooks import make as make_webhook
from relay.service.changes import end
from relay.service.releases import release_due
from relay.store.outbox import oldest
from tests.service.conftest import COOL_MS, RULES, Desk
from tests.support.stored import NOW_MS, PREFIX, A, X, Y

HOUR_MS = 3_600_000


def swept(desk: Desk, most: int = 500) -> int:
    return desk.run(lambda act: release_due(act, RULES, most))


def number(desk: Desk, number: str) -> tuple[int, int]:
    """The count of bindings of a number, and the end of its cool-down."""
    bindings, cools_until = desk.one("SELECT bindings, cools_until FROM number WHERE number = ?", number)
    return bindings, cools_until


def told(desk: Desk, webhook: str) -> list[tuple[str, dict[str, Any]]]:
    """The queued events of a webhook, in order."""
    events = oldest(desk.connection, desk.sealer, webhook, 50)
    return [(event.kind, event.data or {}) for event in events]


def test_a_sweep_releases_expired_bindings_oldest_first(desk: Desk) -> None:
    later = desk.bind("AXYB", x=X, y=Y, expires_in="2h")
    sooner = desk.bind("AXB", "8001", "8002", x=X, expires_in="1h")
    desk.now_ms += HOUR_MS - 1
    assert swept(desk) == 0
    desk.now_ms += HOUR_MS + 1
    assert swept(desk, 1) == 1
    assert [desk.binding(made.binding_id).released_at for made in (sooner, later)] == [desk.now_ms, None]
    assert (number(desk, X), number(desk, Y)) == ((1, desk.now_ms + COOL_MS), (1, 0))
    assert (swept(desk), swept(desk)) == (1, 0)
    assert number(desk, X) == number(desk, Y) == (0, desk.now_ms + COOL_MS)
    assert desk.one("SELECT live_bindings FROM business WHERE id = 'default'") == (0,)


def test_an_expired_binding_releases_its_numbers_once(desk: Desk) -> None:
    desk.bind("AXB", "8001", "8002", x=X)
    made = desk.bind(x=X, expires_in="1h")
    desk.now_ms += HOUR_MS
    swept(desk)
    desk.now_ms += 5
    ended = desk.run(lambda act: end(act, made.binding_id, RULES))
    assert (ended.ended_at, ended.released_at) == (NOW_MS + HOUR_MS + 5, NOW_MS + HOUR_MS)
    assert number(desk, X)[0] == 1


def test_a_number_cools_down_from_its_release_even_if_the_sweep_is_late(desk: Desk) -> None:
    desk.bind(x=X, expires_in="1h")
    desk.now_ms += 2 * HOUR_MS
    assert desk.reaches(X, A) == "expired"
    swept(desk)
    desk.now_ms += COOL_MS - 1
    with pytest.raises(Refused) as refusal:
        desk.bind("AXB", "8001", "8002", x=X)
    assert refusal.value.kind == "number_cooling"
    desk.now_ms += 1
    desk.bind("AXB", "8001", "8002", x=X)


def test_an_expired_binding_does_not_count_against_the_quota(desk: Desk) -> None:
    desk.business("acme", max_bindings=1)
    desk.bind(x=X, business="acme", order_id="1", expires_in="1h")
    desk.now_ms += HOUR_MS
    assert desk.bind(x=X, business="acme", order_id="2").x == X


def test_expiry_and_cool_down_emit_events(desk: Desk) -> None:
    webhook, _ = desk.run(lambda act: make_webhook(act, "default", "https://platform.example/events"))
    desk.bind("AXB", "8001", "8002", x=X)
    first = desk.bind(x=X, expires_in="1h", order_id="17", user_data="u1", industrial_id="88.1/7")
    desk.now_ms += HOUR_MS
    swept(desk)
    ((kind, data),) = told(desk, webhook.id)
    assert (kind, data["binding_id"]) == ("binding.expired", first.binding_id)
    assert (data["order_id"], data["user_data"], data["industrial_id"]) == ("17", "u1", "88.1/7")
    assert data["expired_at"] == "2026-01-01T01:00:00.000Z"
    second = desk.bind("AXYB", "8003", "8004", x=f"{PREFIX}0007", y=Y)
    desk.run(lambda act: end(act, second.binding_id, RULES))
    events = told(desk, webhook.id)[1:]
    assert [(kind, data["number"]) for kind, data in events] == [
        ("number.cooling", f"{PREFIX}0007"),
        ("number.cooling", Y),
    ]
    assert events[0][1]["cools_until"] == "2026-01-02T01:00:00.000Z"
