"""Addresses and ports that SDP of a peer may name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.defence.media_address import Controls, media_fault
from tests.ladder.descriptions import OFFER

PEER = "192.0.2.11"
OURS = ("203.0.113.7", "10.0.0.40", "2001:db8::40")
CONTROLS = Controls(frozenset({2223, 5060}), {*OURS, "0.0.0.0", "sip.example"})


def fault(address: str = "192.0.2.31", port: str = "4000", more: str = "", host: str = PEER, *networks: str) -> str:
    kind = "IP6" if ":" in address else "IP4"
    text = OFFER.decode().replace("IP4 127.0.0.31", f"{kind} {address}").replace("audio 4000", f"audio {port}") + more
    return media_fault(text.encode(), host, tuple(map(ip_network, networks)), CONTROLS)


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


def test_address_of_each_stream_counts() -> None:
    assert fault(more="m=video 4002 RTP/AVP 34\r\nc=IN IP4 127.0.0.1\r\n") == "loopback address"
    assert fault("127.0.0.1", more="c=IN IP4 192.0.2.31\r\nm=video 4002 RTP/AVP 34\r\n") == "loopback address"


def test_address_of_the_session_counts_where_a_stream_has_none() -> None:
    """Kamailio with rtpproxy writes c= into each stream, and may leave a private one of the session."""
    own = "c=IN IP4 203.0.113.9\r\n"
    assert fault("127.0.0.1", "4000", own) == ""
    assert fault("10.0.0.5", "4000", own, PEER, "203.0.113.0/24") == ""
    assert fault("10.0.0.5", "4000", own + "m=video 0 RTP/AVP 34\r\n", PEER, "203.0.113.0/24") == ""


def test_refused_streams_do_not_count() -> None:
    for refused in ("c=IN IP4 127.0.0.1\r\n", "c=IN IP4 224.0.0.1\r\n", "a=rtcp:53\r\n", "a=rtcp:2223\r\n"):
        assert fault(more=f"m=video 0 RTP/AVP 34\r\n{refused}") == ""
    assert fault("127.0.0.1", "0") == ""


@pytest.mark.parametrize("port", ["0", "9", "1024", "2222", "2223", "5060", "65535"])
def test_ports_of_phones_are_allowed(port: str) -> None:
    assert fault(port=port) == ""


@pytest.mark.parametrize("address", ["192.0.2.31", *OURS])
@pytest.mark.parametrize("port", ["1", "53", "1023"])
def test_ports_of_services_are_refused(address: str, port: str) -> None:
    assert fault(address, port) == f"port {port}"


@pytest.mark.parametrize("address", [*OURS, "127.0.0.9", "::1", "0.0.0.0", "::", "::ffff:10.0.0.40", "2001:DB8:0::40"])
@pytest.mark.parametrize(
    ("port", "told"),
    [("2223", "port 2223"), ("5060", "port 5060"), ("2222", "port 2223"), ("2224", ""), ("9", ""), ("65535", "")],
)
def test_control_ports_are_refused_where_the_relay_or_rtpengine_may_be(address: str, port: str, told: str) -> None:
    """RTCP goes to the port behind that of RTP."""
    assert fault(address, port, host="127.0.0.11") == told


def test_control_ports_are_refused_without_an_address() -> None:
    sdp = OFFER.replace(b"c=IN IP4 127.0.0.31\r\n", b"").replace(b"4000", b"2223")
    assert media_fault(sdp, PEER, (), CONTROLS) == "port 2223"


def test_connection_of_a_stream_precedes_that_of_the_session() -> None:
    assert fault(port="2223", more=f"c=IN IP4 {OURS[0]}\r\n") == "port 2223"
    assert fault(OURS[0], "2223", "c=IN IP4 192.0.2.31\r\n") == ""


@pytest.mark.parametrize(
    ("port", "told"), [("53", "port 53"), ("2223", "port 2223"), ("67759", "port 67759"), ("9", ""), ("4001", "")]
)
def test_rtcp_may_have_a_port_of_its_own(port: str, told: str) -> None:
    assert fault(OURS[0], "4000", f"a=rtcp:{port}\r\n") == told
    session = OFFER.replace(b"t=0 0\r\n", f"t=0 0\r\na=rtcp:{port}\r\n".encode())
    assert media_fault(session.replace(b"127.0.0.31", OURS[0].encode()), PEER, (), CONTROLS) == told


@pytest.mark.parametrize(("port", "told"), [("4001", ""), ("2222", ""), ("0", "port 2223")])
def test_rtcp_with_a_port_of_its_own_does_not_go_to_the_next_port(port: str, told: str) -> None:
    assert fault(OURS[0], "2222", f"a=rtcp:{port}\r\n") == told


def test_rtcp_port_of_the_session_leaves_rtcp_at_the_next_port() -> None:
    sdp = OFFER.replace(b"t=0 0\r\n", b"t=0 0\r\na=rtcp:4001\r\n").replace(b"4000", b"2222")
    assert media_fault(sdp, "127.0.0.11", (), CONTROLS) == "port 2223"


def test_media_may_be_limited_to_networks() -> None:
    networks = ("203.0.113.0/24", "2001:db8::/32")
    for address in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::7", "0.0.0.0", "::"):
        assert fault(address, "4000", "", PEER, *networks) == ""
    for address in ("192.0.2.31", "fd00::1"):
        assert fault(address, "4000", "", PEER, *networks) == "address outside the peer's networks of media"
    assert fault("127.0.0.1", "4000", "", PEER, "127.0.0.0/8") == "loopback address"
