"""Our registrations at trunks, one by one. With challenges and failures: tests/ladder."""

from __future__ import annotations

from relay.model.actions import Send
from relay.model.settings import Account
from relay.peers.registrations import Registrations
from relay.sip.message import Request, Response, parse_message
from tests.call.support import Parts, peer

TRUNK = peer("carrier", "192.0.2.22", account=Account("4001", "secret"), registers=True)


def sent(parts: Parts) -> Request:
    (action,) = (action for action in parts.outbox.take_actions() if isinstance(action, Send))
    message = parse_message(action.data)
    assert isinstance(message, Request)
    return message


def grant(parts: Parts, request: Request, seconds: int, now: float) -> None:
    lines = "".join(f"{name}: {request.get(name)}\r\n" for name in ("via", "from", "to", "call-id", "cseq"))
    response = parse_message(f"SIP/2.0 200 OK\r\n{lines}Expires: {seconds}\r\n\r\n".encode())
    assert isinstance(response, Response)
    assert parts.transactions.receive_response(response, now)


def test_registration_is_made_and_removed_with_its_peer() -> None:
    parts = Parts(peers=(TRUNK,), routes=())
    registrations = Registrations(parts.ua)
    registrations.follow(0.0)
    first = sent(parts)
    assert (first.method, first.get("expires")) == ("REGISTER", "3600")
    assert not registrations.holds("carrier", 0.1)
    grant(parts, first, 100, 0.1)
    assert registrations.holds("carrier", 100.0)
    assert not registrations.holds("carrier", 100.2)

    parts.peers.follow(Parts(peers=(), routes=()).settings, {})
    registrations.follow(1.0)
    last = sent(parts)
    assert (last.get("expires"), last.call_id, registrations.leaving) == ("0", first.call_id, 1)
    grant(parts, last, 0, 1.1)
    assert registrations.leaving == 0


def test_nothing_is_registered_after_the_shutdown_began() -> None:
    parts = Parts(peers=(TRUNK,), routes=())
    registrations = Registrations(parts.ua)
    registrations.give_up(0.0)
    registrations.follow(1.0)
    assert parts.outbox.take_actions() == []
