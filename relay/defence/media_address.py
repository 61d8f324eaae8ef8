"""Media addresses and ports that a peer may name in SDP, where media go through rtpengine.

rtpengine sends there whatever the other side sends. Unchecked, two peers could write to any service of its machine and
its networks; its own control port takes commands in a datagram.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from relay.sip.sdp import Attribute, Connection, Media, parse_sdp

_FIRST_PORT: Final = 1024  # those below belong to services of the system
_DISCARD: Final = 9  # RFC 863; written for an inactive stream
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")  # Linux sends to itself there


def media_fault(
    sdp: bytes, host: str, networks: tuple[IPv4Network | IPv6Network, ...], control_ports: frozenset[int]
) -> str:
    """What of a peer's masked SDP no media may be sent to, such as "port 2223"; "" if nothing. Raises ParseError.

    `host`: the peer's signalling address; `networks`: where its media must be, empty: anywhere; `control_ports`: of the
    relay and of rtpengine.
    """
    parsed = parse_sdp(sdp)
    connections = [connection for media in parsed.media for connection in media.connections]
    if parsed.connection is not None:
        connections.append(parsed.connection)
    faults = [_fault_of_address(connection, host, networks) for connection in connections]
    faults += [_fault_of_ports(media, parsed.attributes, control_ports) for media in parsed.media]
    return next(filter(None, faults), "")


def _fault_of_ports(media: Media, common: list[Attribute], control_ports: frozenset[int]) -> str:
    """RTP goes to every second port from that of the m= line on, RTCP to the ports between or to that of a=rtcp."""
    count = (media.port_count or 1) if media.port else 0
    rtp = [(media.port + 2 * number) % 65_536 for number in range(count)]
    named = rtp + [int(value) for name, value in (*media.attributes, *common) if name == "rtcp" and value]
    for port in named:
        if (0 < port < _FIRST_PORT and port != _DISCARD) or port > 65_535:
            return f"port {port}"
    for port in (*named, *[port + 1 for port in rtp]):
        if port in control_ports:
            return f"port {port}"
    return ""


def _fault_of_address(connection: Connection, host: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> str:
    written = ip_address(connection.address)
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
