"""The relay of the ladders: its numbers, hosts, peers and routes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from relay.model.call import Refusal, Route
from relay.model.settings import Listener, Peer, PeerRoute, Settings
from tests.support.targets import target_at

A, B = "8613800000001", "8613900000002"
X, Y = "700100000010001", "700100000010002"
RELAY, RELAY_IPV6 = "127.0.0.10", "fd00::10"
CALLER_HOST, CALLEE_HOST, SECOND_HOST = "127.0.0.11", "127.0.0.22", "127.0.0.23"
STRANGER_HOST = "127.0.0.66"  # of no peer
NO_BINDING = Refusal("no_binding", 403, 21)
NUMBER_UNKNOWN = Refusal("number_unknown", 404, 1)


def settings_for(**changes: object) -> Settings:
    """A listener per transport; a peer for the caller, one for the callee, and a second one for the callee."""
    values: dict[str, object] = {
        "listeners": (
            Listener("udp", RELAY, 5060, RELAY),
            Listener("tcp", RELAY, 5060, RELAY),
            Listener("udp", RELAY_IPV6, 5060, f"[{RELAY_IPV6}]"),
        ),
        "peers": (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST), peer("second", SECOND_HOST)),
        "routes": routes_to(("carrier",)),
        "prefixes": (X[:11],),
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def routes_to(peers: tuple[str, ...]) -> tuple[PeerRoute, ...]:
    return (PeerRoute("", peers), PeerRoute("86138", ("pbx",)))


def peer(
    name: str, host: str, port: int = 5060, transport: Literal["udp", "tcp", "tls"] = "udp", **changes: object
) -> Peer:
    values: dict[str, object] = {
        "name": name,
        "targets": (target_at(host, port, transport),),
        "tcp_allowed": False,
        "sources": (ip_network(host),),
        **changes,
    }
    return Peer(**values)  # type: ignore[arg-type]


AXB = {
    (X, A): Route("b1", "AXB", "default", "order-1", B, X, industrial_id="88.101.1/7"),
    (X, B): Route("b1", "AXB", "default", "order-1", A, X, industrial_id="88.101.1/7"),
}
