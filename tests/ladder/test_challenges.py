"""A trunk that challenges the relay's requests: each goes again with credentials, and the other side sees none."""

from __future__ import annotations

import pytest

from relay.call.settings import Account
from relay.sip.digest import parse_credentials
from relay.sip.message import Request
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, HOLD, as_long_as
from tests.ladder.ladder import CALLEE_HOST, CALLER_HOST, EITHER, Ladder, Side, X, connect, hang_up, peer, sides

ACCOUNT = Account("trunk", "secret")
REALM = "carrier.example"
CHALLENGE = f'WWW-Authenticate: Digest realm="{REALM}",nonce="n1",qop="auth",algorithm='


def ladder_with(account: Account | None, **settings: object) -> Ladder:
    peers = (peer("pbx", CALLER_HOST, account=account), peer("carrier", CALLEE_HOST, account=account))
    return Ladder(peers=peers, **settings)  # type: ignore[arg-type]


@pytest.fixture
def ladder() -> Ladder:
    return ladder_with(ACCOUNT)


def challenges(side: Side, request: Request, status: int = 401, *, stale: bool = False) -> Request:
    """Challenges the request, as MD5 and SHA-256; the one that comes again, whose credentials are right."""
    lines = "".join(f"{CHALLENGE}{name}{',stale=true' if stale else ''}\r\n" for name in ("MD5", "SHA-256"))
    side.answers(status, request, headers=lines if status == 401 else lines.replace("WWW", "Proxy"))
    if request.method == "INVITE":
        ack = side.get_request("ACK")
        assert (ack.branch, ack.cseq.number) == (request.branch, request.cseq.number)
    again = side.get_request(request.method)
    assert (again.call_id, again.get("from")) == (request.call_id, request.get("from"))
    assert again.to_tag == request.to_tag
    assert again.cseq.number > request.cseq.number
    credentials = parse_credentials(again.get("authorization" if status == 401 else "proxy-authorization") or "")
    assert credentials is not None
    assert (credentials.username, credentials.realm, credentials.algorithm) == ("trunk", REALM, "SHA-256")
    assert credentials.uri == again.uri
    assert credentials.is_proved_by("secret", again.method)
    return again


def call(ladder: Ladder) -> Request:
    ladder.caller.calls(X)
    return ladder.callee.get_request("INVITE")


def is_refused(ladder: Ladder, status: int) -> None:
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.get(status)
    ladder.caller.gets_nothing()
    ladder.caller.acks_refusal()
    ladder.settle()


@pytest.mark.parametrize("status", [401, 407])
def test_invite_ack_and_bye(ladder: Ladder, status: int) -> None:
    again = challenges(ladder.callee, call(ladder), status)
    ladder.caller.gets_nothing()
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.is_answered()
    ack = ladder.callee.get_request("ACK")
    header = "authorization" if status == 401 else "proxy-authorization"
    assert (ack.cseq.number, ack.get(header)) == (again.cseq.number, again.get(header))  # RFC 3261 22.1
    ladder.caller.sends("BYE")
    ladder.caller.get(200)
    ladder.callee.answers(200, challenges(ladder.callee, ladder.callee.get_request("BYE"), status))
    ladder.settle()


def test_wrong_credentials_are_a_refusal_and_never_shown(ladder: Ladder) -> None:
    challenges(ladder.callee, call(ladder))
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5\r\n")
    is_refused(ladder, 480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "sip_401")
    for data, flow in ladder.checks.sent:
        assert flow.host != CALLER_HOST or (b"uthenti" not in data and b"uthoriz" not in data)


def test_with_credentials_no_datagram_has_room_for_it(ladder: Ladder) -> None:
    ladder.caller.calls(X, body=as_long_as(65_100))
    ladder.callee.get("INVITE")
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5\r\n")
    is_refused(ladder, 480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "sip_401")


def test_without_an_account_a_challenge_is_a_refusal() -> None:
    ladder = ladder_with(None)
    call(ladder)
    ladder.callee.answers(407, headers=f"{CHALLENGE}MD5\r\n".replace("WWW", "Proxy"))
    is_refused(ladder, 480)


def test_a_stale_nonce_once_more_and_no_further(ladder: Ladder) -> None:
    again = challenges(ladder.callee, challenges(ladder.callee, call(ladder)), stale=True)
    assert again.cseq.number == 3
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5,stale=true\r\n")
    is_refused(ladder, 480)


