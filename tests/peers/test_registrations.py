"""Our registrations at trunks, one by one. With challenges and failures: tests/ladder."""

from __future__ import annotations

from relay.model.actions import Note, Send
from relay.model.settings import Account, Health
from relay.peers.registrations import Pings, Registrations
from relay.sip.message import Request, Response, parse_message
from tests.call.support import Parts, peer

TRUNK = peer("carrier", "192.0.2.22", account=Account("4001", "secret"), registers=True)


def sent(parts: Parts) -> Request:
    (action,) = (action for action in parts.outbox.take_actions() if isinstance(action, Send))
    message = parse_message(action.data)
    assert isinstance(message, Request)
    return message


def answer(parts: Parts, request: Request, now: float, status: int = 200, more: str = "") -> None:
    lines = "".join(f"{name}: {request.get(name)}\r\n" for name in ("via", "from", "to", "call-id", "cseq"))
    response = parse_message(f"SIP/2.0 {status} x\r\n{lines}{more}\r\n".encode())
    assert isinstance(response, Response)
    assert parts.transactions.receive_response(response, now)


def test_registration_is_made_and_removed_with_its_peer() -> None:
    parts = Parts(peers=(TRUNK,), routes=())
    registrations = Registrations(parts.ua)
    registrations.apply_config(0.0)
    first = sent(parts)
    assert (first.method, first.get("expires")) == ("REGISTER", "3600")
    assert not registrations.holds("carrier", 0.1)
    answer(parts, first, 0.1, more="Expires: 100\r\n")
    assert registrations.holds("carrier", 100.0)
    assert not registrations.holds("carrier", 100.2)

    parts.peers.apply_config(Parts(peers=(), routes=()).settings, {})
    registrations.apply_config(1.0)
    last = sent(parts)
    assert (last.get("expires"), last.call_id, registrations.leaving) == ("0", first.call_id, 1)
    answer(parts, last, 1.1, more="Expires: 0\r\n")
    assert registrations.leaving == 0


def test_nothing_is_registered_after_the_shutdown_began() -> None:
    parts = Parts(peers=(TRUNK,), routes=())
    registrations = Registrations(parts.ua)
    registrations.give_up(0.0)
    registrations.apply_config(1.0)
    assert parts.outbox.take_actions() == []


# -- OPTIONS pings of targets


def pinging() -> tuple[Pings, Parts]:
    parts = Parts(peers=(peer("carrier", "192.0.2.22", health=Health(ping_s=10, down_after=2, up_after=1)),), routes=())
    pings = Pings(parts.ua)
    pings.apply_config(parts.settings, 0.0)
    return pings, parts


def pings_sent(parts: Parts) -> list[Request]:
    messages = [parse_message(action.data) for action in parts.outbox.take_actions() if isinstance(action, Send)]
    return [message for message in messages if isinstance(message, Request)]


def test_target_is_pinged_at_its_interval() -> None:
    _, parts = pinging()
    for now in (1.0, 11.0):
        parts.timers.run(now)
        (ping,) = pings_sent(parts)
        assert (ping.method, ping.uri) == ("OPTIONS", "sip:192.0.2.22")
        answer(parts, ping, now, 404)


def test_failed_pings_take_a_target_down_and_an_answer_brings_it_up() -> None:
    _, parts = pinging()
    (target,) = parts.peers.targets()
    for now, is_down in ((1.0, False), (11.0, True)):
        parts.timers.run(now)
        (ping,) = pings_sent(parts)
        answer(parts, ping, now, 503)
        assert target.is_down is is_down
    parts.timers.run(21.0)
    (ping,) = pings_sent(parts)
    answer(parts, ping, 21.0)
    assert not target.is_down
    assert [note.event for note in parts.outbox.take_actions() if isinstance(note, Note)] == ["target.up"]


def test_unchanged_settings_do_not_restart_the_pings() -> None:
    pings, parts = pinging()
    timers = len(parts.timers)
    pings.apply_config(parts.settings, 0.5)
    assert len(parts.timers) == timers
    pings.apply_config(Parts(peers=(), routes=()).settings, 0.6)
    assert len(parts.timers) == 0
