"""The probe's call through a running relay: straight back, through a peer, and through peers that leak."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.events import probe_call
from relay.events.probe_call import ProbeCall, Result, call, make_marks
from relay.model.numbers import Parties
from tests.interop.conftest import running_relay
from tests.support.addresses import Address, free
from tests.support.asterisk import Asterisk
from tests.support.middle_peer import MiddlePeer, Tap, serving
from tests.support.relay_process import A, B, RelayProcess, Setup, X

pytestmark = pytest.mark.outside

CALLEE_AT = "127.0.0.72"


class Place(NamedTuple):
    relay: RelayProcess
    callee_at: Address  # beyond the peer
    tap: Address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tap = free("127.0.0.73")
    setup = Setup(caller_sources=[tap.host])
    with running_relay(tmp_path_factory.mktemp("probe"), setup) as relay:
        relay.bind()
        yield Place(relay, free(CALLEE_AT), tap)


def probe(place: Place, *, is_direct: bool = False, relay: Address | None = None, number: str = X) -> ProbeCall:
    setup = place.relay.setup
    callee_at = setup.callee if is_direct else place.callee_at
    ends = (tuple(setup.caller), tuple(callee_at))
    hosts = frozenset({setup.relay.host})
    at = tuple(relay or setup.relay)
    return ProbeCall(at, hosts, f"86{A}", number, f"86{B}", "carrier", is_direct, *ends)  # type: ignore[arg-type]


def middle(place: Place) -> MiddlePeer:
    return MiddlePeer(place.relay.setup.callee, place.callee_at)


def test_the_diverting_number_of_the_marks_is_not_assigned() -> None:
    friend = make_marks(f"86{A}", CALLEE_AT, frozenset()).friend
    assert re.fullmatch("1[3-9][0-9]{9}", friend) and not Parties().allow(f"86{friend}")


GOT = ("the callee got INVITE", "the callee got ACK", "the callee got BYE", "the caller got 200 to INVITE")


def assert_proven(result: Result) -> None:
    assert (result.outcome, result.reason, result.leaks) == ("proven", "", ())
    assert result.marks > 200
    for words in GOT:
        assert any(each.startswith(words) for each in result.received), (words, result.received)


async def test_a_call_straight_back_is_a_proof(place: Place) -> None:
    assert_proven(await call(probe(place, is_direct=True)))


async def test_a_call_through_a_peer_is_a_proof(place: Place) -> None:
    async with serving(middle(place)):
        assert_proven(await call(probe(place)))


async def test_a_call_through_a_pbx_is_a_proof(place: Place, tmp_path: Path) -> None:
    setup = place.relay.setup
    async with Asterisk(tmp_path / "pbx", setup.callee, setup.relay, phones={B: place.callee_at}):
        assert_proven(await call(probe(place)))


async def test_a_lost_datagram_is_sent_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_call, "T1_S", 0.05)
    seen: set[bytes] = set()

    def lose_first(data: bytes) -> bytes:
        start = data[:11]
        is_new = start not in seen
        seen.add(start)
        return b"" if is_new else data

    async with serving(middle(place)) as peer:
        peer.to_caller = lose_first
        assert_proven(await call(probe(place)))


async def test_a_name_of_the_caller_that_reaches_the_callee_is_a_leak(place: Place) -> None:
    tap = Tap(place.tap, place.relay.setup.relay)

    def leak(data: bytes) -> bytes:
        word = re.search(rb"canary[0-9a-f]{8}", tap.sent)
        assert word is not None
        line, _, rest = data.partition(b"\r\n")
        return line + b"\r\nX-Caller: " + word[0] + b"\r\n" + rest if line.startswith(b"INVITE") else data

    async with serving(tap), serving(middle(place)) as peer:
        peer.to_callee = leak
        result = await call(probe(place, relay=tap.at))
    assert (result.outcome, result.reason) == ("leak", "")
    assert result.leaks == ("the caller's name in X-Caller of INVITE, got by the callee",)


async def test_an_address_of_the_callee_that_reaches_the_caller_is_a_leak(place: Place) -> None:
    """In the one place that crosses by design, with direct media: the address of media, in c= and o=."""

    def leak(data: bytes) -> bytes:
        inner = re.search(rb"a=X-nat:1 ([0-9.]+)", data)
        return re.sub(rb"c=IN IP4 [0-9.]+", b"c=IN IP4 " + inner[1], data) if inner else data

    async with serving(middle(place)) as peer:
        peer.to_caller = lambda data: fitted(leak(data))
        result = await call(probe(place))
    assert result.outcome == "leak"
    assert result.leaks == ("the callee's private address in o= of the body of 200 to INVITE, got by the caller",)


def fitted(data: bytes) -> bytes:
    """The message with the right Content-Length."""
    head, _, body = data.partition(b"\r\n\r\n")
    return re.sub(rb"Content-Length: [0-9]+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


async def test_a_refused_call_is_no_proof_and_no_leak(place: Place) -> None:
    result = await call(probe(place, number="700100000010999"))
    assert (result.outcome, result.leaks) == ("failed", ())
    assert result.reason == "the relay answered the caller 403"


async def test_a_call_that_does_not_come_back_is_no_proof(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_call, "CALL_S", 1.0)
    monkeypatch.setattr(probe_call, "OPEN_S", 0.0)
    async with serving(middle(place)) as peer:
        peer.to_callee = lambda data: b""
        result = await call(probe(place))
    assert (result.outcome, result.reason) == ("failed", "the INVITE from carrier did not come")


async def test_an_address_in_use_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_call, "CALL_S", 0.3)
    monkeypatch.setattr(probe_call, "OPEN_S", 0.0)
    async with serving(Tap(place.callee_at, place.tap)):
        result = await call(probe(place))
    assert result.outcome == "failed"
    assert f"{place.callee_at}, the address of the callee (" in result.reason
