"""Other in-dialog requests: DTMF, OPTIONS, and unsupported methods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import EITHER, Ladder, bye, connect, connected, hang_up
from tests.ladder.settings import X


@EITHER
@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        ("application/dtmf-relay", b"Signal= 5\nDuration= 250\n", b"Signal=5\r\nDuration=250\r\n"),
        ("application/dtmf", b"#", b"#"),
    ],
)
def test_dtmf_is_relayed(ladder: Ladder, by: str, kind: str, body: bytes, shown: bytes) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("INFO", body=body, content_type=kind)
    info = asked.expects("INFO")
    assert (info.get("content-type"), info.body) == (kind, shown)
    asking.get(200)
    hang_up(ladder)


@EITHER
def test_info_passes_while_the_ack_to_a_reinvite_is_due(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.agrees(HELD)
    asking.get(200)
    asked.sends("INFO", body=b"5", content_type="application/dtmf")
    asking.expects("INFO")
    asked.get(200)
    asked.updates(HOLD)
    asked.get(491)
    asking.acks()
    hang_up(ladder)


def test_info_before_the_callers_first_ack_is_491(ladder: Ladder) -> None:
    """The caller may not have the 200 yet, and knows no dialog without it."""
    connect(ladder, acknowledge=False)
    ladder.callee.sends("INFO", body=b"5", content_type="application/dtmf")
    ladder.callee.get(491)
    ladder.caller.gets_nothing()
    ladder.caller.acks()
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize(
    ("info", "status"),
    [({"body": b"<who>13900000002</who>", "content_type": "application/xml"}, 415), ({"hops": 0}, 483)],
    ids=["another body", "Max-Forwards 0"],
)
def test_info_is_refused(ladder: Ladder, by: str, info: dict[str, Any], status: int) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("INFO", **info)
    asking.get(status)
    asked.gets_nothing()
    hang_up(ladder)


SDP_ONLY, DTMF_ONLY = "application/sdp", "application/dtmf-relay, application/dtmf"


@EITHER
@pytest.mark.parametrize(
    ("method", "accepted"), [("INVITE", SDP_ONLY), ("UPDATE", SDP_ONLY), ("INFO", DTMF_ONLY), ("OPTIONS", SDP_ONLY)]
)
def test_refusal_of_a_body_names_the_types_that_pass(ladder: Ladder, by: str, method: str, accepted: str) -> None:
    """RFC 3261 8.2.3: 415 has an Accept."""
    asking, asked = connected(ladder, by)
    asking.sends(method, body=b"<x/>", content_type="application/xml", headers=f"Contact: {asking.contact}\r\n")
    if method == "INVITE":
        asking.get(100)
    refusal = asking.get_response(415)
    assert (refusal.get("accept"), refusal.get("accept-encoding")) == (accepted, None)
    asked.gets_nothing()
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("name", ["Content-Encoding", "e"])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO"])
def test_encoded_body_is_refused(either_media: Ladder, by: str, method: str, name: str) -> None:
    """RFC 3261 8.2.3: 415 with Accept-Encoding. Nobody here can read it, so nobody can mask it."""
    asking, asked = connected(either_media, by)
    kind = {"content_type": "application/dtmf"} if method == "INFO" else {}
    body = b"5" if method == "INFO" else HOLD
    asking.sends(method, body=body, headers=f"Contact: {asking.contact}\r\n{name}: gzip\r\n", **kind)
    if method == "INVITE":
        asking.get(100)
    refusal = asking.get_response(415)
    assert (refusal.get("accept"), refusal.get("accept-encoding")) == (None, "identity")
    asked.gets_nothing()
    offer_stands(either_media)


@EITHER
def test_body_in_the_identity_encoding_passes(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("INFO", body=b"5", content_type="application/dtmf", headers="Content-Encoding: Identity\r\n")
    assert asked.expects("INFO").body == b"5"
    asking.get(200)
    hang_up(ladder)


@EITHER
def test_optional_body_of_an_unknown_type_is_dropped(ladder: Ladder, by: str) -> None:
    """RFC 3261 8.2.3: only a body that is not optional is refused."""
    asking, asked = connected(ladder, by)
    asking.sends(
        "INFO",
        body=b"<where>13900000002</where>",
        content_type="application/xml",
        headers="Content-Disposition: render; handling=Optional\r\n",
    )
    assert not asked.expects("INFO").body
    asking.get(200)
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize(
    ("given", "shown"),
    [("Accept: text/x-bob, application/dtmf\r\n", "application/dtmf"), ("", ""), ("Accept: text/x-bob\r\n", "")],
)
def test_refusal_of_a_body_by_the_other_side_names_only_types_that_pass(
    ladder: Ladder, by: str, given: str, shown: str
) -> None:
    """An empty Accept: no type is accepted (RFC 3261 20.1)."""
    asking, asked = connected(ladder, by)
    asking.sends("INFO", body=b"Signal=5", content_type="application/dtmf-relay")
    asked.expects("INFO", 415, headers=given)
    assert asking.get_response(415).get("accept") == shown
    hang_up(ladder)


@pytest.fixture(params=[Ladder, AnchoredLadder], ids=["end to end", "anchored"])
def either_media(request: pytest.FixtureRequest) -> Ladder:
    ladder: Ladder = request.param()
    return ladder


def offer_stands(ladder: Ladder) -> None:
    """rtpengine, if any, got no offer but the first."""
    if isinstance(ladder, AnchoredLadder):
        assert [command.command for command in ladder.rtpengine.told] == ["offer", "answer"]
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("method", ["INFO", "OPTIONS"])
def test_sdp_outside_offer_answer_is_refused(either_media: Ladder, by: str, method: str) -> None:
    """rtpengine would take it for a new offer, which is never answered."""
    asking, asked = connected(either_media, by)
    asking.sends(method, body=HOLD)
    asking.get(415)
    asked.gets_nothing()
    offer_stands(either_media)


@EITHER
@pytest.mark.parametrize("method", ["OPTIONS", "UPDATE"])
def test_sdp_in_a_response_without_an_offer_is_dropped(either_media: Ladder, by: str, method: str) -> None:
    """Such as a phone's capabilities in its response to OPTIONS (RFC 3261 11.2)."""
    asking, asked = connected(either_media, by)
    asking.sends(method, headers=f"Contact: {asking.contact}\r\n")
    asked.expects(method, 200, body=ANSWER)
    answer = asking.get(200)
    assert (answer.body, answer.get("content-type")) == (b"", None)
    offer_stands(either_media)


