"""The player without a relay: callers call callees directly, or through a forwarder that alters messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncio_dgram
import pytest

from relay.replay.comparison import Secrets
from relay.replay.phone import Phone, PhoneLine, open_line
from relay.replay.player import Pace, Player, PlayResult, ReplayResult
from relay.replay.script import Side, Wording
from relay.replay.trace import Endpoint
from relay.sip.message import Request
from tests.replay.messages import attempts_of
from tests.support.addresses import CALLEE, CALLER, RELAY

PACE = Pace(speed=1000, longest_pause_s=0.01, patience_s=1)
B = "8613900000002"
Lines = dict[Side, PhoneLine]
Spoil = Callable[[bytes], bytes | None]


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    async with open_line(Endpoint(CALLER, 0)) as caller, open_line(Endpoint(CALLEE, 0)) as callee:
        yield {Side.CALLER: caller, Side.CALLEE: callee}


async def play(lines: Lines, *ladder: str, through: Endpoint | None = None) -> PlayResult:
    return (await play_with(lines, *ladder, through=through))[0]


async def play_with(
    lines: Lines, *ladder: str, through: Endpoint | None = None
) -> tuple[PlayResult, dict[Side, Phone]]:
    (attempt,) = attempts_of(*ladder)
    changed = asyncio.Event()
    secrets = {side: Secrets() for side in Side}
    phones = {side: Phone(lines[side], Wording([]), secrets[side], secrets[side.other], changed.set) for side in Side}
    relay = through or lines[Side.CALLEE].address
    phones[Side.CALLER].local = f"<sip:13800000001@{lines[Side.CALLER].address}>"
    phones[Side.CALLER].remote = f"<sip:13900000002@{relay}>"
    lines[Side.CALLEE].expect(B, phones[Side.CALLEE])
    player = Player(attempt, phones, changed, PACE, dialled=f"sip:13900000002@{relay}")
    return await player.play(relay, [], frozenset()), phones


def remarks(played: PlayResult) -> list[str]:
    return [f"{found.step}: {found.words}" for found in played.findings if found.verdict is not ReplayResult.ALIKE]


def without_leaks(played: PlayResult) -> list[str]:
    """A direct call hides nothing: the SDP names its sender. See test_leaks_are_found."""
    return [remark for remark in remarks(played) if "LEAK" not in remark]


ANSWERED = ["> INVITE 1 new sdp", "< 100 1 INVITE new", "< 180 1 INVITE", "< 200 1 INVITE sdp", "> ACK 1 b=ack"]
END = ["> BYE 2", "< 200 2 BYE"]
PLAIN = ["> INVITE 1 new", "< 180 1 INVITE", "< 200 1 INVITE", "> ACK 1 b=ack"]


@pytest.mark.parametrize(
    ("ladder", "statuses"),
    [
        pytest.param([*ANSWERED, *END], [180, 200], id="answered"),
        pytest.param([*ANSWERED, "< BYE 1", "> 200 1 BYE"], [180, 200], id="callee hangs up"),
        pytest.param(ANSWERED, [180, 200], id="trace ends within the call"),
        pytest.param(["> INVITE 1 new", "< 200 1 INVITE sdp", "> ACK 1 sdp b=ack", *END], [200], id="late offer"),
        pytest.param(["> INVITE 1 new sdp", "< 200 1 INVITE sdp", *END], [200], id="ACK not in the trace"),
        pytest.param(["> INVITE 1 new sdp", "< 486 1 INVITE", "> ACK 1"], [486], id="busy"),
        pytest.param(["> INVITE 1 new sdp"], [487], id="trace without an answer"),
        pytest.param(
            ["> INVITE 1 new sdp", "< 180 1 INVITE", "> CANCEL 1 new", "< 200 1 CANCEL", "< 487 1 INVITE", "> ACK 1"],
            [180, 487],
            id="cancelled",
        ),
        pytest.param(
            [
                *ANSWERED,
                "< INVITE 1 sdp b=re",
                "> 100 1 INVITE b=re",
                "> 200 1 INVITE sdp b=re",
                "< ACK 1 b=reack",
                *END,
            ],
            [180, 200],
            id="re-INVITE of the callee",
        ),
        pytest.param(
            [*ANSWERED, "> INVITE 2 sdp", "< 488 2 INVITE", "> ACK 2", "> UPDATE 3 sdp", "< 200 3 UPDATE sdp", *END],
            [180, 200],
            id="re-INVITE refused, UPDATE",
        ),
        pytest.param(
            [
                *ANSWERED,
                "> INVITE 2",
                "< 491 2 INVITE",
                "> ACK 2",
                "> INVITE 3",
                "< 200 3 INVITE sdp",
                "> ACK 3 sdp b=a3",
            ],
            [180, 200],
            id="late offer after a re-INVITE that was refused",
        ),
        pytest.param([*ANSWERED, "> OPTIONS 5", "< 200 5 OPTIONS", *END], [180, 200], id="OPTIONS"),
    ],
)
async def test_a_call_as_in_the_trace_is_alike(lines: Lines, ladder: list[str], statuses: list[int]) -> None:
    played = await play(lines, *ladder)
    assert without_leaks(played) == []
    assert played.statuses == statuses
    assert lines[Side.CALLER].strays == lines[Side.CALLEE].strays == 0


async def test_an_ack_missing_in_the_trace_is_sent(lines: Lines) -> None:
    _, phones = await play_with(lines, "> INVITE 1 new", "< 200 1 INVITE", *END)
    assert [message.method for message in phones[Side.CALLEE].inbox if isinstance(message, Request)] == ["ACK"]


async def test_leaks_are_found(lines: Lines) -> None:
    found = remarks(await play(lines, *ANSWERED, *END))
    assert ": LEAK to the callee: a line of SDP that names its sender in INVITE" in found
    assert ": LEAK to the caller: a line of SDP that names its sender in the 200 to INVITE" in found


async def test_no_leak_is_reported_without_private_data(lines: Lines) -> None:
    played = await play(lines, *PLAIN, *END)
    assert [remark for remark in remarks(played) if "reason phrase" not in remark] == []


class Forwarder:
    """A stand-in for the relay: forwards datagrams between the two lines; `spoil` alters or drops one."""

    def __init__(self, lines: Lines, spoil: Spoil, times: int) -> None:
        self._times = times
        self._lines = lines
        self._spoil = spoil

    async def run(self, ready: asyncio.Future[Endpoint]) -> None:
        stream = await asyncio_dgram.bind((RELAY, 0))
        ready.set_result(Endpoint(*stream.sockname[:2]))
        while True:
            data, (host, _) = await stream.recv()
            destination = Side.CALLEE if host == CALLER else Side.CALLER
            passed = self._spoil(data)
            for _ in range(self._times if passed is not None else 0):
                await stream.send(passed, tuple(self._lines[destination].address))


async def play_through(lines: Lines, spoil: Spoil, *ladder: str, times: int = 1) -> PlayResult:
    ready: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
    forwarding = asyncio.create_task(Forwarder(lines, spoil, times).run(ready))
    try:
        return await play(lines, *ladder, through=await ready)
    finally:
        forwarding.cancel()


def drop(start: bytes) -> Spoil:
    return lambda data: None if data.startswith(start) else data


def replace(old: bytes, new: bytes) -> Spoil:
    return lambda data: data.replace(old, new)


@pytest.mark.parametrize(
    ("spoil", "remark"),
    [
        (drop(b"INVITE"), "caller's INVITE: did not reach the callee"),
        (drop(b"SIP/2.0 180"), "callee's 180 to INVITE: did not reach the caller"),
        (drop(b"ACK"), "caller's ACK: did not reach the callee"),
        (drop(b"BYE"), "caller's BYE: did not reach the callee"),
        (replace(b"SIP/2.0 200 Reason of the trace", b"SIP/2.0 480 No"), "callee's 200 to INVITE: shown as 480"),
    ],
)
async def test_differences_are_reported(lines: Lines, spoil: Spoil, remark: str) -> None:
    played = await play_through(lines, spoil, *PLAIN, *END)
    assert played.verdict is ReplayResult.DIFFERS
    assert remark in remarks(played)


async def test_lost_sdp_is_reported(lines: Lines) -> None:
    played = await play_through(lines, replace(b"application/sdp", b"application/xxx"), *ANSWERED, *END)
    assert "caller's INVITE: came without its SDP" in remarks(played)


async def test_lost_datagrams_are_retransmitted(lines: Lines) -> None:
    seen: set[bytes] = set()

    def first_is_lost(data: bytes) -> bytes | None:
        start = data[:11]
        known = start in seen or data.startswith(b"ACK")
        seen.add(start)
        return data if known else None

    played = await play_through(lines, first_is_lost, "> INVITE 1 new", "< 200 1 INVITE", "> ACK 1 b=ack", *END)
    assert without_leaks(played) == []


async def test_duplicated_datagrams_are_taken_once(lines: Lines) -> None:
    played = await play_through(lines, lambda data: data, *PLAIN, *END, times=2)
    assert without_leaks(played) == []


async def test_changes_by_design_are_not_differences(lines: Lines) -> None:
    played = await play_through(
        lines, replace(b"SIP/2.0 407", b"SIP/2.0 480"), "> INVITE 1 new", "< 407 1 INVITE", "> ACK 1"
    )
    assert without_leaks(played) == ["callee's 407 to INVITE: 407 is shown as 480"]
    assert played.statuses == [480]


async def test_a_message_missing_in_the_trace_is_reported(lines: Lines) -> None:
    played = await play_through(lines, replace(b"SIP/2.0 180", b"SIP/2.0 183"), *PLAIN, *END)
    assert ": 183 to INVITE to the caller is not in the trace" in remarks(played)
