"""`[probe]`: its settings, its own ends as a peer, and the routes of its numbers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, ip_network
from typing import Final

from relay.config.protection import duration_ms
from relay.config.tables import ProbeTable
from relay.errors import ParseError
from relay.model.numbers import Parties, parse_party
from relay.model.settings import PROBE_PEER, CallerNumbers, Listener, Peer, ProbeSettings, Settings, Target

LEAST_S, MOST_S = 10.0, 1800.0  # between two probes; the alert comes after an hour without a proof
_AT: Final = 'write an IPv4 address and port of this machine, such as "127.0.0.71:5070"'


def probe_settings(
    table: ProbeTable | None, settings: Settings, parties: Parties, *, api: bool, problems: list[str]
) -> tuple[ProbeSettings | None, Settings]:
    """The probe's settings, and the engine's with its peer and routes. `api`: whether there is a backend."""
    if table is None:
        return None, settings
    found: list[str] = []
    if not api:
        found.append("probe: the backend makes the calls; set api.enabled = true, or leave [probe] out")
    relay = _listener(settings.listeners)
    if relay is None:
        found.append('probe: needs a UDP listener on IPv4; add one to sip.listen, such as "udp:127.0.0.1:5060"')
    every_s = duration_ms("probe.every", table.every, found) / 1000
    if not LEAST_S <= every_s <= MOST_S:
        found.append(f"probe.every: {table.every} is out of range; write 10s to 30m, such as 5m")
    caller = _number("probe.caller", table.caller, parties, found)
    callees = _callees(table, settings, caller, parties, found)
    caller_at = _address("probe.caller_at", table.caller_at, found)
    callee_at = _address("probe.callee_at", table.callee_at, found)
    if any(peer.name == PROBE_PEER for peer in settings.peers):
        found.append(
            f"peer: {PROBE_PEER} is the name of the probe's own ends; choose another one, or leave [probe] out"
        )
    if any(IPv4Address(caller_at[0]) in network for peer in settings.peers for network in peer.sources):
        found.append("probe.caller_at: a peer sends from there, too; choose another address")
    problems += found
    if found or relay is None:
        return None, settings
    hosts = frozenset(host for each in settings.listeners for host in (each.host, each.advertised))
    made = ProbeSettings(every_s, relay, hosts, caller, callees, caller_at, callee_at)
    target = Target(*callee_at, "udp", f"{callee_at[0]}:{callee_at[1]}")
    source = (ip_network(f"{caller_at[0]}/32"),)
    peer = Peer(PROBE_PEER, (target,), tcp_allowed=False, sources=source, numbers=CallerNumbers(frozenset({caller})))
    routes = (*settings.routes, *made.routes)
    return made, replace(settings, peers=(*settings.peers, peer), routes=routes)


def _listener(listeners: tuple[Listener, ...]) -> tuple[str, int] | None:
    for each in listeners:
        if each.transport == "udp" and ":" not in each.host:
            return ("127.0.0.1" if each.host == "0.0.0.0" else each.host), each.port
    return None


def _number(path: str, text: str, parties: Parties, problems: list[str]) -> str:
    try:
        return parse_party(text, parties)
    except ParseError as error:
        problems.append(f"{path}: {error.reason}")
        return ""


def _callees(
    table: ProbeTable, settings: Settings, caller: str, parties: Parties, problems: list[str]
) -> tuple[tuple[str, str], ...]:
    names = {peer.name for peer in settings.peers} | {PROBE_PEER}
    prefixes = {route.prefix for route in settings.routes}
    callees: dict[str, str] = {}
    if not table.callees:
        problems.append('probe.callees: empty; write a peer and your number behind it, such as {probe = "13900000072"}')
    for peer, text in table.callees.items():
        path = f"probe.callees.{peer}"
        if peer not in names:
            problems.append(f"{path}: no peer is named so; write one of {', '.join(sorted(names))}")
        number = _number(path, text, parties, problems)
        if number in (caller, *callees.values()):
            problems.append(f"{path}: this number has another part in the probe; each needs its own")
        if number in prefixes:
            problems.append(f"{path}: there is a [[route]] of this very number; leave it out")
        callees[peer] = number
    return tuple(callees.items())


def _address(path: str, text: str, problems: list[str]) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        address = IPv4Address(host)
        if not port.isdecimal() or not 1 <= int(port) <= 65_535 or address.is_unspecified:
            raise ValueError
    except (AddressValueError, ValueError):
        problems.append(f"{path}: {text!r} is no such address; {_AT}")
        return "127.0.0.71", 5070
    return str(address), int(port)
