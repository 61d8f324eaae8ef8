"""HEP packets, and their way to collectors that come and go."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import asyncio_dgram
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.capture import CapturedDialog, CapturedMessage, HepAgent, HepRules, Side, registrations_of
from relay.net.capture import EndItem
from relay.privacy.canary import STYLES, insert_marks
from relay.trace import hep
from relay.trace.hep import RTCP, SIP, HepSender, Packet, Packets, encode_packet
from tests.canary.marks import ALICE
from tests.events.conftest import Log
from tests.support.addresses import CALLER, RELAY, Address, free
from tests.support.captured import call_id_of
from tests.support.certificates import write_certificate
from tests.support.waiting import until

AGENT = HepAgent(700, "node-a", "secret")
RELAY_AT, CALLER_AT, CALLEE_AT = f"{RELAY}:5060", f"{CALLER}:5060", "127.0.0.22:5070"
CALL = call_id_of(7)
LEGS: dict[Side, CapturedDialog] = {
    "caller": CapturedDialog("a84b@127.0.0.11", "caller", "pbx"),
    "callee": CapturedDialog("00ff", "callee", "carrier"),
}
INVITE = (
    "INVITE sip:700100000010001@127.0.0.10 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.11:5060;branch=z9hG4bKx\r\n"
    "From: <sip:13800000001@127.0.0.11>;tag=f\r\nTo: <sip:700100000010001@127.0.0.10>\r\nCall-ID: {}\r\n"
    "CSeq: 7 INVITE\r\nContact: <sip:13800000001@127.0.0.11:5060>\r\nMax-Forwards: 70\r\n"
    "Content-Type: application/sdp\r\nContent-Length: 129\r\n\r\n"
    "v=0\r\no=- 1 1 IN IP4 127.0.0.11\r\ns=-\r\nc=IN IP4 127.0.0.11\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"
    "a=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)


class Read(NamedTuple):
    """A packet as a collector reads it."""

    chunks: dict[int, bytes]

    def __getitem__(self, kind: int) -> bytes:
        return self.chunks[kind]

    def number(self, kind: int) -> int:
        return int.from_bytes(self.chunks[kind])

    @property
    def payload(self) -> str:
        return self.chunks[0x0F].decode("utf-8", "surrogateescape")

    @property
    def ends(self) -> tuple[str, int, str, int]:
        kinds = (3, 4) if 3 in self.chunks else (5, 6)
        source, destination = (str(ip_address(self.chunks[kind])) for kind in kinds)
        return source, self.number(7), destination, self.number(8)

    def header(self, name: str) -> str:
        (value,) = [line.partition(": ")[2] for line in self.payload.split("\r\n") if line.startswith(f"{name}:")]
        return value


def read(data: bytes) -> Read:
    """By the specification, and no more lenient."""
    assert data[:4] == b"HEP3"
    assert int.from_bytes(data[4:6]) == len(data)
    chunks: dict[int, bytes] = {}
    rest = data[6:]
    while rest:
        vendor, kind, length = (int.from_bytes(rest[at : at + 2]) for at in (0, 2, 4))
        assert vendor == 0
        assert kind not in chunks
        assert 6 <= length <= len(rest)
        chunks[kind], rest = rest[6:length], rest[length:]
    return Read(chunks)


def message(
    side: Side = "caller", text: str = INVITE, *, sent: bool = False, at_us: int = 1_000_001
) -> CapturedMessage:
    remote = CALLER_AT if side == "caller" else CALLEE_AT
    return CapturedMessage(at_us, sent, "udp", RELAY_AT, remote, text.format(LEGS[side].sip_call_id).encode())


def made(packets: Packets, side: Side = "caller", call_id: str = CALL, **how: object) -> Read:
    return read(encode_packet(packets.message(call_id, LEGS[side], message(side, **how)), AGENT))  # type: ignore[arg-type]


def end(**counts: int) -> EndItem:
    empty: dict[str, object] = dict.fromkeys(EndItem._fields)
    return EndItem(**empty | {"call_id": CALL} | counts)  # type: ignore[arg-type]


# -- packets


def test_the_example_of_the_specification() -> None:
    packet = Packet(1313440459_120000, "udp", "212.202.0.1:12010", "82.116.0.211:5060", SIP, b"INVITE sip:bob", "")
    assert encode_packet(packet, HepAgent(228, "", "")) == bytes.fromhex(
        "48455033007100000001000702000000020007110000"
        "0003000ad4ca00010000000400 0a527400d300000007 00082eea00000008000813c4"
        "00000009000a4e4982cb0000000a000a0001d4c00000000b0007010000000c000a000000E4"
        "0000000f0014494e56495445207369703a626f62"
    )


def test_a_packet_says_when_whence_and_which_call() -> None:
    got = made(Packets(is_clear=True))
    assert got.ends == (CALLER, 5060, RELAY, 5060)
    assert (got.number(1), got.number(2), got.number(0x0B)) == (2, 17, SIP)
    assert (got.number(9), got.number(0x0A)) == (1, 1)
    assert (got.number(0x0C), got[0x0E], got[0x13], got[0x11]) == (700, b"secret", b"node-a", CALL.encode())
    assert got.payload == message().data.decode()
    assert made(Packets(is_clear=True), sent=True).ends == (RELAY, 5060, CALLER, 5060)


@pytest.mark.parametrize(
    ("source", "destination", "family", "ends"),
    [
        ("[2001:db8::7]:5061", "[2001:db8::1]:5061", 10, ("2001:db8::7", 5061, "2001:db8::1", 5061)),
        ("192.0.2.7:1", "[::]:2", 10, (str(ip_address("::ffff:c000:207")), 1, "::", 2)),
        ("192.0.2.7:1", "sip.example:2", 2, ("192.0.2.7", 1, "0.0.0.0", 2)),
        ("[fe80::1%eth0]:1", "[fe80::2]:2", 10, ("fe80::1", 1, "fe80::2", 2)),
    ],
)
def test_addresses_of_both_families(
    source: str, destination: str, family: int, ends: tuple[str, int, str, int]
) -> None:
    got = read(encode_packet(Packet(0, "tls", source, destination, SIP, b"x", ""), AGENT))
    assert (got.number(1), got.number(2), got.ends) == (family, 6, ends)


def test_a_message_of_the_longest_size_fits() -> None:
    data = encode_packet(Packet(0, "tcp", CALLER_AT, RELAY_AT, SIP, bytes(65_535), CALL), AGENT)
    assert len(data) == 65_535
    read(data)


# -- calls


def test_both_sides_of_a_call_have_one_correlation_id() -> None:
    packets = Packets(is_clear=False)
    caller, callee = made(packets), made(packets, "callee", sent=True)
    assert caller[0x11] == callee[0x11] == CALL.encode()
    assert caller.header("Call-ID") != callee.header("Call-ID")


def test_stand_ins_stay_for_a_call_and_no_two_calls_share_a_call_id() -> None:
    packets = Packets(is_clear=False)
    first, again, other = made(packets), made(packets), made(packets, "callee", call_id_of(8))
    assert (first.payload, first.ends) == (again.payload, again.ends)
    assert first.header("Call-ID") != other.header("Call-ID")


def test_a_call_id_keeps_its_stand_in_when_the_call_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hep, "MOST_CALLS", 2)
    packets = Packets(is_clear=False)
    before = made(packets).header("Call-ID")
    for number in range(10, 20):
        made(packets, "callee", call_id_of(number))
    assert made(packets).header("Call-ID") == before


def test_registrations_without_end_take_bounded_memory() -> None:
    packets = Packets(is_clear=False)
    peer = registrations_of("pbx")
    kept = {id(packets._call(peer, 0)) for _ in range(3 * hep.MOST_MESSAGES)}
    assert 1 < len(kept) <= 4


def test_hosts_without_end_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hep, "MOST_STAND_INS", 1_000)
    packets = Packets(is_clear=False)
    for number in range(50):
        hosts = ",".join(f"<sip:h{number}.{each}.example>" for each in range(90))
        data = f"OPTIONS sip:x SIP/2.0\r\nCall-ID: a\r\nDiversion: {hosts}\r\n\r\n".encode()
        message = CapturedMessage(number, False, "udp", RELAY_AT, CALLER_AT, data)
        packet = packets.message(call_id_of(number % 3), LEGS["caller"], message)
        assert packet.payload.count(b"<sip:192.0.2.") == 90
        remembered = [call.mask.stand_ins for call in packets._calls.values() if call.mask]
        assert packets._stand_ins == sum(remembered) <= 1_000


def test_an_ended_call_is_forgotten_after_its_last_retransmissions() -> None:
    packets = Packets(is_clear=False)
    first = made(packets)
    packets.ended(end(), 1_000_001)
    assert made(packets, at_us=30_000_000).payload == first.payload
    made(packets, "callee", call_id_of(8), at_us=60_000_000)
    assert list(packets._calls) == [call_id_of(8)]


def test_call_whose_end_is_told_before_its_messages_is_forgotten_too() -> None:
    """One that is refused at once."""
    packets = Packets(is_clear=False)
    packets.ended(end(), 1)
    made(packets)
    made(packets, "callee", call_id_of(8), at_us=60_000_000)
    assert list(packets._calls) == [call_id_of(8)]


RINGING = "SIP/2.0 183 Session Progress\r\n" + INVITE.partition("\r\n")[2]
TEXT = INVITE.replace("INVITE", "MESSAGE").partition("Content-Type")[0] + "Content-Type: text/plain\r\n\r\nalicemark"


@pytest.mark.parametrize("turn", range(len(STYLES)))
@pytest.mark.parametrize("multipart", [False, True])
@pytest.mark.parametrize("text", [INVITE, RINGING, TEXT], ids=["INVITE", "183", "MESSAGE"])
def test_no_mark_of_a_party_is_in_a_masked_packet(text: str, turn: int, multipart: bool) -> None:
    stuffed = insert_marks(message(text=text).data, ALICE, turn, multipart=multipart)
    whole = message()._replace(data=stuffed)
    clear, masked = (
        encode_packet(Packets(is_clear=is_clear).message(CALL, LEGS["caller"], whole), AGENT)
        for is_clear in (True, False)
    )
    assert len(ALICE.found_in(clear)) > 4
    assert ALICE.found_in(masked) == []
    assert ip_address(CALLER).packed not in masked
    starts = ("INVITE sip:700****0001@203.0.113.1 SIP/2.0\r\n", "SIP/2.0 183 ", "MESSAGE sip:700****0001@203.0.113.1 ")
    assert read(masked).payload.startswith(starts)


@given(st.binary(max_size=300), st.sampled_from(["INVITE sip:x SIP/2.0\r\n", "SIP/2.0 200 OK\r\nVia: ", ""]))
def test_whatever_a_peer_writes_makes_a_packet(data: bytes, start: str) -> None:
    whole = message()._replace(data=start.encode() + data)
    read(encode_packet(Packets(is_clear=False).message(CALL, LEGS["caller"], whole), AGENT))


def test_a_call_through_rtpengine_ends_with_a_report_of_each_side() -> None:
    packets = Packets(is_clear=True)
    made(packets)
    made(packets, "callee", sent=True)
    counts = {"caller_packets": 900, "caller_lost": 100, "caller_jitter_ms": 3, "callee_packets": 1000}
    caller, callee = (read(encode_packet(packet, AGENT)) for packet in packets.ended(end(**counts), 5_000_000))
    assert (caller.ends, callee.ends) == ((CALLER, 5060, RELAY, 5060), ("127.0.0.22", 5070, RELAY, 5060))
    assert caller.number(0x0B) == callee.number(0x0B) == RTCP
    assert caller[0x11] == callee[0x11] == CALL.encode()
    said = json.loads(caller.payload)
    assert (said["type"], said["report_count"], said["sender_information"]["packets"]) == (200, 1, 900)
    (block,) = said["report_blocks"]
    assert (block["packets_lost"], block["fraction_lost"], block["ia_jitter"]) == (100, 25, 24)
    assert json.loads(callee.payload)["report_blocks"] == []


def test_a_call_without_counts_ends_without_a_report() -> None:
    packets = Packets(is_clear=True)
    made(packets)
    assert packets.ended(end(), 0) == []
    assert Packets(is_clear=True).ended(end(caller_packets=5), 0) == []  # of a call whose messages were not seen


# -- collectors


class Collector:
    """A collector that keeps what it gets, over UDP, TCP or TLS."""

    def __init__(self, transport: str, address: Address, context: ssl.SSLContext | None = None) -> None:
        self.got: list[Read] = []
        self._transport = transport
        self._address = address
        self._context = context
        self._close: Callable[[], None] = lambda: None

    async def start(self) -> None:
        if self._transport == "udp":
            stream = await asyncio_dgram.bind(self._address)
            task = asyncio.create_task(self._datagrams(stream))
            self._close = lambda: (task.cancel(), stream.close())[1]
            return
        writers: list[asyncio.StreamWriter] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    head = await reader.readexactly(6)
                    self._take(head + await reader.readexactly(int.from_bytes(head[4:6]) - 6))

        server = await asyncio.start_server(connected, *self._address, ssl=self._context)

        def close() -> None:
            server.close()
            for writer in writers:
                writer.transport.abort()

        self._close = close

    async def _datagrams(self, stream: asyncio_dgram.aio.DatagramServer) -> None:
        while True:
            data, _ = await stream.recv()
            self._take(data)

    def _take(self, data: bytes) -> None:
        self.got.append(read(data))

    async def until(self, count: int) -> None:
        await until(lambda: len(self.got) >= count)

    def stop(self) -> None:
        self._close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hep, "FIRST_PAUSE_S", 0.02)
    yield


@asynccontextmanager
async def running(rules: HepRules) -> AsyncIterator[tuple[HepSender, Log]]:
    log = Log()
    sender = HepSender(rules, AGENT, log.logger)
    task = asyncio.create_task(sender.run())
    try:
        yield sender, log
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_collector_gets_each_message_and_the_reports(transport: str, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    address = free(RELAY)
    collector = Collector(transport, address, context if transport == "tls" else None)
    await collector.start()
    rules = HepRules(transport, *address, ca=certificate)  # type: ignore[arg-type]
    async with running(rules) as (sender, log):
        for number in range(50):
            sender.message(call_id_of(number), LEGS["caller"], message())
        sender.message(CALL, LEGS["caller"], message())
        sender.ended(end(caller_packets=9))
        await collector.until(52)
        assert sender.statistics() == {"hep_sent": 52, "hep_dropped": 0}
        assert log.said == []
    collector.stop()
    assert [got[0x11].decode() for got in collector.got[:50]] == [call_id_of(number) for number in range(50)]
    assert collector.got[-1].number(0x0B) == RTCP


async def test_a_collector_that_comes_back_gets_what_waits() -> None:
    address = free(RELAY)
    async with running(HepRules("tcp", *address)) as (sender, log):
        sender.message(CALL, LEGS["caller"], message())
        await said(log, "hep.failed")
        collector = Collector("tcp", address)
        await collector.start()
        await collector.until(1)
        collector.stop()
        await said(log, "hep.failed", 2)
        sender.message(CALL, LEGS["caller"], message())
        await collector.start()
        await collector.until(2)
        collector.stop()
    assert log.events()[:3] == ["hep.failed", "hep.recovered", "hep.failed"]


async def said(log: Log, event: str, count: int = 1) -> None:
    await until(lambda: log.events().count(event) == count)


async def test_a_collector_with_another_certificate_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, key = write_certificate(tmp_path)
    other, _ = write_certificate(tmp_path / "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    address = free(RELAY)
    collector = Collector("tls", address, context)
    await collector.start()
    async with running(HepRules("tls", *address, ca=other)) as (sender, log):
        sender.message(CALL, LEGS["caller"], message())
        await said(log, "hep.failed")
    collector.stop()
    assert "certificate verify failed" in str(log.said[0])
    assert collector.got == []


async def test_a_collector_that_is_down_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hep, "MOST_WAITING", 10 * (500 + len(message().data)))
    async with running(HepRules("tcp", *free(RELAY))) as (sender, log):
        await said(log, "hep.failed")
        for number in range(100):
            sender.message(call_id_of(number), LEGS["caller"], message())
        assert sender.statistics() == {"hep_sent": 0, "hep_dropped": 90}


async def test_a_datagram_that_nobody_takes_disturbs_nothing() -> None:
    address = free(RELAY)
    async with running(HepRules("udp", *address)) as (sender, log):
        for number in range(10):
            sender.message(call_id_of(number), LEGS["caller"], message())
        await until(lambda: sender.sent + sender.dropped == 10)
        collector = Collector("udp", address)
        await collector.start()
        for _ in range(2):  # the first may get the refusal of an earlier one
            sender.message(CALL, LEGS["caller"], message())
        await collector.until(1)
        collector.stop()
        assert log.said == []


async def test_a_message_too_long_for_a_datagram_is_dropped_and_counted() -> None:
    async with running(HepRules("udp", *free(RELAY), is_clear=True)) as (sender, _):
        sender.message(CALL, LEGS["caller"], message()._replace(data=bytes(65_500)))
        await until(lambda: sender.dropped)
        assert sender.sent == 0
