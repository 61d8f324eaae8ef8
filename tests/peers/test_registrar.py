"""The registrar: one contact for each peer, on the flow of its REGISTER. Log-ins: tests/ladder."""

from __future__ import annotations

from relay.defence.bans import Bans
from relay.defence.stateless import StatelessServer
from relay.model.actions import Send
from relay.model.settings import Account, Peer
from relay.peers.registrar import MOST_CONTACTS, SHORTEST_S, Registrar
from relay.privacy.messages import Reply
from relay.sip.message import Flow, Response, parse_message
from tests.call.support import Parts, invite

PHONE = Peer("phone", (), tcp_allowed=False, sources=(), login=Account("1001", "secret"))
FIRST, SECOND = Flow(0, "udp", "198.51.100.7", 5070), Flow(0, "udp", "198.51.100.8", 5080)


def registering() -> tuple[Registrar, Parts]:
    parts = Parts(peers=(PHONE,), routes=())
    stateless = StatelessServer(parts.outbox, parts.shares, parts.peers.name_on, "tag")
    return Registrar(parts.ua, Bans(parts.settings.limits), parts.shares, stateless), parts


def register(registrar: Registrar, parts: Parts, flow: Flow, *lines: str, branch: str = "1") -> Response:
    via = f"Via: SIP/2.0/UDP {flow.host};branch=z9hG4bK{branch}"
    request = invite(via, "To: <sip:1001@192.0.2.10>", *lines, method="REGISTER")
    registrar.register(request, Reply(request, flow), PHONE, flow, 1.0)
    (sent,) = (action for action in parts.outbox.take_actions() if isinstance(action, Send))
    response = parse_message(sent.data)
    assert isinstance(response, Response)
    return response


def test_last_registered_flow_is_the_peers() -> None:
    registrar, parts = registering()
    assert register(registrar, parts, FIRST, "Contact: <sip:a@10.0.0.5>;expires=100").status == 200
    assert parts.peers.at(FIRST) is PHONE
    moved = ("Contact: <sip:a@10.0.0.6>;expires=100", "CSeq: 8 REGISTER")
    assert register(registrar, parts, SECOND, *moved, branch="2").status == 200
    assert (parts.peers.at(FIRST), parts.peers.at(SECOND)) == (None, PHONE)
    (target,) = parts.peers.targets_of("phone")
    assert (target.flow, target.configured.written) == (SECOND, "10.0.0.6")
    assert (parts.peers.name_on(SECOND), registrar.count(), registrar.holds("phone")) == ("phone", 1, True)


def test_registration_ends_at_its_time() -> None:
    registrar, parts = registering()
    register(registrar, parts, FIRST, "Contact: <sip:a@10.0.0.5>;expires=100")
    parts.timers.run(101.0)
    assert parts.peers.registered == {}
    assert parts.peers.targets_of("phone") == []
    assert not registrar.holds("phone")


def test_broken_connection_ends_its_registration() -> None:
    registrar, parts = registering()
    flow = Flow(1, "tcp", "198.51.100.7", 40_000, 7)
    register(registrar, parts, flow, "Contact: <sip:a@10.0.0.5>")
    registrar.lose(flow._replace(connection=8))
    assert registrar.holds("phone")
    registrar.lose(flow)
    assert not registrar.holds("phone")


def test_too_brief_a_time_is_423() -> None:
    registrar, parts = registering()
    response = register(registrar, parts, FIRST, f"Contact: <sip:a@10.0.0.5>;expires={SHORTEST_S - 1}")
    assert (response.status, response.get("min-expires")) == (423, str(SHORTEST_S))
    assert registrar.count() == 0


def test_more_than_most_contacts_are_400() -> None:
    registrar, parts = registering()
    lines = [f"Contact: <sip:{target}@10.0.0.5>" for target in range(MOST_CONTACTS + 1)]
    assert register(registrar, parts, FIRST, *lines).status == 400
    assert registrar.count() == 0
    assert register(registrar, parts, FIRST, *lines[1:], branch="2").status == 200


def test_reload_keeps_a_peer_with_the_same_login() -> None:
    registrar, parts = registering()
    register(registrar, parts, FIRST, "Contact: <sip:a@10.0.0.5>")
    same = Peer("phone", (), tcp_allowed=True, sources=(), login=Account("1001", "secret"))
    parts.peers.apply_config(Parts(peers=(same,), routes=()).settings, {})
    registrar.apply_config()
    assert parts.peers.at(FIRST) is same
    other = Peer("phone", (), tcp_allowed=True, sources=(), login=Account("1001", "changed"))
    parts.peers.apply_config(Parts(peers=(other,), routes=()).settings, {})
    registrar.apply_config()
    assert parts.peers.at(FIRST) is None
