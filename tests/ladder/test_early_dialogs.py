"""What a callee makes the relay keep while a call rings: it may send early dialogs without end."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from relay.call.leg import Leg
from relay.sip.dialog import LONGEST_ROUTE_SET, MOST_ROUTES
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, as_long_as
from tests.ladder.ladder import Ladder, call, complete, hang_up, ring
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, X

MOST_KEPT = 512 * 1024  # bytes of a ringing call
LONG_SDP = as_long_as(65_000)
FITS = as_long_as(16_000)
OF_CALLER = f"Record-Route: <sip:{CALLER_HOST};lr>{',ab' * 4600}\r\n"
OF_CALLEE = f"Record-Route: {'ab,' * 4600}<sip:{CALLEE_HOST};lr>\r\n"
PROXIES = [f"<sip:proxy;{'x' * 180}>"] * (MOST_ROUTES - 1)
LONGEST_FITTING = f"Record-Route: {','.join(PROXIES)},<sip:{CALLEE_HOST};lr>\r\n"


@pytest.fixture(params=[Ladder, AnchoredLadder])
def ladder(request: pytest.FixtureRequest) -> Ladder:
    made: Ladder = request.param()
    return made


def kept(ladder: Ladder) -> int:
    """Bytes of what the early dialogs of all calls keep."""
    legs = ladder.engine._dialogs.legs.values()
    forks = [each.media.forks for each in ladder.engine._calls.by_invite.values() if each.media is not None]
    return sum(map(of_leg, legs)) + sum(len(sdp) for each in forks for sdp in each.values())


def of_leg(leg: Leg) -> int:
    dialog, reliable = leg.dialog, leg.reliable
    texts: list[object] = [dialog.route_set, *dialog.route_set, dialog.request_head, dialog.remote_target]
    texts += [dialog.remote_tag, leg.writer._last, b"" if reliable is None else reliable._data]
    return sum(map(sys.getsizeof, texts))


@pytest.mark.parametrize(
    ("sdp", "headers"),
    [(LONG_SDP, OF_CALLEE), (FITS, OF_CALLEE), (LONG_SDP, ""), (FITS, LONGEST_FITTING), (FITS, "")],
    ids=["both too long", "long route set", "long SDP", "the most that passes", "only a long tag"],
)
@pytest.mark.parametrize("reliable", [False, True])
def test_a_callee_cannot_fill_memory_by_early_dialogs(ladder: Ladder, sdp: bytes, headers: str, reliable: bool) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    before = kept(ladder)
    for number in range(32):
        rseq = "Require: 100rel\r\nRSeq: 1\r\n" if reliable else ""
        tag = f"fork-{number}-{'x' * (15_000 - len(headers))}"
        ladder.callee.answers(183, body=sdp, tag=tag, headers=headers + rseq)
    assert kept(ladder) - before <= MOST_KEPT
    ladder.caller.inbox.clear()
    ladder.caller.gives_up()
    ladder.callee.is_cancelled()
    ladder.settle()


def too_long_routes() -> dict[str, Callable[[str], str]]:
    return {
        "many": lambda host: "Record-Route: " + ",".join([f"<sip:{host};lr>"] * (MOST_ROUTES + 1)) + "\r\n",
        "long": lambda host: f"Record-Route: <sip:{host};lr;{'x' * LONGEST_ROUTE_SET}>\r\n",
        "lines": lambda host: f"Record-Route: <sip:{host};lr>\r\n" * (MOST_ROUTES + 1),
    }


@pytest.mark.parametrize("way", too_long_routes())
def test_a_call_with_a_long_route_set_is_refused(ladder: Ladder, way: str) -> None:
    ladder.caller.calls(X, headers=too_long_routes()[way](CALLER_HOST))
    ladder.caller.is_refused(400)
    ladder.callee.gets_nothing()
    ladder.settle()


@pytest.mark.parametrize("way", too_long_routes())
def test_early_dialog_with_a_long_route_set_is_ignored(ladder: Ladder, way: str) -> None:
    call(ladder)
    ladder.callee.answers(180, headers=too_long_routes()[way](CALLEE_HOST))
    ladder.caller.gets_nothing()
    assert ladder.engine.statistics()["answers_unusable"] == 1
    complete(ladder)


@pytest.mark.parametrize("way", too_long_routes())
@pytest.mark.parametrize("rings", [False, True])
def test_answer_with_a_long_route_set_is_taken_down(ladder: Ladder, way: str, rings: bool) -> None:
    if rings:
        ring(ladder)
    else:
        call(ladder)
    ladder.callee.accepts(body=ANSWER, headers=too_long_routes()[way](CALLEE_HOST))
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(488)
    ladder.settle()


def test_the_longest_route_set_that_passes(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers=LONGEST_FITTING.replace(CALLEE_HOST, CALLER_HOST))
    ladder.callee.rings()
    ladder.callee.accepts(body=ANSWER, headers=LONGEST_FITTING)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_longest_sdp_is_refused(ladder: Ladder) -> None:
    ladder.caller.calls(X, body=LONG_SDP)
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(488)
    ladder.settle()
