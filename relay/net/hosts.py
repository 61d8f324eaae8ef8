"""Hosts: classification of address literals and names, and their addresses from a bounded cache."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address (without brackets) or "localhost"."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_literal(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address, without brackets."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def family_of(host: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6 of an address literal without brackets."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# -- Addresses of host names, off the hot path

KEPT_S = 60.0  # cache lifetime
MAX_KEPT = 4096


class Resolver:
    """A caching resolver. An address literal costs one dict look-up."""

    def __init__(self) -> None:
        self.literals: dict[str, str] = {}  # address literals seen, mapped to themselves
        self._names: dict[tuple[str, int], tuple[str, float]] = {}

    def known(self, host: str, family: int, now: float) -> str | None:
        """The address of `host`: itself if a literal, else the cached one.

        `family` is AF_INET or AF_INET6; it only matters for names.
        """
        if (literal := self.literals.get(host)) is not None:
            return literal
        if is_literal(host):
            _make_room(self.literals)
            return self.literals.setdefault(host, host)
        address, until = self._names.get((host, family), ("", 0.0))
        return address if until > now else None

    async def resolve(self, host: str, family: int) -> str:
        """Ask the system's resolver, unless cached. Raises OSError if there is no address of that family."""
        loop = asyncio.get_running_loop()
        if (address := self.known(host, family, loop.time())) is not None:
            return address
        found = await loop.getaddrinfo(host, None, family=family, type=socket.SOCK_DGRAM)
        address = str(found[0][4][0])
        _make_room(self._names)
        self._names[host, family] = (address, loop.time() + KEPT_S)
        return address

    def addresses(self) -> list[str]:
        """All cached addresses of host names."""
        return [address for address, _ in self._names.values()]

    def names_of(self, address: str) -> list[str]:
        """The cached host names of `address`."""
        return [host for (host, _), (found, _) in self._names.items() if found == address]


def _make_room(cache: dict[Any, str] | dict[Any, tuple[str, float]]) -> None:
    # Peers choose the hosts by their Contacts, so the size must be bounded; clearing is rare and cheap.
    if len(cache) >= MAX_KEPT:
        cache.clear()
