"""Changing, renewing and ending bindings: the effect on the next call, and the history."""

from __future__ import annotations

from typing import Any

import pytest

from relay.call.binding import Binding
from relay.call.routing import Route
from relay.errors import Refused
from relay.service.changes import BindingChange, Step, change, end, renew, steps
from relay.service.groups import make_group
from relay.service.lists import set_entry
from relay.store.act import Actor
from relay.store.bindings import history
from tests.ladder.ladder import Ladder, connect
from tests.service.conftest import COOL_MS, RULES, Desk
from tests.support.stored import NOW_MS, A, B, X, Y

C, D = "8613700000003", "8613600000004"
HOUR_MS = 3_600_000


def changed(desk: Desk, binding: Binding, **asked: Any) -> Binding:
    return desk.run(lambda act: change(act, binding.binding_id, BindingChange(**asked), RULES))


def refused(desk: Desk, binding: Binding, **asked: Any) -> tuple[str, str]:
    """The kind and field of the refusal, after which the binding is unchanged."""
    before = desk.binding(binding.binding_id)
    with pytest.raises(Refused) as refusal:
        changed(desk, binding, **asked)
    assert desk.binding(binding.binding_id) == before
    return refusal.value.kind, refusal.value.field


# Effect on the next call


def test_a_changed_b_replaces_the_old_one_in_both_directions(desk: Desk) -> None:
    made = desk.bind(x=X)
    changed(desk, made, b=C)
    assert desk.reaches(X, A) == C
    assert desk.reaches(X, C) == A
    assert desk.reaches(X, B) == "no_binding"


def test_a_changed_a_replaces_the_old_one_in_both_directions(desk: Desk) -> None:
    made = desk.bind("AXYB", x=X, y=Y)
    changed(desk, made, a=C)
    assert desk.reaches(Y, B) == C
    assert desk.reaches(X, C) == B
    assert desk.reaches(X, A) == "no_binding"


def test_a_and_b_can_be_swapped(desk: Desk) -> None:
    made = desk.bind(x=X, direction="a_to_b")
    changed(desk, made, a=B, b=A)
    assert desk.reaches(X, B) == A
    assert desk.reaches(X, A) == "direction_barred"


def test_a_changed_expiry_applies(desk: Desk) -> None:
    made = desk.bind(x=X, expires_in="1h")
    changed(desk, made, expires_in="2h")
    desk.now_ms += 2 * HOUR_MS - 1
    assert desk.reaches(X, A) == B
    changed(desk, made, expires_in="")
    desk.now_ms += 24 * HOUR_MS
    assert desk.reaches(X, A) == B
    desk.run(lambda act: renew(act, made.binding_id, "1s", RULES))
    desk.now_ms += 1_000
    assert desk.reaches(X, A) == "expired"


def test_a_changed_group_replaces_the_old_members(desk: Desk) -> None:
    old = desk.run(lambda act: make_group(act, "day", RULES, numbers=["13700000003"]))
    new = desk.run(lambda act: make_group(act, "night", RULES, numbers=["13600000004"]))
    made = desk.bind("GXB", "", group_id=old.group_id, x=X)
    changed(desk, made, group_id=new.group_id)
    assert desk.reaches(X, D) == B
    assert desk.reaches(X, C) == "no_binding"


def test_changed_restrictions_apply(desk: Desk) -> None:
    made = desk.bind(x=X)
    changed(desk, made, direction="b_to_a")
    assert (desk.reaches(X, A), desk.reaches(X, B)) == ("direction_barred", A)
    changed(desk, made, direction="both", hours="09:00-18:00")  # NOW_MS is 08:00 in China
    assert desk.reaches(X, A) == "outside_hours"
    changed(desk, made, hours="", white_only=True)
    assert desk.reaches(X, A) == "caller_not_listed"
    desk.run(lambda act: set_entry(act, "binding", made.binding_id, A, "white"))
    assert desk.reaches(X, A) == B


def route_with(desk: Desk, **asked: int) -> Route:
    made = desk.bind(x=X, max_call_s=20, ring_timeout_s=7)
    changed(desk, made, **asked)
    answer = desk.call(X, A)
    assert isinstance(answer, Route)
    return answer


def test_a_call_ends_after_max_call_s_of_its_binding(desk: Desk) -> None:
    ladder = Ladder({(X, A): route_with(desk, max_call_s=60)})
    connect(ladder)
    ladder.run(59.9)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    for side in (ladder.caller, ladder.callee):
        side.expects("BYE")
    assert ladder.record.end_reason == "max_duration"
    ladder.settle()


def test_ringing_ends_after_ring_timeout_s_of_the_binding(desk: Desk) -> None:
    ladder = Ladder({(X, A): route_with(desk, ring_timeout_s=30)})
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


def test_a_cleared_field_is_unset(desk: Desk) -> None:
    made = desk.bind(x=X, max_call_s=60, ring_timeout_s=30, hours="09:00-18:00", user_data="u1", expires_in="1h")
    new = changed(desk, made, max_call_s=0, ring_timeout_s=0, hours="", user_data="", expires_in="")
    assert new[:5] == made[:5]
    for name in ("max_call_s", "ring_timeout_s", "hours", "user_data", "expires_at"):
        assert getattr(new, name) is None


def test_calls_are_refused_after_unbinding(desk: Desk) -> None:
    made = desk.bind("AXYB", x=X, y=Y)
    ended = desk.run(lambda act: end(act, made.binding_id, RULES, "delivered"))
    assert (ended.ended_at, ended.ended_by) == (NOW_MS, desk.actor.name)
    assert desk.binding(made.binding_id) == ended
    assert (desk.reaches(X, A), desk.reaches(Y, B)) == ("no_binding", "no_binding")


# Refusals


