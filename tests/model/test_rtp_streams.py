"""Streams of a recording, as the relay describes them and rtpengine writes them down."""

from __future__ import annotations

from relay.model.rtp_streams import MOST_PORTS, RtpStream, describe, read_streams

FOR_CALLER = b"""v=0\r\no=- 1 1 IN IP4 192.0.2.40\r\ns=-\r\nc=IN IP4 192.0.2.40\r\nt=0 0\r
m=audio 30000 RTP/AVP 8 96 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 AMR/8000\r\na=rtpmap:101 telephone-event/8000\r
a=fmtp:96 mode-set=7; octet-align=1\r\na=sendrecv\r\nm=video 30010 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n"""
FOR_CALLEE = b"m=audio 30002 RTP/AVP 0\r\n"
# As rtpengine 12.5 writes it.
TEXT = """/spool/pcaps/0.pcap


Timestamp started ms: 1795868682262.290
SDP mode: offer
SDP before RTP packet: 42

v=0
c=IN IP4 192.0.2.40
m=audio 30002 RTP/AVP 111
a=rtpmap:111 opus/48000/2
a=rtpmap:112 G729/8000

call start time: 2026-11-28T12:24:42


"""


def test_what_the_relay_describes_is_read_below_the_later_sdp_of_rtpengine() -> None:
    said = describe({"caller": FOR_CALLER, "callee": FOR_CALLEE})
    assert "192.0.2.40" not in said
    assert read_streams(TEXT + said) == {
        30_000: RtpStream("caller", {8: "pcma", 96: "amr/octet-align", 101: "telephone-event"}),
        30_002: RtpStream("callee", {111: "opus"}),
    }


def test_one_port_of_both_sides_is_of_neither() -> None:
    said = describe({"caller": FOR_CALLEE, "callee": FOR_CALLEE})
    assert read_streams(said) == {30_002: RtpStream("", {})}


def test_a_text_without_sdp_has_no_streams() -> None:
    assert read_streams("/spool/pcaps/0.pcap\n") == {}


def test_the_number_of_ports_is_bounded() -> None:
    assert len(read_streams("\n".join(f"m=audio {port} RTP/AVP 8" for port in range(1, 1_000)))) == MOST_PORTS
