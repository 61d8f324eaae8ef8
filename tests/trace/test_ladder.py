"""The ladder of a call: what crossed, and who may see what."""

from __future__ import annotations

import pytest

from relay.trace.ladder import build_ladder, business_view, ladder_object, operator_view
from tests.ladder.descriptions import OFFER
from tests.ladder.ladder import Ladder
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, A, B, X
from tests.trace.test_ladder_join import basic, early_dialogs, failover, shown, text_message


def test_attempts_and_early_dialogs_are_told_apart() -> None:
    lanes = shown(failover()).lanes
    assert [(lane.side, lane.peer, lane.address) for lane in lanes] == [
        ("caller", "pbx", "192.0.2.1:5060"),
        ("callee", "second", "198.51.100.1:5060"),
        ("callee", "carrier", "198.51.100.2:5060"),
    ]
    assert [lane.early_dialogs for lane in shown(early_dialogs()).lanes] == [2, 2]


def test_lines_that_crossed_were_rewritten_or_withheld() -> None:
    ladder = Ladder()
    offer = OFFER.replace(b"a=sendrecv", b"a=sendrecv\r\na=tool:x\r\na=candidate:1\r\na=candidate:2")
    ladder.caller.calls(X, body=offer, headers="P-Asserted-Identity: <tel:+1>\r\nX-Imei: 1\r\nSupported: timer\r\n")
    row = shown(ladder).rows[2]
    verdicts = {(each.name, each.lines): each.verdict for each in row.crossings}
    assert verdicts["From", 1] == verdicts["Via", 1] == verdicts["o=", 1] == "rewritten"
    assert (
        verdicts["P-Asserted-Identity", 1] == verdicts["unknown header", 1] == verdicts["a=candidate", 2] == "withheld"
    )
    assert verdicts["Supported", 1] == verdicts["m=", 1] == verdicts["a=rtpmap", 1] == "crossed"
    assert len(row.verdicts) == len(shown(ladder).rows[0].lines)
    names = {each.name for each in shown(ladder, operator_view(reveal=True)).rows[2].crossings}
    assert "X-Imei" in names


def test_text_of_a_message_crosses_as_a_body() -> None:
    (row,) = (row for row in shown(text_message()).rows if row.made_from == 0)
    assert [each.verdict for each in row.crossings if each.name == "text/plain"] == ["crossed"]


def test_revealed_messages_are_those_on_the_wire() -> None:
    ladder = basic()
    rows = shown(ladder, operator_view(reveal=True)).rows
    assert [row.data for row in rows] == [message.data for message in ladder.messages]
    assert rows[0].remote == f"{CALLER_HOST}:5060"


def test_masked_messages_show_the_700_number_of_the_call_alone() -> None:
    other = "700100000019999"
    ladder = Ladder()
    ladder.caller.calls(X, headers=f"Diversion: <sip:{other}@192.0.2.7>\r\nX-A: {A}\r\n")
    ladder.callee.expects("INVITE", 486)
    text = shown(ladder).rows[0].data.decode()
    assert f"sip:{X}@" in text
    assert "<sip:138****0001@" in text
    assert "<sip:700****9999@" in text
    assert "X-Masked: ***" in text
    assert CALLER_HOST not in text


@pytest.mark.parametrize(("direction", "side"), [("a_to_b", "caller"), ("b_to_a", "callee"), (None, "caller")])
def test_business_user_sees_the_side_of_its_party_a_and_no_peer(direction: str | None, side: str) -> None:
    ladder = basic()
    call, record = ladder.captured(), ladder.record._replace(direction=direction)
    for reveal in (False, True):
        ladder_ = build_ladder(call, record, business_view(record, reveal=reveal))
        assert {ladder_.lanes[row.lane].side for row in ladder_.rows} == {side}
        assert not any(row.crossings for row in ladder_.rows)
        text = str(ladder_object(ladder_))
        hidden = (CALLER_HOST, CALLEE_HOST, "carrier", "pbx", ladder.caller.call_id)
        assert not [word for word in hidden if word in text]
        other = B[2:] if side == "caller" else A[2:]
        own = A if side == "caller" else B
        assert other not in text
        assert (own in text) == reveal
