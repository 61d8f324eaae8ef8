"""Settings with two listeners and three peers, and received messages, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from relay.call.admission import Admission
from relay.call.call import Calls
from relay.call.dialogs import Dialogs
from relay.defence.limits import PeerShares
from relay.model.actions import Outbox
from relay.model.settings import Limits, Listener, Peer, PeerRoute, Settings
from relay.peers.limits import CallCounts
from relay.peers.peers import Peers
from relay.peers.user_agent import UserAgent
from relay.sip.message import Flow, Request, Response, parse_message
from relay.sip.timers import WallClock
from tests.support.targets import target_at

UDP = Listener("udp", "192.0.2.10", 5060, "192.0.2.10")
TCP = Listener("tcp", "192.0.2.10", 5060, "192.0.2.10")
UDP6 = Listener("udp", "2001:db8::10", 5062, "[2001:db8::10]")
FLOW = Flow(0, "udp", "192.0.2.11", 5060)


def peer(name: str = "pbx", host: str = "192.0.2.11", *sources: str, **changes: object) -> Peer:
    values: dict[str, object] = {"targets": (target_at(host),), "tcp_allowed": False, **changes}
    networks = tuple(ip_network(source) for source in sources or (f"{host}/32",))
    return Peer(name, sources=networks, **values)  # type: ignore[arg-type]


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {
        "listeners": (UDP, TCP, UDP6),
        "peers": (peer(), peer("carrier", "192.0.2.22"), peer("six", "2001:db8::6", "2001:db8::/64")),
        "routes": (PeerRoute("", ("carrier",)), PeerRoute("8613", ("six", "pbx")), PeerRoute("86139", ("pbx",))),
        "prefixes": ("70010000001",),
        "limits": Limits(max_calls=1, max_calls_per_peer=2, max_pending_lookups=2, max_transactions=3),
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


class Parts:
    """The parts of an engine, without the engine."""

    def __init__(self, **changes: object) -> None:
        tokens = _tokens()
        self.settings = settings(**changes)
        self.token = lambda: next(tokens)
        self.outbox = Outbox()
        self.peers = Peers(self.settings)
        self.ua = UserAgent(self.outbox, self.peers, self.settings.timings, self.token)
        self.timers = self.ua.timers
        self.transactions = self.ua.transactions
        self.shares = PeerShares(self.outbox, self.timers, self.transactions, self.settings.limits)
        self.dialogs = Dialogs(self.transactions)
        self.counts = CallCounts()
        self.admission = Admission(self.peers, self.dialogs, self.counts, self.shares)
        self.clock = WallClock(0.0)
        self.calls = Calls(self.ua, self.counts, self.clock, self.settings)


def _tokens() -> Iterator[str]:
    for number in range(1, 1000):
        yield f"{number:016x}"


def invite(*lines: str, uri: str = "sip:700100000010001@192.0.2.10", method: str = "INVITE") -> Request:
    """`lines` come before the default lines of the same name."""
    usual = (
        "Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKa;rport",
        "From: <sip:13800000001@192.0.2.11>;tag=a",
        "To: <sip:700100000010001@192.0.2.10>",
        "Call-ID: a@192.0.2.11",
        f"CSeq: 7 {method}",
        "Contact: <sip:a@192.0.2.11>",
        "Max-Forwards: 70",
    )
    names = {line.partition(":")[0] for line in lines}
    kept = [line for line in usual if line.partition(":")[0] not in names]
    message = parse_message(
        "\r\n".join([f"{method} {uri} SIP/2.0", *lines, *kept, "", ""]).encode("utf-8", "surrogateescape")
    )
    assert isinstance(message, Request)
    return message


def ok(*lines: str, body: bytes = b"") -> Response:
    message = parse_message("\r\n".join(["SIP/2.0 200 Fine", *lines, "", ""]).encode() + body)
    assert isinstance(message, Response)
    return message
