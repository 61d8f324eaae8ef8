"""Challenges and credentials stay on the side that they belong to, both ways."""

from __future__ import annotations

import pytest

from relay.model.settings import Account
from relay.sip.message import Request
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.descriptions import ANSWER, HOLD
from tests.ladder.ladder import EITHER, answer, connect, connected, hang_up, sides
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, X, peer
from tests.ladder.side import Side
from tests.ladder.test_logins import phone_peer, registers

OUR_NAMES = {CALLER_HOST: "ours-at-the-pbx", CALLEE_HOST: "ours-at-the-carrier"}
FORMS = (0, 3)  # how header lines are written


def with_accounts(turn: int) -> CanaryLadder:
    peers = [
        peer(name, host, account=Account(OUR_NAMES[host], "secret"))
        for name, host in (("pbx", CALLER_HOST), ("carrier", CALLEE_HOST))
    ]
    return CanaryLadder(turn, peers=tuple(peers))


def challenges(side: Side, request: Request, status: int) -> Request:
    """The challenge is among what each message of a side is stuffed with; the request that comes again."""
    side.answers(status, request)
    if request.method == "INVITE":
        side.get("ACK")
    again = side.get_request(request.method)
    given = again.get("authorization" if status == 401 else "proxy-authorization")
    assert given is not None
    assert (BOB if side.host == CALLEE_HOST else ALICE).word in given
    return again


def check_names(ladder: CanaryLadder) -> None:
    for data, flow in ladder.checks.sent:
        for host, name in OUR_NAMES.items():
            assert host == flow.host or name.encode() not in data, f"{name} went to {flow.host}"
        assert b"secret" not in data
    ladder.check_privacy()


@pytest.mark.parametrize("turn", FORMS)
@pytest.mark.parametrize("status", [401, 407])
def test_of_a_trunk(turn: int, status: int) -> None:
    ladder = with_accounts(turn)
    ladder.caller.calls(X)
    challenges(ladder.callee, ladder.callee.get_request("INVITE"), status)
    answer(ladder)
    ladder.caller.sends("BYE")
    ladder.caller.get(200)
    ladder.callee.answers(200, challenges(ladder.callee, ladder.callee.get_request("BYE"), status))
    check_names(ladder)


@EITHER
@pytest.mark.parametrize("turn", FORMS)
@pytest.mark.parametrize("status", [401, 407])
def test_inside_a_call(turn: int, status: int, by: str) -> None:
    ladder = with_accounts(turn)
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asked.answers(200, challenges(asked, asked.get_request("INVITE"), status), body=ANSWER)
    asking.is_answered()
    asked.get("ACK")
    asking.sends("INFO")
    info = challenges(asked, asked.get_request("INFO"), status)
    asked.answers(status, info)  # wrong credentials: told as something else
    asking.get(488)
    hang_up(ladder)
    check_names(ladder)


@EITHER
@pytest.mark.parametrize("turn", FORMS)
def test_of_a_peer_that_logs_in(turn: int, by: str) -> None:
    """What it is challenged with and proves itself by, and where it is."""
    name = "login-name"
    host = CALLER_HOST if by == "caller" else CALLEE_HOST
    login = Account(name, "secret")
    if by == "caller":
        ladder = CanaryLadder(turn, peers=(phone_peer("pbx", login), peer("carrier", CALLEE_HOST)))
    else:
        ladder = CanaryLadder(turn, peers=(peer("pbx", CALLER_HOST), phone_peer("carrier", login)))
    phone, _ = sides(ladder, by)
    ladder.stuffing = False  # its Request-URI is part of the proof
    assert registers(phone, username=name, contact=f"<sip:{phone.name}@{phone.host}:5060;{phone.name}=1>").status == 200
    ladder.stuffing = True
    connect(ladder)
    hang_up(ladder)
    for data, flow in ladder.checks.sent:
        assert flow.host == host or not any(
            [text in data for text in (name.encode(), b"relay700", b"uthenticate", b"uthorization")]
        )
    ladder.check_privacy()
