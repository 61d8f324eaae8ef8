"""Classification of hosts."""

from __future__ import annotations

import socket

import pytest

from relay.net.hosts import KEPT_S, MAX_KEPT, Resolver, family_of, is_loopback


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


# -- Resolver


@pytest.mark.parametrize("literal", ["127.0.0.1", "::1", "2001:db8::1"])
def test_an_address_literal_is_known_at_once(literal: str) -> None:
    assert Resolver().known(literal, socket.AF_INET, 0.0) == literal


def test_a_name_is_not_known_before_it_is_resolved() -> None:
    assert Resolver().known("localhost", socket.AF_INET, 0.0) is None


async def test_a_resolved_name_is_cached_for_a_minute() -> None:
    resolver = Resolver()
    assert await resolver.resolve("localhost", socket.AF_INET) == "127.0.0.1"
    (until,) = [until for _, until in resolver._names.values()]
    assert resolver.known("localhost", socket.AF_INET, until - KEPT_S) == "127.0.0.1"
    assert resolver.known("localhost", socket.AF_INET, until - 0.001) == "127.0.0.1"
    assert resolver.known("localhost", socket.AF_INET, until) is None
    assert resolver.names_of("127.0.0.1") == ["localhost"]


async def test_a_name_is_resolved_per_address_family() -> None:
    resolver = Resolver()
    await resolver.resolve("localhost", socket.AF_INET)
    assert resolver.known("localhost", socket.AF_INET6, 0.0) is None


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64 + ".invalid"])
async def test_a_name_without_an_address_is_an_error(name: str) -> None:
    with pytest.raises((OSError, ValueError)):
        await Resolver().resolve(name, socket.AF_INET)


def test_the_cache_is_limited() -> None:
    resolver = Resolver()
    for number in range(3 * MAX_KEPT):
        resolver.known(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", socket.AF_INET, 0.0)
    assert len(resolver.literals) <= MAX_KEPT
