"""Classification of hosts."""

from __future__ import annotations

import socket

import pytest

from relay.net.hosts import family_of, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.9", "::1", "localhost"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::", "localhost.example", "127.0.0.1.example", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "family"), [("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6), ("::", socket.AF_INET6)]
)
def test_the_family_of_an_address(host: str, family: socket.AddressFamily) -> None:
    assert family_of(host) is family
