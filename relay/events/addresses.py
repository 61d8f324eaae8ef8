"""Which addresses are the internet's, and at which a webhook can never be. Told from the text: nothing is looked up."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address, ip_network

_UNICAST = ip_network("2000::/3")  # RFC 4291 2.4: of the rest some is in use within networks alone, as fec0::/10
_6TO4 = (ip_network("2002::/16"), ip_network("192.88.99.0/24"))  # RFC 7526: out of use
_EMBEDDING = (
    ip_network("64:ff9b::/96"),
    ip_network("::/96"),
)  # RFC 6052 2.1, RFC 4291 2.5.5.1: the last 32 bits are IPv4
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a name's last label never is: it would be read as an address
_LOCAL = ("localhost", "local", "internal")  # RFC 6761, RFC 6762


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, which anybody could reach."""
    parsed = ip_address(address.partition("%")[0])
    if any(parsed in network for network in _EMBEDDING):
        parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
    if not parsed.is_global or parsed.is_multicast or any(parsed in network for network in _6TO4):
        return False
    return parsed.version == 4 or parsed in _UNICAST


def why_never(host: str, port: int | None, *, internal: bool) -> str:
    """Why nothing can ever be delivered to a URL's host and port; "" where it may be. No name is looked up.

    `internal`: it may be beside the relay, and not on the internet alone.
    """
    if port == 0:
        return "there is no port 0: leave the port out, or name the one that is listened to"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _why_no_name(host, internal=internal)
    if address.is_unspecified or address.is_multicast or (address.version == 4 and address.is_reserved):
        return f"nobody can be reached at {address}: name the address of one machine"
    if not internal and not is_public(host):
        return f"{address} is not an address of the internet: name one that is"
    return ""


def _why_no_name(host: str, *, internal: bool) -> str:
    labels = host.removesuffix(".").lower().split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or _NUMERIC.fullmatch(labels[-1]):
        return "its host is neither a name nor an address"
    if labels[-1] == "invalid":  # RFC 6761 6.4
        return f"no machine has the name {host}"
    if not internal and (len(labels) == 1 or labels[-1] in _LOCAL or host.lower().endswith("home.arpa")):
        return f"{host} is not a name of the internet: write it with its domain"
    return ""
