"""What a hook decides, as the parties and the record see it; and a caller that hangs up while it is asked."""

from __future__ import annotations

import pytest

from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.model.settings import Announcements
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.ladder import Ladder, connect, hang_up, restart
from tests.ladder.settings import AXB, A, X
from tests.ladder.test_announcements import hears, sounds
from tests.ladder.test_cancel import cancel

REFUSAL = Refusal("verification_refused", 403, 21, business="shop", decided_by="hook")


def test_a_refused_caller_hears_the_announcement_that_the_hook_names() -> None:
    ladder = AnchoredLadder(
        routes={(X, A): REFUSAL._replace(announce="outside_hours")}, announcements=Announcements(refused=True)
    )
    ladder.caller.calls(X)
    hears(ladder, 403)
    assert sounds(ladder) == ["outside_hours"]
    record = ladder.record
    assert (record.outcome, record.business, record.decided_by) == ("verification_refused", "shop", "hook")


def test_without_announcements_the_caller_is_refused_at_once() -> None:
    ladder = Ladder(routes={(X, A): REFUSAL._replace(announce="outside_hours")})
    ladder.caller.calls(X)
    ladder.caller.is_refused(403)
    ladder.settle()


def test_the_record_says_who_decided_also_after_a_restart() -> None:
    decided = {way: route._replace(decided_by="hook") for way, route in AXB.items() if isinstance(route, Route)}
    ladder = Ladder(routes=decided)
    connect(ladder)
    restart(ladder)
    hang_up(ladder)
    ladder.settle()
    assert (ladder.record.outcome, ladder.record.decided_by) == ("answered", "hook")


def test_a_caller_that_hangs_up_has_given_up_the_look_up(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    (asked,) = ladder._held
    assert isinstance(asked, LookUp)
    assert not asked.given_up
    cancel(ladder)
    assert asked.given_up
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.settle()


@pytest.mark.parametrize("kind", ["call", "message"])
def test_a_call_that_was_routed_has_not_given_up_the_look_up(kind: str) -> None:
    """Its record says that it was, and so it counts towards caps on frequency, also if no peer takes it."""
    ladder = Ladder(tried=(), sms=True)
    ladder.hold_look_ups = True
    if kind == "call":
        ladder.caller.calls(X)
    else:
        ladder.caller.texts(X)
    (asked,) = ladder._held
    assert isinstance(asked, LookUp)
    ladder.release()
    assert ladder.record.routed_at is not None
    assert ladder.record.end_reason == "no_peer"
    assert not asked.given_up
