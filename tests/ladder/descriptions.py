"""SDP of the two sides."""

from __future__ import annotations

OFFER = (
    b"v=0\r\no=alice 1 1 IN IP4 127.0.0.11\r\ns=call\r\nc=IN IP4 127.0.0.31\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)
ANSWER = (
    b"v=0\r\no=bob 2 2 IN IP4 127.0.0.22\r\ns=call\r\nc=IN IP4 127.0.0.32\r\nt=0 0\r\n"
    b"m=audio 5000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)
HOLD = OFFER.replace(b"sendrecv", b"sendonly")
HELD = ANSWER.replace(b"sendrecv", b"recvonly")
G722_OFFER = OFFER.replace(b"8 0\r\na=rtpmap:8 PCMA", b"9\r\na=rtpmap:9 G722")
G722_ANSWER = ANSWER.replace(b"8\r\na=rtpmap:8 PCMA", b"9\r\na=rtpmap:9 G722")
LARGE = OFFER + b"".join(b"a=rtpmap:%d opus/48000/2\r\na=fmtp:%d useinbandfec=1\r\n" % (n, n) for n in range(96, 122))
LARGE = LARGE.replace(b"AVP 8 0", b"AVP 8 0 " + b" ".join(b"%d" % n for n in range(96, 122)))


def as_long_as(size: int) -> bytes:
    """An offer of about `size` bytes at most; an INVITE with it is some 370 bytes longer."""
    lines = [b"a=fmtp:%d %s\r\n" % (n, b";".join([b"useinbandfec=1"] * 12)) for n in range(96, 122)]
    return LARGE + b"".join(14 * lines)[: size - len(LARGE)].rpartition(b"a=")[0]
