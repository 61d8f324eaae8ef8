"""Addresses and ports that SDP of a peer may name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.defence.media_address import media_fault
from tests.ladder.descriptions import OFFER

CONTROL = frozenset({2223, 5060})
PEER = "192.0.2.11"


def fault(address: str = "192.0.2.31", port: str = "4000", more: str = "", host: str = PEER, *networks: str) -> str:
    kind = "IP6" if ":" in address else "IP4"
    text = OFFER.decode().replace("IP4 127.0.0.31", f"{kind} {address}").replace("audio 4000", f"audio {port}") + more
    return media_fault(text.encode(), host, tuple(map(ip_network, networks)), CONTROL)


@pytest.mark.parametrize(
    "address",
    "192.0.2.31 10.0.0.1 192.168.0.1 100.64.0.1 2001:db8::31 fd00::1 ::ffff:10.0.0.1 0.0.0.0 :: 0:0:0:0::0".split(),
)
def test_networks_of_phones_and_the_old_form_of_hold_are_allowed(address: str) -> None:
    assert fault(address) == ""


@pytest.mark.parametrize(
    "address",
    "224.0.0.1 239.1.2.3 169.254.169.254 240.0.0.1 255.255.255.255 0.0.0.1 ff02::1 fe80::1 ::ffff:169.254.169.254"
    " ::ffff:0.0.0.0 ::ffff:255.255.255.255 ::127.0.0.1 64:ff9b::7f00:1".split(),
)
def test_addresses_of_no_phone_are_refused(address: str) -> None:
    assert fault(address) == "reserved address"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_loopback_is_for_peers_on_loopback(address: str) -> None:
    assert fault(address) == "loopback address"
    for host in ("2001:db8::1", "::ffff:192.0.2.11", "pbx.example", "fe80::1%eth0"):
        assert fault(address, host=host) == "loopback address"
    for host in ("127.0.0.11", "::1", "::ffff:127.0.0.11"):
        assert fault(address, host=host) == ""


def test_each_address_counts() -> None:
    assert fault(more="m=video 4002 RTP/AVP 34\r\nc=IN IP4 127.0.0.1\r\n") == "loopback address"
    assert fault("127.0.0.1", more="c=IN IP4 192.0.2.31\r\n") == "loopback address"


@pytest.mark.parametrize("port", ["0", "9", "1024", "2224", "65535", "5062/2"])
def test_ports_of_phones_are_allowed(port: str) -> None:
    assert fault(port=port) == ""


@pytest.mark.parametrize(
    ("port", "told"),
    [
        *(("1", "port 1"), ("53", "port 53"), ("1023", "port 1023")),
        *(("2223", "port 2223"), ("5060", "port 5060")),
        *(("2222", "port 2223"), ("5058/2", "port 5060"), ("5056/2", ""), ("5056/3", "port 5060")),  # and RTCP
        *(("9/2", "port 11"), ("65534/16", "port 2")),
    ],
)
def test_ports_of_services_are_refused(port: str, told: str) -> None:
    assert fault(port=port) == told


@pytest.mark.parametrize(
    ("port", "told"), [("53", "port 53"), ("2223", "port 2223"), ("67759", "port 67759"), ("9", ""), ("4001", "")]
)
@pytest.mark.parametrize("stream", ["4000", "0"])
def test_rtcp_may_have_a_port_of_its_own(port: str, told: str, stream: str) -> None:
    assert fault(port=stream, more=f"a=rtcp:{port}\r\n") == told
    session = OFFER.replace(b"t=0 0\r\n", f"t=0 0\r\na=rtcp:{port}\r\n".encode()).replace(b"127.0.0.31", b"192.0.2.31")
    assert media_fault(session, PEER, (), CONTROL) == told


def test_media_may_be_limited_to_networks() -> None:
    networks = ("203.0.113.0/24", "2001:db8::/32")
    for address in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::7", "0.0.0.0", "::"):
        assert fault(address, "4000", "", PEER, *networks) == ""
    for address in ("192.0.2.31", "fd00::1"):
        assert fault(address, "4000", "", PEER, *networks) == "address outside the peer's networks of media"
    assert fault("127.0.0.1", "4000", "", PEER, "127.0.0.0/8") == "loopback address"