def test_cancelled_before_the_challenge(ladder: Ladder) -> None:
    call(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.callee.refuses(401, headers=f"{CHALLENGE}MD5\r\n")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_cancelled_after_the_challenge(ladder: Ladder) -> None:
    again = challenges(ladder.callee, call(ladder))
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    cancel = ladder.callee.expects("CANCEL")
    assert (cancel.branch, cancel.cseq.number) == (again.branch, again.cseq.number)
    ladder.callee.refuses(487)
    ladder.settle()


def test_a_fork_that_rang_before_the_challenge_is_over(ladder: Ladder) -> None:
    invite = call(ladder)
    ladder.callee.answers(180, tag="first")
    first = ladder.caller.get_response(180)
    challenges(ladder.callee, invite)
    ladder.callee.answers(180, tag="second")
    second = ladder.caller.get_response(180)
    assert first.to_tag != second.to_tag
    ladder.callee.accepts(body=ANSWER, tag="second")
    assert ladder.caller.get_response(200).to_tag == second.to_tag
    ladder.caller.acks()
    hang_up(ladder)


def test_who_rang_before_the_challenge_has_its_ack_for_the_invite_that_went_again(ladder: Ladder) -> None:
    invite = call(ladder)
    ladder.callee.answers(180)
    ladder.caller.get(180)
    again = challenges(ladder.callee, invite)
    ladder.callee.answers(200, body=ANSWER)
    assert ladder.callee.get_request("ACK").cseq.number == again.cseq.number
    ladder.caller.is_answered()
    hang_up(ladder)


def test_prack_names_the_invite_that_went_again_and_is_challenged_itself(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Supported: 100rel\r\n")
    challenges(ladder.callee, ladder.callee.get_request("INVITE"))
    ladder.callee.answers(183, headers="Require: 100rel\r\nRSeq: 77\r\n")
    ladder.caller.get(183)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    prack = ladder.callee.get_request("PRACK")
    again = challenges(ladder.callee, prack)
    assert prack.get("rack") == again.get("rack") == "77 2 INVITE"
    ladder.callee.answers(200, again)
    ladder.caller.get(200)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("method", ["UPDATE", "INFO", "OPTIONS"])
def test_requests_inside_a_call(ladder: Ladder, method: str, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.sends(method, headers=f"Contact: {asking.contact}\r\n")
    asked.answers(200, challenges(asked, asked.get_request(method)))
    asking.get(200)
    asking.gets_nothing()
    hang_up(ladder)


@EITHER
def test_a_reinvite_its_ack_and_the_next_one(ladder: Ladder, by: str) -> None:
    connect(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.get(100)
    again = challenges(asked, asked.get_request("INVITE"))
    asked.answers(200, again, body=ANSWER)
    asking.is_answered()
    ack = asked.get_request("ACK")
    assert (ack.cseq.number, ack.get("authorization")) == (again.cseq.number, again.get("authorization"))
    asking.reinvites(HOLD)
    asking.get(100)
    asked.answers(200, asked.get_request("INVITE"), body=ANSWER)
    asking.is_answered()
    assert asked.get_request("ACK").get("authorization") is None
    hang_up(ladder)


def test_the_probe_after_a_restart(ladder: Ladder) -> None:
    connect(ladder)
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        side.answers(200, challenges(side, side.get_request("OPTIONS")))
    hang_up(ladder)


def test_a_busy_trunk_after_the_challenge_and_the_next_one() -> None:
    peers = (
        peer("pbx", CALLER_HOST),
        peer("carrier", CALLEE_HOST, account=ACCOUNT),
        peer("second", "127.0.0.23", account=Account("other", "word")),
    )
    ladder = Ladder(peers=peers, tried=("carrier", "second"))
    second = ladder.side("127.0.0.23", "carol")
    challenges(ladder.callee, call(ladder))
    ladder.callee.refuses(503)
    invite = second.get_request("INVITE")
    second.refuses(407, invite, headers=f"{CHALLENGE}MD5\r\n".replace("WWW", "Proxy"))
    credentials = parse_credentials(second.get_request("INVITE").get("proxy-authorization") or "")
    assert credentials is not None
    assert credentials.username == "other"
    assert credentials.is_proved_by("word", "INVITE")
    second.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_the_password_stands_nowhere(ladder: Ladder) -> None:
    challenges(ladder.callee, call(ladder))
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5\r\n")
    is_refused(ladder, 480)
    texts = [repr(ladder.settings), repr(ladder.notes), repr(ladder.records), repr(ladder.checks.sent)]
    assert not [text for text in texts if "secret" in text]


def test_early_media_of_a_target_that_was_silent_after_its_challenge() -> None:
    """What rtpengine has of it yet opens no early dialog: nobody would close it."""
    peers = (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=ACCOUNT))
    ladder = AnchoredLadder(peers=peers)
    invite = call(ladder)
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    challenges(ladder.callee, invite)
    ladder.run(32.0)
    ladder.callee.inbox.clear()
    ladder.caller.is_refused(480)
    ladder.rtpengine_goes_on()
    ladder.settle()
