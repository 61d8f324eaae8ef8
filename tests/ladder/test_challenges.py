"""A trunk that challenges our requests: each is repeated with credentials, invisible to the other side."""

from __future__ import annotations

import pytest

from relay.model.settings import Account
from relay.sip.digest import parse_credentials
from relay.sip.message import Request
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, HOLD
from tests.ladder.ladder import EITHER, Ladder, call, complete, connect, connected, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, X, peer
from tests.ladder.side import Side

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
    """Challenge the request with MD5 and SHA-256; return the repeated one with valid credentials."""
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


def is_refused(ladder: Ladder, status: int) -> None:
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.get(status)
    ladder.caller.gets_nothing()
    ladder.caller.acks_refusal()
    ladder.settle()


@pytest.mark.parametrize("status", [401, 407])
def test_challenged_invite_and_bye_are_repeated_with_credentials(ladder: Ladder, status: int) -> None:
    again = challenges(ladder.callee, call(ladder), status)
    ladder.caller.gets_nothing()
    ladder.callee.proceeds(180)
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.is_answered()
    ack = ladder.callee.get_request("ACK")
    header = "authorization" if status == 401 else "proxy-authorization"
    assert (ack.cseq.number, ack.get(header)) == (again.cseq.number, again.get(header))  # RFC 3261 22.1
    ladder.caller.sends("BYE")
    ladder.caller.get(200)
    ladder.callee.answers(200, challenges(ladder.callee, ladder.callee.get_request("BYE"), status))
    ladder.settle()


def test_proxy_and_server_challenge_one_after_the_other(ladder: Ladder) -> None:
    again = challenges(ladder.callee, challenges(ladder.callee, call(ladder), 407), 401)
    ladder.callee.answers(200, body=ANSWER)
    ack = ladder.callee.get_request("ACK")
    for header in ("authorization", "proxy-authorization"):
        assert (ack.get(header) or "") == again.get(header)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_rejected_credentials_fail_the_call_and_are_not_shown(ladder: Ladder) -> None:
    challenges(ladder.callee, call(ladder))
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5\r\n")
    is_refused(ladder, 480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "sip_401")
    for data, flow in ladder.checks.sent:
        assert flow.host != CALLER_HOST or (b"uthenti" not in data and b"uthoriz" not in data)


def test_challenge_without_an_account_fails_the_call() -> None:
    ladder = ladder_with(None)
    call(ladder)
    ladder.callee.answers(407, headers=f"{CHALLENGE}MD5\r\n".replace("WWW", "Proxy"))
    is_refused(ladder, 480)


def test_stale_nonce_is_retried_once(ladder: Ladder) -> None:
    again = challenges(ladder.callee, challenges(ladder.callee, call(ladder)), stale=True)
    assert again.cseq.number == 3
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5,stale=true\r\n")
    is_refused(ladder, 480)


def test_cancel_before_the_challenge(ladder: Ladder) -> None:
    call(ladder)
    ladder.caller.gives_up()
    ladder.callee.refuses(401, headers=f"{CHALLENGE}MD5\r\n")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_cancel_after_the_challenge(ladder: Ladder) -> None:
    again = challenges(ladder.callee, call(ladder))
    ladder.callee.proceeds(180)
    ladder.caller.gives_up()
    cancel = ladder.callee.expects("CANCEL")
    assert (cancel.branch, cancel.cseq.number) == (again.branch, again.cseq.number)
    ladder.callee.refuses(487)
    ladder.settle()


def test_early_dialog_before_the_challenge_ends(ladder: Ladder) -> None:
    invite = call(ladder)
    first = ladder.callee.proceeds(180, tag="first")
    challenges(ladder.callee, invite)
    second = ladder.callee.proceeds(180, tag="second")
    assert first.to_tag != second.to_tag
    ladder.callee.accepts(body=ANSWER, tag="second")
    assert ladder.caller.get_response(200).to_tag == second.to_tag
    ladder.caller.acks()
    hang_up(ladder)


def test_ack_is_for_the_repeated_invite(ladder: Ladder) -> None:
    invite = call(ladder)
    ladder.callee.proceeds(180)
    again = challenges(ladder.callee, invite)
    ladder.callee.answers(200, body=ANSWER)
    assert ladder.callee.get_request("ACK").cseq.number == again.cseq.number
    ladder.caller.is_answered()
    hang_up(ladder)


def test_prack_has_the_cseq_of_the_repeated_invite_and_is_challenged(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Supported: 100rel\r\n")
    challenges(ladder.callee, ladder.callee.get_request("INVITE"))
    ladder.callee.proceeds(183, headers="Require: 100rel\r\nRSeq: 77\r\n")
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    prack = ladder.callee.get_request("PRACK")
    again = challenges(ladder.callee, prack)
    assert prack.get("rack") == again.get("rack") == "77 2 INVITE"
    ladder.callee.answers(200, again)
    ladder.caller.get(200)
    complete(ladder)


@EITHER
@pytest.mark.parametrize("method", ["UPDATE", "INFO", "OPTIONS"])
def test_in_dialog_requests_are_repeated_with_credentials(ladder: Ladder, method: str, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends(method, headers=f"Contact: {asking.contact}\r\n")
    asked.answers(200, challenges(asked, asked.get_request(method)))
    asking.get(200)
    asking.gets_nothing()
    hang_up(ladder)


@EITHER
def test_challenged_reinvite_its_ack_and_the_next_one(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    again = challenges(asked, asked.get_request("INVITE"))
    asked.answers(200, again, body=ANSWER)
    asking.is_answered()
    ack = asked.get_request("ACK")
    assert (ack.cseq.number, ack.get("authorization")) == (again.cseq.number, again.get("authorization"))
    asking.reinvites(HOLD)
    asked.answers(200, asked.get_request("INVITE"), body=ANSWER)
    asking.is_answered()
    assert asked.get_request("ACK").get("authorization") is None
    hang_up(ladder)


def test_challenged_probe_after_a_restart(ladder: Ladder) -> None:
    connect(ladder)
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        side.answers(200, challenges(side, side.get_request("OPTIONS")))
    hang_up(ladder)


def test_next_peer_after_a_503_to_the_credentials() -> None:
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


def test_password_is_never_sent_or_logged(ladder: Ladder) -> None:
    challenges(ladder.callee, call(ladder))
    ladder.callee.answers(401, headers=f"{CHALLENGE}MD5\r\n")
    is_refused(ladder, 480)
    texts = [repr(ladder.settings), repr(ladder.notes), repr(ladder.records), repr(ladder.checks.sent)]
    assert not [text for text in texts if "secret" in text]


def test_early_media_pending_at_rtpengine_opens_no_dialog_after_failure() -> None:
    """SDP still at rtpengine must not open an early dialog that would never be closed."""
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
