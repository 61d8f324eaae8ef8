"""Changing, renewing and ending bindings: the effect on the next call, and the history."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Refused
from relay.model.binding import RING_TIMEOUT_S, Binding
from relay.model.call import Route
from relay.service.bindings import HistoryEntry, end, renew, steps
from relay.service.groups import make_group, set_entry
from relay.service.hand_over import HandOver, hand_over
from relay.service.placement import release_due
from relay.store.bindings import IDLE_HOLD_MS, history, note_used
from relay.store.unit_of_work import Actor
from tests.ladder.ladder import Ladder, connect
from tests.service.conftest import COOL_MS, RULES, Backend
from tests.support.stored import NOW_MS, A, B, X, Y
from tests.support.written import change

C, D = "8613700000003", "8613600000004"
HOUR_MS = 3_600_000


def changed(backend: Backend, binding: Binding, **asked: Any) -> Binding:
    return backend.run(lambda unit: change(unit, binding.binding_id, asked, RULES))


def refused(backend: Backend, binding: Binding, **asked: Any) -> tuple[str, str]:
    """The kind and field of the refusal, after which the binding is unchanged."""
    before = backend.binding(binding.binding_id)
    with pytest.raises(Refused) as refusal:
        changed(backend, binding, **asked)
    assert backend.binding(binding.binding_id) == before
    return refusal.value.kind, refusal.value.field


# Effect on the next call


def used(backend: Backend, made: Binding) -> Binding:
    """The binding after a call that ends now."""
    backend.run(lambda unit: note_used(unit, {made.binding_id: unit.now_ms}))
    found: Binding = backend.binding(made.binding_id)
    return found


def test_each_call_moves_the_end_of_a_binding_with_an_idle_ttl(backend: Backend) -> None:
    made = backend.bind(x=X, idle_ttl_s=600, expires_in="1h")
    assert (made.expires_at, made.max_expires_at) == (NOW_MS + 600_000, NOW_MS + HOUR_MS)
    backend.now_ms += 599_999
    moved = used(backend, made)
    assert (moved.expires_at, moved.version) == (backend.now_ms + 600_000, made.version)
    backend.now_ms += 600_000
    assert backend.reaches(X, A) == "expired"
    assert used(backend, made).is_live(backend.now_ms)  # by a call that was up
    assert backend.reaches(X, A) == B
    backend.now_ms = NOW_MS + HOUR_MS - 1
    assert used(backend, made).expires_at == NOW_MS + HOUR_MS
    [step] = steps(backend.reader, backend.sealer, backend.binding(made.binding_id))
    assert step.action == "made"


def test_no_call_moves_the_end_of_other_or_former_bindings(backend: Backend) -> None:
    timed, forever, over = (
        backend.bind(expires_in="1h"),
        backend.bind("AXB", C, B),
        backend.bind("AXB", D, B, idle_ttl_s=600),
    )
    backend.run(lambda unit: end(unit, over.binding_id, RULES))
    backend.now_ms += 1_000
    for made in (timed, forever, over):
        assert used(backend, made).expires_at == made.expires_at


def test_numbers_are_released_after_the_idle_ttl_when_no_call_rings_any_more(backend: Backend) -> None:
    made = backend.bind(x=X, idle_ttl_s=600)
    backend.now_ms = NOW_MS + 600_000 + 1000 * RING_TIMEOUT_S[-1]
    assert backend.run(lambda unit: release_due(unit, RULES)) == 0
    backend.now_ms = NOW_MS + 600_000 + IDLE_HOLD_MS - 1
    assert backend.run(lambda unit: release_due(unit, RULES)) == 0
    backend.now_ms += 1
    assert backend.run(lambda unit: release_due(unit, RULES)) == 1
    assert used(backend, made).expires_at == made.expires_at


def test_an_idle_ttl_is_set_changed_and_removed(backend: Backend) -> None:
    made = backend.bind(expires_in="1h")
    backend.now_ms += 1_000
    made = changed(backend, made, idle_ttl_s=600)
    assert (made.expires_at, made.max_expires_at) == (backend.now_ms + 600_000, NOW_MS + HOUR_MS)
    backend.now_ms += 1_000
    assert used(backend, made).expires_at == backend.now_ms + 600_000
    made = changed(backend, made, hours="08:00-22:00")
    assert made.expires_at == backend.now_ms + 600_000
    made = changed(backend, made, expires_in="2h")
    assert (made.expires_at, made.max_expires_at) == (backend.now_ms + 600_000, backend.now_ms + 2 * HOUR_MS)
    made = changed(backend, made, idle_ttl_s=0)
    assert (made.expires_at, made.max_expires_at, made.idle_ttl_s) == (backend.now_ms + 2 * HOUR_MS, None, None)
    lived = [step.changed for step in steps(backend.reader, backend.sealer, made)]
    assert lived == [[], ["expires_at", "idle_ttl_s"], ["hours"], ["expires_at"], ["expires_at", "idle_ttl_s"]]
    assert refused(backend, made, idle_ttl_s=59) == ("invalid", "idle_ttl_s")


def test_a_changed_b_replaces_the_old_one_in_both_directions(backend: Backend) -> None:
    made = backend.bind(x=X)
    changed(backend, made, b=C)
    assert backend.reaches(X, A) == C
    assert backend.reaches(X, C) == A
    assert backend.reaches(X, B) == "no_binding"


def test_a_changed_a_replaces_the_old_one_in_both_directions(backend: Backend) -> None:
    made = backend.bind("AXYB", x=X, y=Y)
    changed(backend, made, a=C)
    assert backend.reaches(Y, B) == C
    assert backend.reaches(X, C) == B
    assert backend.reaches(X, A) == "no_binding"


@pytest.mark.parametrize(("mode", "y"), [("AXB", X), ("AXYB", Y)])
def test_nobody_reaches_b_until_a_is_given_and_again_once_it_is_taken_away(backend: Backend, mode: str, y: str) -> None:
    made = backend.bind(mode, "", x=X, late=True, **({"y": Y} if mode == "AXYB" else {}))
    assert [backend.reaches(X, A), backend.reaches(y, B), backend.reaches(X, "")] == [
        *("no_binding", "no_callee", "caller_anonymous"),
    ]
    changed(backend, made, a=A)
    assert [backend.reaches(X, A), backend.reaches(y, B), backend.reaches(X, C)] == [B, A, "no_binding"]
    changed(backend, made, a="")
    assert [backend.reaches(X, A), backend.reaches(y, B)] == ["no_binding", "no_callee"]
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert [backend.reaches(X, A), backend.reaches(y, B)] == ["no_binding", "no_binding"]


def test_a_late_a_is_checked_as_at_binding(backend: Backend) -> None:
    backend.bind("AXB", "13700000003", "13600000004", x=X)
    made = backend.bind("AXB", "", x=X, late=True)
    assert refused(backend, made, a=C) == ("conflict", "a")
    assert refused(backend, made, a=B) == ("invalid", "b")
    with pytest.raises(Refused, match="not filed"):
        backend.run(lambda unit: change(unit, made.binding_id, {"a": A}, RULES._replace(filing="require")))


def test_a_and_b_can_be_swapped(backend: Backend) -> None:
    made = backend.bind(x=X, direction="a_to_b")
    changed(backend, made, a=B, b=A)
    assert backend.reaches(X, B) == A
    assert backend.reaches(X, A) == "direction_barred"


def test_a_changed_expiry_applies(backend: Backend) -> None:
    made = backend.bind(x=X, expires_in="1h")
    changed(backend, made, expires_in="2h")
    backend.now_ms += 2 * HOUR_MS - 1
    assert backend.reaches(X, A) == B
    changed(backend, made, expires_in="")
    backend.now_ms += 24 * HOUR_MS
    assert backend.reaches(X, A) == B
    backend.run(lambda unit: renew(unit, made.binding_id, unit.now_ms + 1000, RULES))
    backend.now_ms += 1_000
    assert backend.reaches(X, A) == "expired"


def test_a_changed_group_replaces_the_old_members(backend: Backend) -> None:
    old = backend.run(lambda unit: make_group(unit, "day", RULES, numbers=["13700000003"]))
    new = backend.run(lambda unit: make_group(unit, "night", RULES, numbers=["13600000004"]))
    made = backend.bind("GXB", "", group_id=old.group_id, x=X)
    changed(backend, made, group_id=new.group_id)
    assert backend.reaches(X, D) == B
    assert backend.reaches(X, C) == "no_binding"


def test_changed_restrictions_apply(backend: Backend) -> None:
    made = backend.bind(x=X)
    changed(backend, made, direction="b_to_a")
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("direction_barred", A)
    changed(backend, made, direction="both", hours="09:00-18:00")  # NOW_MS is 08:00 in China
    assert backend.reaches(X, A) == "outside_hours"
    changed(backend, made, hours="", white_only=True)
    assert backend.reaches(X, A) == "caller_not_listed"
    backend.run(lambda unit: set_entry(unit, "binding", made.binding_id, A, "white"))
    assert backend.reaches(X, A) == B


def route_with(backend: Backend, **asked: int) -> Route:
    made = backend.bind(x=X, max_call_s=20, ring_timeout_s=7)
    changed(backend, made, **asked)
    answer = backend.call(X, A)
    assert isinstance(answer, Route)
    return answer


def test_a_call_ends_after_max_call_s_of_its_binding(backend: Backend) -> None:
    ladder = Ladder({(X, A): route_with(backend, max_call_s=60)})
    connect(ladder)
    ladder.run(59.9)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    for side in (ladder.caller, ladder.callee):
        side.expects("BYE")
    assert ladder.record.end_reason == "max_duration"
    ladder.settle()


def test_ringing_ends_after_ring_timeout_s_of_the_binding(backend: Backend) -> None:
    ladder = Ladder({(X, A): route_with(backend, ring_timeout_s=30)})
    ladder.caller.invites(X)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.run(29.9)
    ladder.callee.gets_nothing()
    ladder.run(0.2)
    ladder.callee.expects("CANCEL")
    ladder.callee.answers(487)
    ladder.callee.get("ACK")
    ladder.caller.get_response(480)
    ladder.caller.acks_refusal()
    assert ladder.record.end_reason == "ring_timeout"
    ladder.settle()


def test_a_cleared_field_is_unset(backend: Backend) -> None:
    made = backend.bind(x=X, max_call_s=60, ring_timeout_s=30, hours="09:00-18:00", user_data="u1", expires_in="1h")
    new = changed(backend, made, max_call_s=0, ring_timeout_s=0, hours="", user_data="", expires_in="")
    assert new[:5] == made[:5]
    for name in ("max_call_s", "ring_timeout_s", "hours", "user_data", "expires_at"):
        assert getattr(new, name) is None


def test_calls_are_refused_after_unbinding(backend: Backend) -> None:
    made = backend.bind("AXYB", x=X, y=Y)
    ended = backend.run(lambda unit: end(unit, made.binding_id, RULES, "delivered"))
    assert (ended.ended_at, ended.ended_by) == (NOW_MS, backend.actor.name)
    assert backend.binding(made.binding_id) == ended
    assert (backend.reaches(X, A), backend.reaches(Y, B)) == ("no_binding", "no_binding")


# Refusals


def test_a_party_bound_on_the_number_cannot_join_a_second_binding(backend: Backend) -> None:
    made = backend.bind(x=X)
    backend.bind("AXB", "13700000003", "13600000004", x=X)
    assert refused(backend, made, b=C) == ("conflict", "b")
    assert backend.reaches(X, A) == B
    assert backend.reaches(X, C) == D


def test_a_replaced_party_cools_down_and_may_return_to_the_same_party_only(backend: Backend) -> None:
    made = backend.bind(x=X)
    changed(backend, made, b=C)
    with pytest.raises(Refused) as refusal:
        backend.bind("AXB", "13600000004", "13900000002", x=X)
    assert (refusal.value.kind, refusal.value.field) == ("number_cooling", "b")
    assert changed(backend, made, b=B).b == B
    changed(backend, made, b=C)
    backend.now_ms += COOL_MS
    assert backend.bind("AXB", "13600000004", "13900000002", x=X).x == X


def test_the_last_two_parties_may_rebind_at_once_after_unbinding(backend: Backend) -> None:
    made = backend.bind(x=X)
    changed(backend, made, b=C)
    backend.now_ms += COOL_MS
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    with pytest.raises(Refused):
        backend.bind(x=X)
    assert backend.bind("AXB", "13800000001", "13700000003", x=X).x == X


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        ({"b": A}, "invalid", "b"),
        ({"b": ""}, "invalid", "b"),
        ({"b": X}, "invalid", "b"),
        ({"group_id": "g1"}, "invalid", "group_id"),
        ({"expires_in": "soon"}, "invalid", "expires_in"),
        ({"expires_in": "2020-01-01T00:00:00Z"}, "invalid", "expires_in"),
        ({"direction": "up"}, "invalid", "direction"),
        ({"max_call_s": 9}, "invalid", "max_call_s"),
        ({"ring_timeout_s": 4}, "invalid", "ring_timeout_s"),
        ({"hours": "8-22"}, "invalid", "hours"),
        ({"user_data": "x" * 1025}, "invalid", "user_data"),
        ({"industrial_id": "88 1"}, "invalid", "industrial_id"),
        ({"b": C, "version": 7}, "state_conflict", "version"),
    ],
)
def test_an_invalid_field_is_named_and_nothing_changes(
    backend: Backend, asked: dict[str, Any], kind: str, field: str
) -> None:
    assert refused(backend, backend.bind(x=X), **asked) == (kind, field)


@pytest.mark.parametrize("mode", ["AXB", "GXB", "AXN"])
def test_a_refused_change_does_not_confirm_a_guess_of_the_other_party(backend: Backend, mode: str) -> None:
    """Otherwise a key without parties:read that sees 139****0002 could try the ten thousand numbers behind it."""
    group = (
        backend.run(lambda unit: make_group(unit, "riders", RULES, "default", [A]).group_id) if mode == "GXB" else ""
    )
    made = backend.bind(mode, x=X, a=A if mode != "GXB" else D, b=B, group_id=group)
    assert refused(backend, made, a=B, group_id="none") == refused(backend, made, a=C, group_id="none")


def test_a_released_binding_stays_expired_when_the_clock_is_set_back(backend: Backend) -> None:
    made = backend.bind(x=X, expires_in="60s", order_id="SF1")
    backend.now_ms = NOW_MS + 61_000
    assert backend.run(lambda unit: release_due(unit, RULES)) == 1
    backend.now_ms = NOW_MS + 59_000
    with pytest.raises(Refused, match="already expired"):
        backend.run(lambda unit: renew(unit, made.binding_id, NOW_MS + HOUR_MS, RULES))
    assert refused(backend, made, b=C) == ("ended", "binding")
    over = HandOver("default", C, None, ["SF1"])
    [result], _ = backend.run(lambda unit: hand_over(unit, over, "", RULES))
    assert result.refused is not None and result.refused.kind == "not_found"
    assert backend.binding(made.binding_id) == made._replace(released_at=NOW_MS + 61_000)


def test_an_ended_or_expired_binding_cannot_be_changed(backend: Backend) -> None:
    unbound = backend.bind(x=X)
    backend.run(lambda unit: end(unit, unbound.binding_id, RULES))
    assert refused(backend, unbound, b=C) == ("ended", "binding")
    with pytest.raises(Refused, match="already unbound"):
        backend.run(lambda unit: end(unit, unbound.binding_id, RULES))
    expired = backend.bind(x=Y, expires_in="1h")
    backend.now_ms += HOUR_MS
    assert refused(backend, expired, expires_in="2h") == ("ended", "binding")
    with pytest.raises(Refused, match="expires_in: required"):
        backend.run(lambda unit: renew(unit, expired.binding_id, None, RULES))


def test_a_binding_of_another_business_user_is_not_found(backend: Backend) -> None:
    backend.business("acme")
    made = backend.bind(x=X)
    backend.key_of("acme")
    assert refused(backend, made, b=C) == ("not_found", "binding")
    with pytest.raises(Refused, match="there is no such binding"):
        backend.run(lambda unit: end(unit, made.binding_id, RULES))


# History


def test_steps_name_actor_time_and_changed_fields(backend: Backend) -> None:
    first, second = backend.actor.name, "key:k2"
    made = backend.bind(x=X)
    backend.now_ms += 1
    changed(backend, made, b=C, user_data="u2")
    backend.now_ms += 1
    backend.actor = Actor(second, None, frozenset())
    changed(backend, made, direction="a_to_b")
    changed(backend, made, direction="a_to_b")  # no change
    backend.now_ms += 1
    ended = backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert (ended.version, ended.changed_at, ended.changed_by) == (3, NOW_MS + 2, second)
    assert steps(backend.connection, backend.sealer, ended) == [
        HistoryEntry("made", NOW_MS, first, []),
        HistoryEntry("changed", NOW_MS + 1, first, ["b", "user_data"]),
        HistoryEntry("changed", NOW_MS + 2, second, ["direction"]),
        HistoryEntry("ended", NOW_MS + 3, second, []),
    ]
    past = history(backend.connection, backend.sealer, made.binding_id)
    assert [(form.version, form.b, form.user_data) for form in past] == [(1, B, None), (2, C, "u2")]


def test_an_industrial_id_can_be_set_and_cleared(backend: Backend) -> None:
    made = backend.bind(x=X)
    named = changed(backend, made, industrial_id="88.101.1/7")
    assert (made.industrial_id, named.industrial_id) == (None, "88.101.1/7")
    gone = changed(backend, named, industrial_id="")
    assert (gone.industrial_id, backend.binding(made.binding_id)) == (None, gone)
    found = steps(backend.connection, backend.sealer, gone)
    assert [step.changed for step in found] == [[], ["industrial_id"], ["industrial_id"]]


def test_recording_can_be_switched_on_and_off(backend: Backend) -> None:
    made = backend.bind(x=X)
    assert refused(backend, made, record=True) == ("invalid", "record")

    def recorded(wanted: bool) -> bool:
        asked = {"record": wanted}
        backend.run(lambda unit: change(unit, made.binding_id, asked, RULES._replace(recording=True)))
        route = backend.call(X, A)
        assert isinstance(route, Route)
        return route.record

    assert recorded(True)
    changed(backend, made, max_call_s=60)  # possible although recording is no longer configured
    assert not recorded(False)
    now = backend.binding(made.binding_id)
    assert now is not None
    kept = steps(backend.connection, backend.sealer, now)
    assert [step.changed for step in kept] == [[], ["record"], ["max_call_s"], ["record"]]
