"""Calls that the engine really made: retransmissions, attempts, early dialogs, and what was made from what."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.model.capture import CapturedCall
from relay.trace.ladder import Ladder as Shown
from relay.trace.ladder import LadderRow, View, build_ladder, operator_view
from tests.ladder.descriptions import ANSWER, HOLD, OFFER
from tests.ladder.ladder import Ladder, answer, connect, hang_up, reinvite, ring, update
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, X, peer
from tests.ladder.test_challenges import ACCOUNT, challenges
from tests.ladder.test_registrations import CHALLENGE, begun, grants
from tests.ladder.texts import deliver, texting

MASKED = operator_view(reveal=False)


def shown(ladder: Ladder, view: View = MASKED) -> Shown:
    """The ladder of the messages so far."""
    call = ladder.captured()
    record = ladder.records[call.call_id][0] if call.call_id in ladder.records else None
    return build_ladder(call, record, view)


def picture(ladder: Shown) -> list[str]:
    """Each row as "direction and lane, what, times, early dialog, source"."""
    return [_line(number, row) for number, row in enumerate(ladder.rows)]


def _line(number: int, row: LadderRow) -> str:
    times = f" x{len(row.again_at_us) + 1}" if row.again_at_us else ""
    source = "" if row.made_from is None else f" from {row.made_from}"
    return f"{number} {'to' if row.sent else 'by'} {row.lane}{row.early_dialog} {row.what}{times}{source}"


# -- Scenarios


def basic() -> Ladder:
    ladder = Ladder()
    connect(ladder)
    hang_up(ladder)
    return ladder


def failover() -> Ladder:
    ladder = Ladder(tried=("second", "carrier"))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    second.get("INVITE")
    second.answers(503)
    ladder.callee.rings()
    answer(ladder)
    hang_up(ladder, "callee")
    return ladder


def silent_target() -> Ladder:
    """The first target is silent, and answers once the second one rings."""
    ladder = Ladder(tried=("second", "carrier"))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.caller.calls(X)
    ladder.run(6.1)
    second.get("INVITE")
    second.inbox.clear()
    ladder.callee.rings()
    second.accepts(body=ANSWER)
    second.expects("BYE")
    answer(ladder)
    hang_up(ladder)
    return ladder


def early_dialogs() -> Ladder:
    ladder = Ladder()
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.proceeds(183, tag="one", body=ANSWER)
    ladder.callee.proceeds(180, tag="two")
    ladder.callee.accepts(tag="two", body=ANSWER)
    ladder.callee.tag = "two"
    ladder.caller.is_answered()
    hang_up(ladder)
    return ladder


def cancelled() -> Ladder:
    ladder = Ladder()
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(487)
    ladder.settle()
    return ladder


def cancel_crosses_the_answer() -> Ladder:
    ladder = Ladder()
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.settle()
    return ladder


def retransmitted() -> Ladder:
    ladder = Ladder()
    ladder.caller.calls(X)
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.run(1.6)
    ladder.callee.rings()
    ladder.callee.inbox.clear()
    ladder.callee.answers_again()
    ladder.callee.accepts(body=ANSWER)
    ladder.run(1)
    ladder.caller.inbox.clear()
    ladder.caller.sends("ACK", cseq=1)
    return ladder


def late_offer_and_prack() -> Ladder:
    ladder = Ladder()
    ladder.caller.calls(X, body=b"", headers="Supported: 100rel\r\n")
    ladder.callee.get("INVITE")
    ladder.callee.proceeds(183, body=OFFER, headers="Require: 100rel\r\nRSeq: 776655\r\n")
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=ANSWER)
    ladder.callee.expects("PRACK")
    ladder.caller.get(200)
    ladder.callee.answers(200)
    ladder.caller.is_answered()
    ladder.callee.get("ACK")
    hang_up(ladder)
    return ladder


def in_dialog() -> Ladder:
    ladder = Ladder()
    connect(ladder)
    reinvite(ladder.caller, ladder.callee)
    reinvite(ladder.callee, ladder.caller)
    update(ladder.caller, ladder.callee)
    return ladder


def challenged() -> Ladder:
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=ACCOUNT)))
    ladder.caller.calls(X)
    challenges(ladder.callee, ladder.callee.get_request("INVITE"))
    ladder.callee.proceeds(180)
    answer(ladder)
    ladder.caller.reinvites(HOLD)
    challenges(ladder.callee, ladder.callee.get_request("INVITE"), 407)
    return ladder


def crossing_requests() -> Ladder:
    """Two INFOs are relayed in their order, and answered in the other one."""
    ladder = Ladder()
    connect(ladder)
    for digit in (b"1", b"2"):
        ladder.caller.sends("INFO", body=b"Signal=" + digit, content_type="application/dtmf-relay")
    first, second = ladder.callee.get_request("INFO"), ladder.callee.get_request("INFO")
    ladder.callee.answers(200, second)
    ladder.callee.answers(200, first)
    return ladder


def text_message() -> Ladder:
    ladder = texting()
    deliver(ladder.caller, ladder.callee)
    return ladder


def refused_by_the_relay() -> Ladder:
    ladder = Ladder()
    ladder.caller.invites(X[:11] + "9999")
    ladder.caller.is_refused(403)
    return ladder


def ended_by_the_relay() -> Ladder:
    ladder = Ladder()
    connect(ladder)
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    return ladder


SCENARIOS: dict[Callable[[], Ladder], str] = {
    basic: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 1 200 OK
        6 to 1 ACK
        7 to 0 200 OK from 5
        8 by 0 ACK
        9 by 0 BYE
        10 to 1 BYE from 9
        11 to 0 200 OK (BYE)
        12 by 1 200 OK (BYE)
    """,
    failover: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 503 Service Unavailable
        4 to 1 ACK
        5 to 2 INVITE from 0
        6 by 2 180 Ringing
        7 to 0 180 Ringing from 6
        8 by 2 200 OK
        9 to 2 ACK
        10 to 0 200 OK from 8
        11 by 0 ACK
        12 by 2 BYE
        13 to 0 BYE from 12
        14 to 2 200 OK (BYE)
        15 by 0 200 OK (BYE)
    """,
    silent_target: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE x4 from 0
        3 to 2 INVITE from 0
        4 by 2 180 Ringing
        5 to 0 180 Ringing from 4
        6 by 1 200 OK
        7 to 1 ACK
        8 to 1 BYE
        9 by 1 200 OK (BYE)
        10 by 2 200 OK
        11 to 2 ACK
        12 to 0 200 OK from 10
        13 by 0 ACK
        14 by 0 BYE
        15 to 2 BYE from 14
        16 to 0 200 OK (BYE)
        17 by 2 200 OK (BYE)
    """,
    early_dialogs: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1a 183 Session Progress
        4 to 0a 183 Session Progress from 3
        5 by 1b 180 Ringing
        6 to 0b 180 Ringing from 5
        7 by 1b 200 OK
        8 to 1b ACK
        9 to 0b 200 OK from 7
        10 by 0b ACK
        11 by 0b BYE
        12 to 1b BYE from 11
        13 to 0b 200 OK (BYE)
        14 by 1b 200 OK (BYE)
    """,
    cancelled: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 0 CANCEL
        6 to 0 200 OK (CANCEL)
        7 to 1 CANCEL from 5
        8 to 0 487 Request Terminated
        9 by 1 200 OK (CANCEL)
        10 by 1 487 Request Terminated
        11 to 1 ACK
        12 by 0 ACK
    """,
    cancel_crosses_the_answer: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 0 CANCEL
        6 to 0 200 OK (CANCEL)
        7 to 1 CANCEL from 5
        8 to 0 487 Request Terminated
        9 by 1 200 OK
        10 to 1 ACK
        11 to 1 BYE
        12 by 0 ACK
        13 by 1 481 Call/Transaction Does Not Exist (CANCEL)
        14 by 1 200 OK (BYE)
    """,
    retransmitted: """
        0 by 0 INVITE x2
        1 to 0 100 Trying x2
        2 to 1 INVITE x3 from 0
        3 by 1 180 Ringing x2
        4 to 0 180 Ringing x2 from 3
        5 by 1 200 OK
        6 to 1 ACK
        7 to 0 200 OK x2 from 5
        8 by 0 ACK
    """,
    late_offer_and_prack: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 183 Session Progress
        4 to 0 183 Session Progress from 3
        5 by 0 PRACK
        6 to 1 PRACK from 5
        7 by 1 200 OK (PRACK)
        8 to 0 200 OK (PRACK) from 7
        9 by 1 200 OK
        10 to 0 200 OK from 9
        11 by 0 ACK
        12 to 1 ACK from 11
        13 by 0 BYE
        14 to 1 BYE from 13
        15 to 0 200 OK (BYE)
        16 by 1 200 OK (BYE)
    """,
    in_dialog: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 1 200 OK
        6 to 1 ACK
        7 to 0 200 OK from 5
        8 by 0 ACK
        9 by 0 INVITE
        10 to 0 100 Trying
        11 to 1 INVITE from 9
        12 by 1 200 OK
        13 to 1 ACK
        14 to 0 200 OK from 12
        15 by 0 ACK
        16 by 1 INVITE
        17 to 1 100 Trying
        18 to 0 INVITE from 16
        19 by 0 200 OK
        20 to 0 ACK
        21 to 1 200 OK from 19
        22 by 1 ACK
        23 by 0 UPDATE
        24 to 1 UPDATE from 23
        25 by 1 200 OK (UPDATE)
        26 to 0 200 OK (UPDATE) from 25
    """,
    challenged: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 401 Unauthorized
        4 to 1 ACK
        5 to 1 INVITE from 0
        6 by 1 180 Ringing
        7 to 0 180 Ringing from 6
        8 by 1 200 OK
        9 to 1 ACK
        10 to 0 200 OK from 8
        11 by 0 ACK
        12 by 0 INVITE
        13 to 0 100 Trying
        14 to 1 INVITE from 12
        15 by 1 407 Proxy Authentication Required
        16 to 1 ACK
        17 to 1 INVITE from 12
    """,
    crossing_requests: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 1 200 OK
        6 to 1 ACK
        7 to 0 200 OK from 5
        8 by 0 ACK
        9 by 0 INFO
        10 to 1 INFO from 9
        11 by 0 INFO
        12 to 1 INFO from 11
        13 by 1 200 OK (INFO)
        14 to 0 200 OK (INFO) from 13
        15 by 1 200 OK (INFO)
        16 to 0 200 OK (INFO) from 15
    """,
    text_message: """
        0 by 0 MESSAGE
        1 to 1 MESSAGE from 0
        2 by 1 200 OK (MESSAGE)
        3 to 0 200 OK (MESSAGE) from 2
    """,
    refused_by_the_relay: """
        0 by 0 INVITE
        1 to 0 403 Forbidden
        2 by 0 ACK
    """,
    ended_by_the_relay: """
        0 by 0 INVITE
        1 to 0 100 Trying
        2 to 1 INVITE from 0
        3 by 1 180 Ringing
        4 to 0 180 Ringing from 3
        5 by 1 200 OK
        6 to 1 ACK
        7 to 0 200 OK from 5
        8 by 0 ACK
        9 to 0 BYE
        10 to 1 BYE
        11 by 0 200 OK (BYE)
        12 by 1 200 OK (BYE)
    """,
}


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
def test_rows_and_what_they_were_made_from(play: Callable[[], Ladder]) -> None:
    assert picture(shown(play())) == [line.strip() for line in SCENARIOS[play].strip().splitlines()]


def test_registrations_of_a_peer_share_a_lane() -> None:
    ladder = begun()
    request = ladder.callee.get_request("REGISTER")
    ladder.callee.answers(401, request, headers=CHALLENGE)
    grants(ladder.callee)
    ladder.run(50)
    grants(ladder.callee)
    call = ladder.captured()._replace(call_id="register:carrier")
    rows = build_ladder(call, None, MASKED)
    assert [lane.peer for lane in rows.lanes] == ["", "carrier"]
    assert picture(rows) == [
        "0 to 1 REGISTER",
        "1 by 1 401 Unauthorized (REGISTER)",
        "2 to 1 REGISTER",
        "3 by 1 200 OK (REGISTER)",
        "4 to 1 REGISTER",
        "5 by 1 200 OK (REGISTER)",
    ]
    assert "4001" not in "".join(row.data.decode() for row in rows.rows)


def test_malformed_message_is_a_row_joined_with_nothing() -> None:
    ladder = basic()
    call = ladder.captured()
    broken = call.messages[0]._replace(data=b"INVITE\x00\xff\r\nFrom alice: 13800000001")
    call = CapturedCall(call.call_id, call.dialogs, (broken, *call.messages), call.marks)
    row = build_ladder(call, None, MASKED).rows[0]
    assert (row.what, row.made_from) == ("malformed message", None)
    assert b"138000" not in row.data


def test_retransmissions_keep_their_times() -> None:
    row = shown(retransmitted()).rows[2]
    assert [each - row.at_us for each in row.again_at_us] == [500_000, 1_500_000]


def test_requests_that_wait_are_relayed_in_their_order() -> None:
    call = crossing_requests().captured()
    messages = list(call.messages)
    messages[10], messages[11] = messages[11], messages[10]  # both INFOs are received before one is sent
    rows = build_ladder(call._replace(messages=tuple(messages)), None, MASKED).rows
    assert [(row.what, row.made_from) for row in rows[9:13]] == [
        ("INFO", None),
        ("INFO", None),
        ("INFO", 9),
        ("INFO", 10),
    ]