def test_a_party_bound_on_the_number_cannot_join_a_second_binding(desk: Desk) -> None:
    made = desk.bind(x=X)
    desk.bind("AXB", "13700000003", "13600000004", x=X)
    assert refused(desk, made, b=C) == ("conflict", "b")
    assert desk.reaches(X, A) == B
    assert desk.reaches(X, C) == D


def test_a_replaced_party_cools_down_and_may_return_to_the_same_party_only(desk: Desk) -> None:
    made = desk.bind(x=X)
    changed(desk, made, b=C)
    with pytest.raises(Refused) as refusal:
        desk.bind("AXB", "13600000004", "13900000002", x=X)
    assert (refusal.value.kind, refusal.value.field) == ("number_cooling", "b")
    assert changed(desk, made, b=B).b == B
    changed(desk, made, b=C)
    desk.now_ms += COOL_MS
    assert desk.bind("AXB", "13600000004", "13900000002", x=X).x == X


def test_the_last_two_parties_may_rebind_at_once_after_unbinding(desk: Desk) -> None:
    made = desk.bind(x=X)
    changed(desk, made, b=C)
    desk.now_ms += COOL_MS
    desk.run(lambda act: end(act, made.binding_id, RULES))
    with pytest.raises(Refused):
        desk.bind(x=X)
    assert desk.bind("AXB", "13800000001", "13700000003", x=X).x == X


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
    desk: Desk, asked: dict[str, Any], kind: str, field: str
) -> None:
    assert refused(desk, desk.bind(x=X), **asked) == (kind, field)


@pytest.mark.parametrize("mode", ["AXB", "GXB", "AXN"])
def test_a_refused_change_does_not_confirm_a_guess_of_the_other_party(desk: Desk, mode: str) -> None:
    """Otherwise a key without parties:read that sees 139****0002 could try the ten thousand numbers behind it."""
    group = desk.run(lambda act: make_group(act, "riders", RULES, "default", [A]).group_id) if mode == "GXB" else ""
    made = desk.bind(mode, x=X, a=A if mode != "GXB" else D, b=B, group_id=group)
    assert refused(desk, made, a=B, group_id="none") == refused(desk, made, a=C, group_id="none")


def test_an_ended_or_expired_binding_cannot_be_changed(desk: Desk) -> None:
    unbound = desk.bind(x=X)
    desk.run(lambda act: end(act, unbound.binding_id, RULES))
    assert refused(desk, unbound, b=C) == ("ended", "binding")
    with pytest.raises(Refused, match="already unbound"):
        desk.run(lambda act: end(act, unbound.binding_id, RULES))
    expired = desk.bind(x=Y, expires_in="1h")
    desk.now_ms += HOUR_MS
    assert refused(desk, expired, expires_in="2h") == ("ended", "binding")
    with pytest.raises(Refused, match="expires_in: required"):
        desk.run(lambda act: renew(act, expired.binding_id, " ", RULES))


def test_a_binding_of_another_business_user_is_not_found(desk: Desk) -> None:
    desk.business("acme")
    made = desk.bind(x=X)
    desk.key_of("acme")
    assert refused(desk, made, b=C) == ("not_found", "binding")
    with pytest.raises(Refused, match="there is no such binding"):
        desk.run(lambda act: end(act, made.binding_id, RULES))


# History


def test_steps_name_actor_time_and_changed_fields(desk: Desk) -> None:
    first, second = desk.actor.name, "key:k2"
    made = desk.bind(x=X)
    desk.now_ms += 1
    changed(desk, made, b=C, user_data="u2")
    desk.now_ms += 1
    desk.actor = Actor(second, None, frozenset())
    changed(desk, made, direction="a_to_b")
    changed(desk, made, direction="a_to_b")  # no change
    desk.now_ms += 1
    ended = desk.run(lambda act: end(act, made.binding_id, RULES))
    assert (ended.version, ended.changed_at, ended.changed_by) == (3, NOW_MS + 2, second)
    assert steps(desk.connection, desk.sealer, ended) == [
        Step("made", NOW_MS, first, []),
        Step("changed", NOW_MS + 1, first, ["b", "user_data"]),
        Step("changed", NOW_MS + 2, second, ["direction"]),
        Step("ended", NOW_MS + 3, second, []),
    ]
    past = history(desk.connection, desk.sealer, made.binding_id)
    assert [(form.version, form.b, form.user_data) for form in past] == [(1, B, None), (2, C, "u2")]


def test_an_industrial_id_can_be_set_and_cleared(desk: Desk) -> None:
    made = desk.bind(x=X)
    named = changed(desk, made, industrial_id="88.101.1/7")
    assert (made.industrial_id, named.industrial_id) == (None, "88.101.1/7")
    gone = changed(desk, named, industrial_id="")
    assert (gone.industrial_id, desk.binding(made.binding_id)) == (None, gone)
    found = steps(desk.connection, desk.sealer, gone)
    assert [step.changed for step in found] == [[], ["industrial_id"], ["industrial_id"]]


def test_recording_can_be_switched_on_and_off(desk: Desk) -> None:
    made = desk.bind(x=X)
    assert refused(desk, made, record=True) == ("invalid", "record")

    def recorded(wanted: bool) -> bool:
        asked = BindingChange(record=wanted)
        desk.run(lambda act: change(act, made.binding_id, asked, RULES._replace(recording=True)))
        route = desk.call(X, A)
        assert isinstance(route, Route)
        return route.record

    assert recorded(True)
    changed(desk, made, max_call_s=60)  # possible although recording is no longer configured
    assert not recorded(False)
    now = desk.binding(made.binding_id)
    assert now is not None
    kept = steps(desk.connection, desk.sealer, now)
    assert [step.changed for step in kept] == [[], ["record"], ["max_call_s"], ["record"]]
