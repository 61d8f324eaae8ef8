"""What a real rtpengine lets through of an answer whose words on its codecs, or their numbers, are not the offer's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.rtpengine import Rtpengine, media_table
from tests.support.sip_text import SipText

pytestmark = pytest.mark.outside

_EVENTS = "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
# Formats and attributes of the offer, and of the answer.
PAIRS = {
    "speex": (
        ("8 97 101", f"a=rtpmap:97 speex/8000\r\na=fmtp:97 vbr=on\r\n{_EVENTS}"),
        ("97 8 101", f"a=rtpmap:97 speex/8000\r\na=fmtp:97 vbr=off\r\n{_EVENTS}"),
    ),
    "g729": (
        ("8 18 101", f"a=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=yes\r\n{_EVENTS}"),
        ("18 101", f"a=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\n{_EVENTS}"),
    ),
    "g729_unsaid": (
        ("18 101", f"a=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=yes\r\n{_EVENTS}"),
        ("18 101", f"a=rtpmap:18 G729/8000\r\n{_EVENTS}"),
    ),
    "opus": (
        ("96 8", "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;stereo=1\r\n"),
        ("96", "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 maxplaybackrate=16000\r\n"),
    ),
    "amr": (
        ("96 8", "a=rtpmap:96 AMR/8000\r\na=fmtp:96 mode-set=0,2;octet-align=1\r\n"),
        ("96 8", "a=rtpmap:96 AMR/8000\r\na=fmtp:96 mode-set=7;octet-align=1\r\n"),
    ),
    "other_numbers": (
        ("8 96 101", f"a=rtpmap:96 opus/48000/2\r\na=fmtp:96 stereo=1\r\n{_EVENTS}"),
        ("111 8 100", "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 cbr=1\r\na=rtpmap:100 telephone-event/8000\r\n"),
    ),
}
# In which order each side is told of the other's, whatever that side's own is.
ORDERED = {
    "97 8 101": "8 97 101",
    "8 97 101": "8 97 101",
    "8 18 101": "8 18 101",
    "18 101": "18 101",
    "96 8": "96 8",
    "96": "96",
    "8 96 101": "96 8 101",
    "111 8 100": "111 8 100",
}


@contextmanager
def rtp_socket(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((host, 0))
        made.settimeout(10.0)
        yield made


def describe(place: socket.socket, formats: str, attributes: str) -> bytes:
    host, port = place.getsockname()
    return (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\n{attributes}a=sendrecv\r\n"
    ).encode()


def told(message: SipText) -> tuple[str, set[str]]:
    """The formats, in their order, and what is said of those that need words."""
    lines = message.body.decode().split("\r\n")
    (media,) = (line for line in lines if line.startswith("m="))
    return media.partition("RTP/AVP ")[2], {line for line in lines if line.startswith("a=fmtp:")}


def words(formats: str, attributes: str) -> tuple[str, set[str]]:
    order = "8 96" if "AMR" in attributes else ORDERED[formats]
    return order, {line for line in attributes.split("\r\n") if line.startswith("a=fmtp:")}


def is_heard(source: socket.socket, described: SipText, payload: int, target: socket.socket) -> bool:
    """Whether a packet of that payload type, sent to the last stream, arrives as it was sent."""
    lines = described.body.decode().split("\r\n")
    host = next(line for line in lines if line.startswith("c=")).rpartition(" ")[2]
    port = int([line for line in lines if line.startswith("m=")][-1].split(" ")[1])
    packet = bytes([0x80, payload, 0, 1, 0, 0, 0, 160, 1, 2, 3, payload]) + bytes(range(40))
    source.sendto(packet, (host, port))
    return target.recv(2048) == packet


async def change(asking: Leg, asked: Leg, offer: bytes, answer: bytes) -> tuple[SipText, SipText]:
    """A re-INVITE; what each side got of the other's description."""
    await asking.request("INVITE", body=offer)
    offered = await asked.phone.expect("INVITE")
    await asked.answer(offered, 200, body=answer)
    answered = await asking.phone.expect(200, "INVITE")
    await asking.request("ACK", cseq=asking.cseq)
    await asked.phone.expect("ACK")
    return offered, answered


