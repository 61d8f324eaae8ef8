"""Which dialogs belong to which call is told as they begin, for capture. `Ladder.settle` checks it for each record."""

from __future__ import annotations

from relay.model.actions import CaptureLink
from relay.sip.message import Request
from tests.ladder.ladder import Ladder, answer, call, ring
from tests.ladder.settings import SECOND_HOST, X
from tests.ladder.test_logins import called as called
from tests.ladder.test_logins import registers
from tests.ladder.test_registrations import begun, grants
from tests.ladder.texts import texting


def told(ladder: Ladder) -> list[tuple[str, str, str, str]]:
    return [(link.side, link.sip_call_id, link.peer, link.flow.host) for link in ladder.links]


def with_second() -> Ladder:
    ladder = Ladder(tried=("carrier", "second"))
    ladder.side(SECOND_HOST, "carol")
    return ladder


def to_both(ladder: Ladder) -> tuple[Request, Request]:
    """A call that goes on to the second target, while the first may still ring."""
    first = call(ladder)
    ladder.run(ladder.settings.no_progress_s + 0.1)
    return first, ladder.sides[SECOND_HOST].get_request("INVITE")


def test_each_target_that_is_tried_is_told_before_its_invite_goes_out() -> None:
    ladder = with_second()
    first, second = to_both(ladder)
    assert told(ladder) == [
        ("caller", "alice-call", "pbx", ladder.caller.host),
        ("callee", first.call_id, "carrier", ladder.callee.host),
        ("callee", second.call_id, "second", SECOND_HOST),
    ]
    assert len({link.call_id for link in ladder.links}) == 1


def test_after_a_crash_each_target_that_may_still_ring_is_told_again() -> None:
    ladder = with_second()
    first, second = to_both(ladder)
    before = told(ladder)
    ladder.restart()
    assert told(ladder) == before
    assert {link.call_id for link in ladder.links} == {ladder.record.call_id}
    assert {first.call_id, second.call_id} < {link.sip_call_id for link in ladder.links}


def test_after_a_restart_both_dialogs_of_a_live_call_are_told_again(ladder: Ladder) -> None:
    ring(ladder)
    answer(ladder)
    before = told(ladder)
    ladder.restart()
    assert told(ladder) == before


def test_a_text_message_is_told_with_each_target() -> None:
    ladder = texting()
    ladder.caller.texts(X)
    message = ladder.callee.expects("MESSAGE")
    assert told(ladder) == [
        ("caller", ladder.caller.call_id, "pbx", ladder.caller.host),
        ("callee", message.call_id, "carrier", ladder.callee.host),
    ]
    ladder.settle()


def test_our_registration_is_told_under_the_peer() -> None:
    ladder = begun()
    register = grants(ladder.callee)
    assert told(ladder) == [("callee", register.call_id, "carrier", ladder.callee.host)]
    assert ladder.links[0].call_id == "register:carrier"


def test_a_registration_here_is_told_under_the_peer_once_it_is_authenticated(called: Ladder) -> None:
    registers(called.callee)
    assert told(called) == [("caller", "bob-registration", "phone", called.callee.host)]
    assert called.links[0].call_id == "register:phone"


def test_nothing_is_told_unless_it_is_wanted(ladder: Ladder) -> None:
    ladder.engine.links = False
    ring(ladder)
    assert ladder.links == list[CaptureLink]()
