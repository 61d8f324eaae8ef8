"""Public internet addresses, and hosts that the relay's own requests cannot go to."""

from __future__ import annotations

import pytest

from relay.net.public_address import is_public, why_never


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
        *("0.0.0.0", "224.0.0.1", "239.1.1.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::"),
        *("fec0::1", "::ffff:0:127.0.0.1", "64:ff9b:1::a00:1", "5f00::1", "4000::1", "192.88.99.1"),
    ],
)
def test_internal_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "ff02::1",
            "1.2.3",
            "256.1.1.1",
            "0x7f.1",
            "127.1",
            "exa$mple.com",
        ),
        *("-a.example", "a-.example", "shop.invalid", "a b", "."),
    ],
)
@pytest.mark.parametrize("internal", [True, False])
def test_hosts_that_cannot_exist_are_refused(host: str, internal: bool) -> None:
    assert why_never(host, None, internal=internal)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "localhost",
            "shop",
            "shop.local",
            "a.internal",
        ),
        *("x.localhost", "router.home.arpa"),
    ],
)
def test_internal_hosts_are_for_operators_alone(host: str) -> None:
    assert why_never(host, None, internal=False)
    assert not why_never(host, None, internal=True)


@pytest.mark.parametrize(
    "host", ["shop.example", "shop.example.", "8.8.8.8", "2001:4860:4860::8888", "xn--fiq.cn", "a_b.cn"]
)
def test_valid_hosts_are_accepted(host: str) -> None:
    assert not why_never(host, 8443, internal=False)
    assert why_never(host, 0, internal=False) == why_never(host, 0, internal=True) != ""
