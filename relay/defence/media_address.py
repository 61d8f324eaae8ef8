"""Media addresses and ports that a peer may name in SDP, where media go through rtpengine.

rtpengine sends there whatever the other side sends. Unchecked, two peers could write to any service of its machine and
its networks; its own control port takes commands in a datagram.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

from relay.sip.sdp import MediaDescription, Sdp, parse_sdp

_FIRST_PORT: Final = 1024  # those below belong to services of the system
_DISCARD: Final = 9  # RFC 863; written for an inactive stream
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")  # Linux sends to itself there


class Controls(NamedTuple):
    """Hosts and ports where the relay takes requests and rtpengine takes commands: each port counts at each host."""

    ports: frozenset[int]
    hosts: set[str]  # of their machines, as far as known; those that rtpengine writes into SDP are added


def media_fault(sdp: bytes, host: str, networks: tuple[IPv4Network | IPv6Network, ...], controls: Controls) -> str:
    """The first part of a peer's masked SDP to which no media may be sent, such as "port 2223"; "" if there is none.

    Raises ParseError. `host`: the peer's signalling address; `networks`: where its media must be, empty: anywhere.
    """
    parsed = parse_sdp(sdp)
    for media in parsed.media:
        if media.port:
            address = _address_of(media, parsed)
            if fault := _fault_of_address(address, host, networks) or _fault_of_ports(media, parsed, address, controls):
                return fault
    return ""


def _address_of(media: MediaDescription, session: Sdp) -> IPv4Address | IPv6Address:
    """The address of the media: the stream's own c= precedes the session's. Unspecified without either."""
    connection = media.connections[0] if media.connections else session.connection
    return ip_address(connection.address if connection is not None else "0.0.0.0")


def _fault_of_ports(
    media: MediaDescription, session: Sdp, written: IPv4Address | IPv6Address, controls: Controls
) -> str:
    """RTP goes to the port of the m= line, RTCP to that of a=rtcp or else to the next."""
    own = [int(value) for name, value in media.attributes if name == "rtcp" and value]
    ports = [media.port, *own, *[int(value) for name, value in session.attributes if name == "rtcp" and value]]
    for port in ports:
        if (0 < port < _FIRST_PORT and port != _DISCARD) or port > 65_535:
            return f"port {port}"
    if not _may_be_ours(_unmapped(written), controls):
        return ""
    if not own or 0 in own:
        ports.append(media.port + 1)
    return next((f"port {port}" for port in ports if port in controls.ports), "")


def _may_be_ours(address: IPv4Address | IPv6Address, controls: Controls) -> bool:
    """Whether the address may be one of this machine or of rtpengine's."""
    return address.is_loopback or address.is_unspecified or str(address) in controls.hosts


def _fault_of_address(
    written: IPv4Address | IPv6Address, host: str, networks: tuple[IPv4Network | IPv6Network, ...]
) -> str:
    if not int(written):  # RFC 3264 8.4: old form of hold, to which rtpengine sends nothing
        return ""
    address = _unmapped(written)
    if address.is_loopback:
        if not _is_loopback(host):
            return "loopback address"
    elif address.is_multicast or address.is_link_local or address.is_reserved or _is_this_network(address):
        return "reserved address"
    if networks and not any([each.version == address.version and address in each for each in networks]):
        return "address outside the peer's networks of media"
    return ""


def hosts_in(sdp: bytes) -> set[str]:
    """The media addresses of SDP that rtpengine wrote."""
    return {_spelled(host.decode()) for host in set(_hosts_of(sdp))}


_hosts_of: Final = re.compile(rb"\nc=IN IP[46] ([0-9A-Fa-f.:]+)").findall


def _spelled(host: str) -> str:
    """The address as `Controls` has it; other text as it is."""
    try:
        return str(_unmapped(ip_address(host)))
    except ValueError:
        return host


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv4-mapped one stands for."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _is_this_network(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv4Address) and address in _THIS_NETWORK


def _is_loopback(host: str) -> bool:
    try:
        return _unmapped(ip_address(host.partition("%")[0])).is_loopback
    except ValueError:  # a host name
        return False
