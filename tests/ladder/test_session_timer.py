"""Session timers (RFC 4028): negotiated end to end; the relay ends a call without a refresh."""

from __future__ import annotations

import pytest

from relay.sip.message import Message
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import EITHER, Ladder, call, connect, hang_up, is_hung_up, sides, update
from tests.ladder.settings import X


def timers(message: Message) -> tuple[str | None, str | None, str | None]:
    return message.get("session-expires"), message.get("min-se"), message.get("require")


def agree(ladder: Ladder, seconds: int = 90, refresher: str = "uac") -> None:
    """A call with a session timer."""
    connect(
        ladder,
        headers=f"Supported: timer\r\nSession-Expires: {seconds}\r\nMin-SE: 90\r\n",
        headers_of_answer=f"Require: timer\r\nSession-Expires: {seconds};refresher={refresher}\r\n",
    )


@pytest.mark.parametrize("refresher", ["uac", "uas"])
def test_session_timer_is_relayed(ladder: Ladder, refresher: str) -> None:
    agree(ladder, refresher=refresher)
    assert ladder.callee.invite is not None
    assert timers(ladder.callee.invite) == ("90", "90", None)
    ok = ladder.caller.last()
    assert timers(ok) == (f"90;refresher={refresher}", None, "timer")
    hang_up(ladder)


def test_call_ends_without_a_refresh(ladder: Ladder) -> None:
    agree(ladder)
    ladder.run(89.9)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    ladder.caller.expects("BYE")
    assert ladder.callee.expects("BYE").get("reason") == "Q.850;cause=102"
    assert (ladder.record.ended_by, ladder.record.end_reason) == ("relay", "session_expired")
    ladder.settle()


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refresh_restarts_the_timer(ladder: Ladder, by: str, method: str) -> None:
    agree(ladder)
    asking, asked = sides(ladder, by)
    for _ in range(3):
        ladder.run(60)
        headers = f"Contact: {asking.contact}\r\nSupported: timer\r\nSession-Expires: 90;refresher=uac\r\n"
        asking.sends(method, headers=headers, body=HOLD if method == "INVITE" else b"")
        if method == "INVITE":
            asking.get(100)
        refresh = asked.expects(
            method,
            body=HELD if method == "INVITE" else b"",
            headers="Require: timer\r\nSession-Expires: 90;refresher=uac\r\n",
        )
        assert timers(refresh) == ("90;refresher=uac", None, None)
        asking.get(200)
        if method == "INVITE":
            asked.get("ACK")
            asking.acks()
    ladder.run(89)
    asked.gets_nothing()
    ladder.run(2)
    is_hung_up(ladder, "session_expired")
    ladder.settle()


def test_refused_refresh_does_not_restart_the_timer(ladder: Ladder) -> None:
    agree(ladder)
    ladder.run(60)
    ladder.caller.updates(headers="Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n")
    ladder.callee.expects("UPDATE", 500)
    ladder.caller.get(500)
    ladder.run(31)
    is_hung_up(ladder, "session_expired")
    ladder.settle()


def test_2xx_without_session_expires_ends_the_timer(ladder: Ladder) -> None:
    """RFC 4028 7.2: a 2xx to a refresh without Session-Expires: no expiration."""
    agree(ladder)
    update(ladder.caller, ladder.callee, b"", b"")
    ladder.run(1000)
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_422_is_relayed_to_the_caller(ladder: Ladder) -> None:
    call(ladder, headers="Supported: timer\r\nSession-Expires: 90\r\n")
    ladder.callee.refuses(422, headers="Min-SE: 1800\r\n")
    assert ladder.caller.get_response(422).get("min-se") == "1800"
    ladder.caller.acks_refusal()
    ladder.caller.calls(X, headers="Supported: timer\r\nSession-Expires: 1800\r\nMin-SE: 1800\r\n")
    ladder.callee.expects("INVITE", 200, body=ANSWER, headers="Session-Expires: 1800;refresher=uac\r\n")
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    assert sorted(record.sip_status or 0 for record, _ in ladder.records.values()) == [200, 422]
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_422_within_the_call_is_relayed(ladder: Ladder, by: str, method: str) -> None:
    agree(ladder)
    asking, asked = sides(ladder, by)
    asking.sends(method, headers=f"Contact: {asking.contact}\r\nSession-Expires: 60\r\n")
    if method == "INVITE":
        asking.get(100)
    asked.expects(method, 422, headers="Min-SE: 120\r\n")
    assert asking.get_response(422).get("min-se") == "120"
    if method == "INVITE":
        asking.acks_refusal()
    hang_up(ladder)


def test_malformed_interval_is_refused(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Session-Expires: soon\r\n")
    ladder.caller.is_refused(400)
    ladder.settle()
