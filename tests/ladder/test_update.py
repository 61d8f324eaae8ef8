"""UPDATE (RFC 3311) in early and confirmed dialogs, and together with a re-INVITE."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import EITHER, Ladder, answer, answer_pending, call, connected, hang_up, restart, sides, update
from tests.ladder.side import Side


def early(ladder: Ladder, by: str) -> tuple[Side, Side]:
    """The asking and the asked side of an early dialog."""
    call(ladder)
    ladder.callee.proceeds(183, body=ANSWER)
    return sides(ladder, by)


@EITHER
@pytest.mark.parametrize("offer", [HOLD, b""])
def test_update_is_relayed(ladder: Ladder, by: str, offer: bytes) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(offer)
    update = asked.expects("UPDATE", body=HELD if offer else b"")
    assert bool(update.body) == bool(offer)
    assert update.contact is not None
    assert bool(asking.get(200).body) == bool(offer)
    hang_up(ladder)


@EITHER
def test_update_in_an_early_dialog_is_relayed(ladder: Ladder, by: str) -> None:
    asking, asked = early(ladder, by)
    update(asking, asked)
    answer(ladder, HELD)
    hang_up(ladder)


@EITHER
def test_update_in_an_early_dialog_that_ends(ladder: Ladder, by: str) -> None:
    asking, asked = early(ladder, by)
    asking.updates(HOLD)
    update = asked.get_request("UPDATE")
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    asked.answers(481, update)
    asking.get(481)
    ladder.settle()


@EITHER
def test_update_glare_is_491(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(HOLD)
    asked.updates(HOLD)
    update = asked.get_request("UPDATE")
    asked.get(491)
    asked.answers(491, update)
    asking.get(491)
    hang_up(ladder)


@EITHER
def test_second_update_of_the_same_side_is_500_with_retry_after(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(HOLD)
    asking.updates(HOLD)
    assert asking.get_response(500).get("retry-after")
    asked.expects("UPDATE", body=HELD)
    asking.get(200)
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("offer", [HOLD, b""], ids=["with SDP", "without SDP"])
def test_update_with_sdp_during_a_reinvite_is_491(ladder: Ladder, by: str, offer: bytes) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    if offer:
        asked.updates(offer)
        asked.get(491)
    else:
        update(asked, asking, b"", b"")
    asked.accepts(invite, body=HELD)
    asking.is_answered()
    hang_up(ladder)


def test_update_of_the_callee_before_the_callers_ack_is_491(ladder: Ladder) -> None:
    """The callee may send it once it has answered (RFC 3311 5.1); the caller may not know the dialog yet."""
    call(ladder)
    answer_pending(ladder)
    ladder.callee.updates(HOLD)
    ladder.callee.get(491)
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize(("status", "shown"), [(488, 488), (504, 500), (401, 488), (491, 491)])
def test_refused_update_leaves_the_call_up(ladder: Ladder, by: str, status: int, shown: int) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(HOLD)
    asked.expects("UPDATE", status)
    asking.get(shown)
    update(asking, asked)
    hang_up(ladder)


@EITHER
def test_updates_faster_than_the_store_are_committed_one_at_a_time(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    before = ladder.commits
    ladder.hold_commits = True
    for _ in range(5):
        update(asking, asked)
    ladder.release()
    assert ladder.commits == before + 2
    restart(ladder)  # with the state of the last one
    update(asking, asked)
    hang_up(ladder)
