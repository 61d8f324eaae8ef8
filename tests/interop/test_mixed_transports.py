"""Each leg has its own transport; what is too long for a datagram goes by TCP where the peer's uri leaves that open."""

from __future__ import annotations

import pytest

from tests.interop.conftest import StartRelay
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, Setup, X

MTU_LIMIT = 1300  # RFC 3261 18.1.1: from here on, where the path MTU is not known
LONG_SDP = SDP.replace(b"8 101\r\n", b"8 101 " + b" ".join(b"%d" % n for n in range(96, 101)) + b"\r\n") + b"".join(
    b"a=rtpmap:%d PCMA/8000\r\na=fmtp:%d mode-set=0,1,2,3,4,5,6,7\r\n" % (n, n) for n in range(96, 101)
)
LONG_SDP += b"".join(b"m=audio %d RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n" % port for port in range(9, 25))


@pytest.mark.parametrize(
    ("transports", "body", "reaches"),
    [
        (("udp", "tcp"), SDP, "tcp"),
        (("tcp", "udp"), SDP, "udp"),
        (("udp", ""), SDP, "udp"),
        (("udp", ""), LONG_SDP, "tcp"),
        (("udp", "udp"), LONG_SDP, "udp"),
    ],
    ids=["udp_to_tcp", "tcp_to_udp", "short_to_any", "long_to_any", "long_to_udp"],
)
async def test_call_reaches_the_callee_by(
    start_relay: StartRelay, transports: tuple[str, str], body: bytes, reaches: str
) -> None:
    setup = Setup(transport=transports[0], callee_transport=transports[1])
    relay = start_relay(setup)
    relay.bind()
    async with (
        Phone(setup.caller, transports[0]) as caller,
        Phone(setup.callee, "udp") as by_udp,
        Phone(setup.callee, "tcp") as by_tcp,
    ):
        callee, other = (by_tcp, by_udp) if reaches == "tcp" else (by_udp, by_tcp)
        leg_a = Leg.calling(caller, setup.relay, A, X)
        await leg_a.request("INVITE", body=body)
        invite = await callee.expect("INVITE")
        assert (len(callee.raw_received) > MTU_LIMIT) == (body is LONG_SDP)
        leg_b = Leg.called(callee, setup.relay, invite)
        await leg_b.answer(invite, 200, body=SDP)
        leg_a.learn(await caller.expect(200, "INVITE"))
        await leg_a.request("ACK", cseq=1)
        await callee.expect("ACK")
        await leg_b.request("BYE")
        await leg_a.answer(await caller.expect("BYE"), 200)
        await callee.expect(200, "BYE")
        assert not other.raw_received
        assert B.encode() not in bytes(caller.raw_received)
        assert A.encode() not in bytes(callee.raw_received)
    (record,) = relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "callee")
