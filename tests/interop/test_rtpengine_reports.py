"""What a real rtpengine tells of a call's quality: packets as it counts them, loss and jitter as the phones report."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import StartRelay
from tests.support.capture import RECEIVER_REPORT, SENDER_REPORT
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, Setup, X
from tests.support.rtpengine import HOST, Rtpengine, media_table
from tests.support.sip_text import SipText

pytestmark = pytest.mark.outside

SAID = 5  # packets of 20 ms
RATE = 8_000  # of A-law
QUIET = b"\xd5" * 160
PATIENCE_S = 20.0
MUCH_MS = 300
DELAY = struct.pack("!I", 1)  # since the report came, in 65536ths of a second; 0 is for none


class Report(NamedTuple):
    """Of a receiver, about what it hears."""

    lost: int
    jitter_ms: int


OF_A, OF_B = Report(lost=3, jitter_ms=2000), Report(lost=7, jitter_ms=80)


class Ear(NamedTuple):
    """A phone's sockets for RTP and RTCP, on ports beside each other, and what it calls itself there."""

    rtp: socket.socket
    rtcp: socket.socket
    ssrc: int

    def described(self) -> bytes:
        host, port = self.rtp.getsockname()
        head = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        return f"{head}m=audio {port} RTP/AVP 8\r\n".encode()

    def speak(self, port: int) -> None:
        """To rtpengine's port for this side."""
        for number in range(SAID):
            head = struct.pack("!BBHII", 0x80, 8, number, len(QUIET) * number, self.ssrc)
            self.rtp.sendto(head + QUIET, (HOST, port))

    async def sender_report(self) -> bytes:
        """The next one that rtpengine sends to this side."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(self.rtcp, 2048)
                if packet[1] == SENDER_REPORT:
                    return packet

    def report(self, port: int, heard: bytes, said: Report) -> None:
        """Answers the sender report `heard` (RFC 3550 6.4.2): whose it is and when it was sent stand in it."""
        ssrc, sent = heard[4:8], heard[10:14]
        block = ssrc + struct.pack("!III", said.lost, SAID, RATE * said.jitter_ms // 1000) + sent + DELAY
        self.rtcp.sendto(struct.pack("!BBHI", 0x81, RECEIVER_REPORT, 7, self.ssrc) + block, (HOST, port + 1))


@contextmanager
def ear(host: str, ssrc: int) -> Iterator[Ear]:
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
        ):
            port = 2 * random.randrange(5_000, 15_000)
            try:
                rtp.bind((host, port))
                rtcp.bind((host, port + 1))
            except OSError:  # somebody has one of them
                continue
            rtcp.setblocking(False)
            yield Ear(rtp, rtcp, ssrc)
            return


def port_in(message: SipText) -> int:
    (line,) = [line for line in message.body.decode().split("\r\n") if line.startswith("m=")]
    return int(line.split(" ")[1])


async def test_each_side_s_loss_and_jitter_are_what_the_other_side_reports(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    async with Rtpengine(tmp_path) as engine:
        setup = Setup(more=media_table(engine.place))
        relay = start_relay(setup)
        relay.bind()
        with ear("127.0.0.31", 11) as of_a, ear("127.0.0.32", 22) as of_b:
            async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
                leg = Leg.calling(caller, setup.relay, A, X)
                await leg.request("INVITE", body=of_a.described())
                offered = await callee.expect("INVITE")
                other = Leg.called(callee, setup.relay, offered)
                await other.answer(offered, 200, body=of_b.described())
                answered = await caller.expect(200)
                leg.learn(answered)
                await leg.request("ACK", cseq=leg.cseq)
                of_a.speak(port_in(answered))
                of_b.speak(port_in(offered))
                heard_by_a, heard_by_b = await asyncio.gather(of_a.sender_report(), of_b.sender_report())
                while not await are_counted(engine, of_a, of_b):  # one in a second is
                    of_a.report(port_in(answered), heard_by_a, OF_A)
                    of_b.report(port_in(offered), heard_by_b, OF_B)
                await leg.request("BYE")
                await other.answer(await callee.expect("BYE"), 200)
                await caller.expect(200, "BYE")
    (record,) = relay.calls()
    assert (record["caller_packets"], record["callee_packets"]) == (SAID, SAID)
    assert (record["caller_lost"], record["callee_lost"]) == (OF_B.lost, OF_A.lost)
    # Means of these reports and of one of rtpengine's own, which are all a few milliseconds.
    assert 1 < record["caller_jitter_ms"] <= OF_B.jitter_ms < MUCH_MS < record["callee_jitter_ms"] <= OF_A.jitter_ms


async def are_counted(engine: Rtpengine, of_a: Ear, of_b: Ear) -> bool:
    (call,) = await engine.calls()
    told = (await engine.ask("query", **{"call-id": call}))["SSRC"]
    means = [told[str(each.ssrc)]["average MOS"]["jitter"] for each in (of_a, of_b) if str(each.ssrc) in told]
    return len(means) == 2 and means[0] > MUCH_MS and means[1] > OF_B.jitter_ms / 4
