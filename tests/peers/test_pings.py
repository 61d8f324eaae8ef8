"""OPTIONS pings of targets."""

from __future__ import annotations

from relay.model.actions import Note, Send
from relay.model.settings import Health
from relay.peers.pings import Pings
from relay.sip.message import Request, Response, parse_message
from tests.call.support import Parts, peer


def pinging() -> tuple[Pings, Parts]:
    parts = Parts(peers=(peer("carrier", "192.0.2.22", health=Health(ping_s=10, down_after=2, up_after=1)),), routes=())
    pings = Pings(parts.ua)
    pings.follow(parts.settings, 0.0)
    return pings, parts


def sent(parts: Parts) -> list[Request]:
    messages = [parse_message(action.data) for action in parts.outbox.take_actions() if isinstance(action, Send)]
    return [message for message in messages if isinstance(message, Request)]


def answer(parts: Parts, request: Request, status: int, now: float) -> None:
    lines = "".join(f"{name}: {request.get(name)}\r\n" for name in ("via", "from", "to", "call-id", "cseq"))
    response = parse_message(f"SIP/2.0 {status} x\r\n{lines}\r\n".encode())
    assert isinstance(response, Response)
    assert parts.transactions.receive_response(response, now)


def test_target_is_pinged_at_its_interval() -> None:
    _, parts = pinging()
    for now in (1.0, 11.0):
        parts.timers.run(now)
        (ping,) = sent(parts)
        assert (ping.method, ping.uri) == ("OPTIONS", "sip:192.0.2.22")
        answer(parts, ping, 404, now)


def test_failed_pings_take_a_target_down_and_an_answer_brings_it_up() -> None:
    _, parts = pinging()
    (place,) = parts.peers.places()
    for now, is_down in ((1.0, False), (11.0, True)):
        parts.timers.run(now)
        (ping,) = sent(parts)
        answer(parts, ping, 503, now)
        assert place.is_down is is_down
    parts.timers.run(21.0)
    (ping,) = sent(parts)
    answer(parts, ping, 200, 21.0)
    assert not place.is_down
    assert [note.event for note in parts.outbox.take_actions() if isinstance(note, Note)] == ["target.up"]


def test_unchanged_settings_do_not_restart_the_pings() -> None:
    pings, parts = pinging()
    timers = len(parts.timers)
    pings.follow(parts.settings, 0.5)
    assert len(parts.timers) == timers
    pings.follow(Parts(peers=(), routes=()).settings, 0.6)
    assert len(parts.timers) == 0