async def connect(
    relay: RelayProcess, caller: Phone, callee: Phone, offer: bytes, answer: bytes, *, late: bool
) -> tuple[Leg, Leg, SipText, SipText]:
    """A call that is up: its legs, the offer and the answer as they came. `late`: the callee offers."""
    leg = Leg.calling(caller, relay.setup.relay, A, X)
    await leg.request("INVITE", body=b"" if late else offer)
    invite = await callee.expect("INVITE")
    other = Leg.called(callee, relay.setup.relay, invite)
    if not late:
        await other.answer(invite, 183, body=answer)
        early = await caller.expect(183)
    await other.answer(invite, 200, body=offer if late else answer)
    final = await caller.expect(200)
    leg.learn(final)
    await leg.request("ACK", cseq=leg.cseq, body=answer if late else b"")
    ack = await callee.expect("ACK")
    if late:
        return leg, other, final, ack
    assert told(early) == told(final)
    return leg, other, invite, final


@pytest.mark.parametrize("late", [False, True], ids=["caller_offers", "callee_offers"])
@pytest.mark.parametrize(("offered", "answered"), PAIRS.values(), ids=PAIRS)
async def test_each_side_is_told_what_the_other_says_of_its_codecs(
    start_relay: StartRelay, tmp_path: Path, offered: tuple[str, str], answered: tuple[str, str], late: bool
) -> None:
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=media_table(engine.place))
        relay = start_relay(setup)
        relay.bind()
        async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
            with rtp_socket("127.0.0.31") as ear_of_offerer, rtp_socket("127.0.0.32") as ear_of_answerer:
                offer, answer = describe(ear_of_offerer, *offered), describe(ear_of_answerer, *answered)
                leg, other, got_offer, got_answer = await connect(relay, caller, callee, offer, answer, late=late)
                assert (told(got_offer), told(got_answer)) == (words(*offered), words(*answered))
                # Each sends what the other has said that it takes, and is heard as it speaks.
                for payload in map(int, answered[0].split(" ")):
                    assert is_heard(ear_of_offerer, got_answer, payload, ear_of_answerer)
                for payload in map(int, offered[0].split(" ")):
                    assert is_heard(ear_of_answerer, got_offer, payload, ear_of_offerer)
                # The one that answered offers now, and the other way round.
                asking, asked = (leg, other) if late else (other, leg)
                offer, answer = describe(ear_of_answerer, *offered), describe(ear_of_offerer, *answered)
                got = await change(asking, asked, offer, answer)
                assert (told(got[0]), told(got[1])) == (words(*offered), words(*answered))
                await leg.request("BYE")
                await other.answer(await callee.expect("BYE"), 200)
                await caller.expect(200, "BYE")
        await engine.emptied()


async def test_rtp_is_heard_where_srtp_was_offered_before_it(start_relay: StartRelay, tmp_path: Path) -> None:
    """FreeSWITCH offers both at one port; the answer takes the second."""
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=media_table(engine.place))
        relay = start_relay(setup)
        relay.bind()
        async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
            with rtp_socket("127.0.0.31") as ear_of_a, rtp_socket("127.0.0.32") as ear_of_b:
                offer, answer = describe(ear_of_a, "8", ""), describe(ear_of_b, "8", "")
                leg = Leg.calling(caller, relay.setup.relay, A, X)
                await leg.request("INVITE", body=offer.replace(b"RTP/AVP", b"RTP/SAVP") + KEY + stream_of(offer))
                invite = await callee.expect("INVITE")
                other = Leg.called(callee, relay.setup.relay, invite)
                await other.answer(invite, 200, body=answer.replace(b"m=", b"m=audio 0 RTP/SAVP 8\r\nm="))
                final = await caller.expect(200)
                leg.learn(final)
                await leg.request("ACK", cseq=leg.cseq)
                await callee.expect("ACK")
                assert (invite.body.count(b"m=audio 0 "), final.body.count(b"m=audio 0 RTP/SAVP ")) == (0, 1)
                assert is_heard(ear_of_a, final, 8, ear_of_b)
                assert is_heard(ear_of_b, invite, 8, ear_of_a)
                await leg.request("BYE")
                await other.answer(await callee.expect("BYE"), 200)
                await caller.expect(200, "BYE")
        await engine.emptied()


KEY = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"


def stream_of(description: bytes) -> bytes:
    return description[description.index(b"m=") :]
