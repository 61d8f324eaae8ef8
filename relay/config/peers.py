"""Peers as the engine takes them: targets, sources, accounts and limits, each fault with its key path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Literal, NamedTuple, cast

from relay.config.parties import caller_numbers
from relay.config.tables import DnsTable, PeerTable, TargetTable
from relay.errors import ParseError
from relay.model.numbers import NumberFormat
from relay.model.settings import (
    Account,
    CallerNumbers,
    Health,
    Listener,
    Peer,
    PeerCertificate,
    Quota,
    Target,
    Transport,
)
from relay.peers.peers import host_port
from relay.privacy.codecs import KNOWN_CODECS
from relay.sip.uri import SipUri, parse_uri

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_REFUSED = 200  # refused attempts within ten minutes, default of a peer with a list of numbers
_URI_HELP = 'write one such as "sip:192.0.2.10:5060;transport=udp"'


def read_peers(
    tables: Sequence[PeerTable | None], listeners: Sequence[Listener] | None, problems: list[str]
) -> list[Peer]:
    """`listeners` is None where some are faulty: transports of peers are not checked against them then."""
    peers: list[Peer] = []
    names: set[str] = set()
    for index, table in enumerate(tables):
        path = f"peer[{index}]"
        if table is None:
            continue
        if table.name in names:
            problems.append(f"{path}.name: {table.name} is taken; each peer needs a unique name")
        names.add(table.name)
        peer = _peer(path, table, listeners, problems)
        if peer is not None:
            peers.append(peer)
    _check_logins(tables, problems)
    return peers


def _peer(path: str, table: PeerTable, listeners: Sequence[Listener] | None, problems: list[str]) -> Peer | None:
    _check_accounts(path, table, problems)
    if table.login is not None:
        return _make_peer(path, table, [], (), large_by_tcp=False, problems=problems)
    targets, large_by_tcp = _targets(path, table, listeners, problems)
    if not targets:
        _sources(path, table.sources or (), (), problems)
        return None
    sources = _sources(path, table.sources, [target.host for target in targets], problems)
    return _make_peer(path, table, targets, sources, large_by_tcp=large_by_tcp, problems=problems)


def _make_peer(
    path: str,
    table: PeerTable,
    targets: list[Target],
    sources: tuple[Network, ...],
    *,
    large_by_tcp: bool,
    problems: list[str],
) -> Peer:
    auth, login = table.auth, table.login
    prefix = table.number_format.removeprefix("prefix:") if ":" in table.number_format else ""
    return Peer(
        name=table.name,
        targets=tuple(targets),
        tcp_allowed=large_by_tcp,
        sources=sources,
        identity=table.identity,
        number_format=cast(NumberFormat, "e164" if prefix else table.number_format),
        number_prefix=prefix,
        user_phone=table.user_phone,
        send_pai=table.send_pai,
        health=Health(table.ping_s, table.down_after, table.up_after),
        codecs=_codecs(path, table, problems),
        media=_networks(f"{path}.media", table.media, problems),
        # A phone that registers may be behind NAT.
        media_source=table.media_source or ("sdp" if login is None else "learned"),
        account=Account(auth.username, "", auth.realm) if auth else None,
        registers=table.register,
        login=Account(login.username, "") if login else None,
        numbers=(numbers := caller_numbers(path, table, problems)),
        max_refused_in=_max_refused(table, numbers),
        quota_in=Quota(table.max_calls_in, table.max_cps_in),
        quota_out=Quota(table.max_calls_out, table.max_cps_out),
    )


def _max_refused(table: PeerTable, numbers: CallerNumbers | None) -> int:
    """The default is no limit for a peer with any numbers: its honest callers would pay for the others."""
    if table.max_refused_in is not None:
        return table.max_refused_in
    return 0 if numbers is None else MAX_REFUSED


def proven_by_tls(peers: Sequence[Peer]) -> list[Peer]:
    """The peers where connections bring certificates: one that is reached by TLS alone sends by TLS alone."""
    return [
        replace(peer, tls_only=bool(peer.targets) and {"tls"} == {to.transport for to in peer.targets})
        for peer in peers
    ]


def _check_accounts(path: str, table: PeerTable, problems: list[str]) -> None:
    if table.register and table.auth is None:
        problems.append(f"{path}.register: needs auth; write it with username and password_file")
    if table.register and table.auth is not None and "@" in table.auth.username:
        problems.append(f"{path}.auth.username: the relay registers as this user; leave out the part from @ on")
    if table.login is None:
        return
    has_address = ("uri", "targets", "sources", "ping_s", "auth", "register", "certificate", "key")
    problems.extend(
        [
            f"{path}.{name}: leave it out; a peer with a login is reached where it has registered"
            for name in has_address
            if getattr(table, name)
        ]
    )


def _check_logins(tables: Sequence[PeerTable | None], problems: list[str]) -> None:
    names: dict[str, str] = {}
    for index, table in enumerate(tables):
        if table is not None and table.login is not None:
            path = f"peer[{index}].login.username"
            first = names.setdefault(table.login.username, path)
            if first != path:
                problems.append(f"{path}: taken by {first}; each peer needs its own")


def _codecs(path: str, table: PeerTable, problems: list[str]) -> frozenset[str] | None:
    for index, name in enumerate(table.codecs):
        if name.lower() not in KNOWN_CODECS:
            near = get_close_matches(name.lower(), KNOWN_CODECS, 1)
            hint = f"did you mean {near[0].upper()}?" if near else "write one such as PCMA"
            problems.append(f"{path}.codecs[{index}]: {name!r} is not a codec that is relayed; {hint}")
    return frozenset([name.lower() for name in table.codecs]) if table.codecs else None


def _targets(
    path: str, table: PeerTable, listeners: Sequence[Listener] | None, problems: list[str]
) -> tuple[list[Target], bool]:
    """Return the targets of the peer, and whether large requests may go there by TCP."""
    if (table.uri is None) == (not table.targets):
        problems.append(f"{path}.uri: {_URI_HELP}, or a list of targets, not both")
        return [], False
    places = [(f"{path}.uri", TargetTable(table.uri))] if table.uri else []
    places += [(f"{path}.targets[{index}].uri", target) for index, target in enumerate(table.targets)]
    targets: list[Target] = []
    # RFC 3261 18.1.1: a request over the MTU goes by TCP, unless the URI names a transport.
    large_by_tcp = True
    for key, target in places:
        uri = _parse_peer_uri(key, target.uri, problems)
        transport = None if uri is None else _transport_of(uri)
        if uri is None:
            continue
        if transport is None:
            problems.append(f"{key}: {_no_transport(uri)}")
            continue
        if listeners is not None and not _has_listener(listeners, transport, uri.host):
            problems.append(f"{key}: {_no_listener(transport, uri.host)}")
        targets.append(_target(uri, transport, target))
        large_by_tcp &= "transport" not in uri.params and transport == "udp"
        large_by_tcp &= _has_listener(listeners or (), "tcp", uri.host)
    return (targets if len(targets) == len(places) else []), large_by_tcp


def _target(uri: SipUri, transport: Transport, table: TargetTable) -> Target:
    """RFC 3263 4.1, 4.2: a name without a port is looked up by SRV, and by NAPTR if it has no transport either."""
    search: Literal["address", "srv", "naptr"] = "address"
    if uri.port is None and _literal(uri.host) is None:
        search = "srv" if "transport" in uri.params else "naptr"
    port = uri.port or (5061 if transport == "tls" else 5060)
    written = host_port(uri.host, port) if search == "address" else uri.host
    return Target(uri.host, port, transport, written, table.priority, table.weight, search)


def _parse_peer_uri(path: str, text: str, problems: list[str]) -> SipUri | None:
    try:
        uri = parse_uri(text)
    except ParseError as error:
        problems.append(f"{path}: {error.reason}; {_URI_HELP}")
        return None
    if not isinstance(uri, SipUri):
        problems.append(f"{path}: not a SIP URI; {_URI_HELP}")
        return None
    if uri.user is not None or uri.headers:
        problems.append(f"{path}: a peer's URI has no user and no headers; {_URI_HELP}")
        return None
    if uri.port == 0:
        problems.append(f"{path}: port 0 does not exist; {_URI_HELP}")
        return None
    return uri


def _transport_of(uri: SipUri) -> Transport | None:
    named = (uri.params.get("transport") or "udp").lower()
    if uri.scheme == "sips":
        return "tls" if "transport" not in uri.params or named in ("tcp", "tls") else None
    return cast(Transport, named) if named in ("udp", "tcp", "tls") else None


def _no_transport(uri: SipUri) -> str:
    named = uri.params["transport"]
    if uri.scheme == "sips" and named in ("udp", "UDP"):  # RFC 3261 26.2.2
        return "sips: needs TLS; leave out the transport, or write sip:"
    return f"unknown transport {named!r}; write udp, tcp or tls"


def _sources(path: str, texts: Sequence[str] | None, hosts: Sequence[str], problems: list[str]) -> tuple[Network, ...]:
    if texts is None:
        addresses = [_literal(host) for host in hosts]
        if None in addresses:
            problems.append(
                f'{path}.sources: missing, and the uri is a host name; write networks such as ["192.0.2.0/28"]'
            )
            return ()
        return tuple([ip_network(address) for address in addresses if address])
    return _networks(f"{path}.sources", texts, problems)


def _networks(path: str, texts: Sequence[str], problems: list[str]) -> tuple[Network, ...]:
    networks: list[Network] = []
    for index, text in enumerate(texts):
        try:
            networks.append(ip_network(text))
        except ValueError:
            problems.append(
                f'{path}[{index}]: {text!r} is no network, or not its first address; write one such as "192.0.2.0/28"'
            )
    return tuple(networks)


def _has_listener(listeners: Sequence[Listener], transport: str, host: str) -> bool:
    address = _literal(host)
    return any(
        listener.transport == transport and (address is None or ip_address(listener.host).version == address.version)
        for listener in listeners
    )


def _no_listener(transport: str, host: str) -> str:
    address = _literal(host)
    wanted = f"{transport} over IPv{address.version}" if address else transport
    example = f"{transport}:{'[::1]' if address and address.version == 6 else '127.0.0.1'}:5060"
    return f'no listener for {wanted}; add one to sip.listen, such as "{example}"'


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def peer_certificates(
    tables: Sequence[PeerTable | None], peers: Sequence[Peer], problems: list[str]
) -> tuple[PeerCertificate, ...]:
    """The certificates of peers that have one of their own, other than that of [tls]."""
    by_tls = {
        peer.name for peer in peers for target in peer.targets if target.transport == "tls" or target.search == "naptr"
    }
    found = []
    for index, table in enumerate(tables):
        path = f"peer[{index}]"
        if table is None or (table.certificate is None and table.key is None):
            continue
        if table.certificate is None or table.key is None:
            problems.append(f"{path}.{'key' if table.key is None else 'certificate'}: missing; write both or neither")
        elif table.name not in by_tls:
            problems.append(f"{path}.certificate: this peer is not reached by TLS; write its uri with transport=tls")
        else:
            found.append(PeerCertificate(table.name, Path(table.certificate), Path(table.key), path))
    return tuple(found)


def dns_servers(table: DnsTable, problems: list[str]) -> tuple[tuple[str, int], ...]:
    """Return the addresses and ports of the DNS servers."""
    servers = []
    for index, text in enumerate(table.servers):
        found = _SERVER.fullmatch(text)
        address = _literal(found[1] or found[2] or found[4]) if found else None
        port = int(found[3] or 53) if found else 0
        if address is None or not 1 <= port <= 65535:
            problems.append(f'dns.servers[{index}]: {text!r} is not an address; write "192.0.2.53" or "[::1]:5353"')
        else:
            servers.append((str(address), port))
    return tuple(servers)


# An address, or one with a port: [IPv6]:port, IPv4:port.
_SERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")


# -- Files with the passwords of accounts. The relay reads them, commands do not


class PasswordFile(NamedTuple):
    """The password file of one account."""

    peer: str
    is_login: bool  # account of the peer here; else our account there
    key: str  # key path of the setting, for errors
    path: Path


def password_files(tables: Sequence[PeerTable | None]) -> tuple[PasswordFile, ...]:
    found = []
    for index, table in enumerate(tables):
        if table is None:
            continue
        if table.auth is not None:
            key = f"peer[{index}].auth.password_file"
            found.append(PasswordFile(table.name, False, key, Path(table.auth.password_file)))
        if table.login is not None:
            key = f"peer[{index}].login.password_file"
            found.append(PasswordFile(table.name, True, key, Path(table.login.password_file)))
    return tuple(found)