@EITHER
def test_concurrent_requests_get_their_own_responses(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    for digit in (b"1", b"2", b"3"):
        asking.sends("INFO", body=digit, content_type="application/dtmf")
    infos = [asked.get_request("INFO") for _ in range(3)]
    for info in reversed(infos):
        asked.answers(200, info)
    assert [asking.get(200).cseq.number for _ in range(3)] == [asking.cseq, asking.cseq - 1, asking.cseq - 2]
    hang_up(ladder)


@EITHER
def test_lost_info_is_retransmitted(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.lose_next = 1
    asking.sends("INFO", body=b"1", content_type="application/dtmf")
    asked.gets_nothing()
    ladder.run(0.5)
    asked.expects("INFO")
    asking.get(200)
    asking.sends_again("INFO")
    asking.get(200)
    asked.gets_nothing()
    hang_up(ladder)


@EITHER
def test_request_without_a_response_ends_the_call(ladder: Ladder, by: str) -> None:
    asking, _ = connected(ladder, by)
    asking.sends("INFO", body=b"1", content_type="application/dtmf")
    ladder.run(32.1)
    asking.get(408)
    asking.expects("BYE")
    assert ladder.record.end_reason == "peer_gone"
    ladder.settle()


@EITHER
def test_transport_error_of_a_request_leaves_the_call_up(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.unreachable.add(("udp", asked.host))
    asking.sends("INFO", body=b"1", content_type="application/dtmf")
    asking.get(500)
    ladder.unreachable.clear()
    hang_up(ladder)


@EITHER
def test_call_ending_before_the_response(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("INFO", body=b"1", content_type="application/dtmf")
    info = asked.get_request("INFO")
    bye(asked, asking)
    asked.answers(200, info)
    asking.get(200)
    ladder.settle()


@EITHER
def test_in_dialog_options_is_relayed(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("OPTIONS")
    asked.expects("OPTIONS", headers="Allow: INVITE, ACK, BYE, REFER\r\nServer: bob\r\n")
    answer = asking.get_response(200)
    assert answer.get("allow") == "INVITE, ACK, BYE"
    assert answer.get("server") is None
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize(
    ("method", "status"),
    [("REFER", 405), ("SUBSCRIBE", 405), ("NOTIFY", 405), ("MESSAGE", 405), ("PUBLISH", 405), ("TRANSFER", 501)],
)
def test_unsupported_method_is_refused_with_allow(ladder: Ladder, by: str, method: str, status: int) -> None:
    asking, asked = connected(ladder, by)
    asking.sends(method, headers="Refer-To: <sip:110@127.0.0.99>\r\n")
    answer = asking.get_response(status)
    assert answer.values("allow") == ["INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "OPTIONS"]
    asked.gets_nothing()
    hang_up(ladder)


@EITHER
def test_unknown_extension_is_refused(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("INVITE", headers=f"Contact: {asking.contact}\r\nRequire: timer, telepathy\r\n")
    assert asking.get_response(420).get("unsupported") == "telepathy"
    asking.acks_refusal()
    asked.gets_nothing()
    hang_up(ladder)


@pytest.mark.parametrize("method", ["INVITE", "BYE", "INFO", "UPDATE", "PRACK", "OPTIONS", "REFER"])
def test_request_outside_any_dialog_is_481(ladder: Ladder, method: str) -> None:
    ladder.caller.from_uri, ladder.caller.to_uri = "sip:13800000001@127.0.0.11", f"sip:{X}@127.0.0.10"
    ladder.caller.target, ladder.caller.remote_tag = ladder.caller.to_uri, "of-no-call"
    ladder.caller.sends(method, headers="Contact: <sip:alice@127.0.0.11>\r\n")
    ladder.caller.get(481)
    assert not ladder.records
    ladder.settle()


@EITHER
def test_request_with_another_call_id_is_481(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    right, asking.call_id = asking.call_id, "another"
    asking.sends("BYE")
    asking.get(481)
    asked.gets_nothing()
    asking.call_id = right
    hang_up(ladder)


@EITHER
def test_request_with_an_old_cseq_is_500(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("OPTIONS", cseq=50)
    asked.expects("OPTIONS")
    asking.get(200)
    asking.sends("OPTIONS", cseq=49)
    asking.get(500)
    asked.gets_nothing()
    asking.cseq = 50
    hang_up(ladder)


def test_out_of_dialog_options_is_answered(ladder: Ladder) -> None:
    ladder.caller.from_uri, ladder.caller.to_uri = "sip:ping@127.0.0.11", "sip:127.0.0.10"
    ladder.caller.target = ladder.caller.to_uri
    for hops in (70, 0):  # SBCs ping their neighbour with Max-Forwards 0 (RFC 3261 11)
        ladder.caller.sends("OPTIONS", hops=hops)
        answer = ladder.caller.get_response(200)
        assert "INVITE" in answer.values("allow")
        assert answer.values("supported") == ["100rel", "timer"]
        accepted = [answer.get(name) for name in ("accept", "accept-encoding", "accept-language")]
        assert accepted == ["application/sdp", "identity", "en"]
        assert answer.to_tag
    ladder.caller.sends("OPTIONS", headers="Require: telepathy\r\n")
    assert ladder.caller.get_response(420).get("unsupported") == "telepathy"
    ladder.engine.drain()
    ladder.caller.sends("OPTIONS")
    assert ladder.caller.get_response(503).get("retry-after")
    ladder.settle()


@pytest.mark.parametrize(
    ("method", "status"), [("REGISTER", 405), ("SUBSCRIBE", 405), ("REFER", 405), ("TRANSFER", 501), ("BYE", 481)]
)
def test_out_of_dialog_request_is_refused(ladder: Ladder, method: str, status: int) -> None:
    ladder.caller.from_uri, ladder.caller.to_uri = "sip:13800000001@127.0.0.11", "sip:127.0.0.10"
    ladder.caller.target = ladder.caller.to_uri
    ladder.caller.sends(method)
    answer = ladder.caller.get_response(status)
    assert (answer.get("allow") is None) == (status == 481)
    ladder.settle()


@EITHER
def test_request_during_our_bye_is_481(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asked.sends("BYE")
    asking.sends("INFO", body=b"1", content_type="application/dtmf")  # before our BYE arrived
    bye = asking.get_request("BYE")
    asking.get(481)
    asked.get(200)
    asked.gets_nothing()
    asking.answers(200, bye)
    ladder.settle()
