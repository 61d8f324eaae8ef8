"""Captures of pending calls take bounded memory: the oldest are compressed, then given up, and each loss is counted."""

from __future__ import annotations

import random

from relay.model.capture import CapturedDialog, CapturedMessage
from relay.net.capture import RECEIVED
from relay.net.held import Item
from relay.trace.pending import (
    MOST_CALL_BYTES,
    MOST_CALLS,
    MOST_UNCLAIMED_BYTES,
    PendingCall,
    PendingCalls,
)

SIP = b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.2\r\nCall-ID: %s\r\n\r\n" + b"a=rtpmap:8 PCMA/8000\r\n" * 20


def message(data: bytes) -> Item:
    return RECEIVED, 1.0, [0, "udp", "127.0.0.2", 5060, 0], data, b""


def read(item: Item) -> CapturedMessage:
    return CapturedMessage(1, False, "udp", "127.0.0.1:5060", "127.0.0.2:5060", item[3])


def opened(calls: PendingCalls, call_id: str, peer: str = "carrier") -> PendingCall:
    calls.link(call_id, call_id.encode(), CapturedDialog(call_id, "caller", peer), "127.0.0.2", 0.0)
    call = calls.get(call_id)
    assert call is not None
    return call


def test_the_oldest_calls_are_compressed_and_come_out_whole() -> None:
    calls = PendingCalls(read, most_fresh=10_000)
    sent: dict[str, list[bytes]] = {}
    for number in range(100):
        call_id = f"c{number % 20}"
        call = calls.get(call_id) or opened(calls, call_id)
        data = SIP % str(number).encode()
        sent.setdefault(call_id, []).append(data)
        calls.keep(call, message(data))
        assert calls.fresh_bytes <= 10_000
    assert 0 < calls.packed_bytes < 100 * len(SIP) / 2
    for call in list(calls):
        captured = calls.captured(call)
        assert ([each.data for each in captured.messages], captured.lost) == (sent[call.call_id], 0)
        calls.remove(call)
    assert (len(calls), calls.fresh_bytes, calls.packed_bytes, calls.given_up) == (0, 0, 0, 0)


def test_above_that_the_oldest_are_given_up_and_counted() -> None:
    calls = PendingCalls(read, most_fresh=3_000, most_packed=3_000)
    noise = random.Random(700)
    for number in range(20):
        call = opened(calls, f"c{number}")
        calls.keep(call, message(noise.randbytes(1_000)))
        assert calls.fresh_bytes + calls.packed_bytes <= 6_000
    lost = [calls.captured(call).lost for call in calls]
    assert lost == sorted(lost, reverse=True)
    assert 0 < sum(lost) == calls.given_up < 20
    assert [len(calls.captured(call).messages) for call in calls] == [1 - each for each in lost]
    late = next(iter(calls))
    calls.keep(late, message(b"BYE"))
    assert [each.data for each in calls.captured(late).messages] == [b"BYE"]


def test_a_flood_of_one_peer_takes_no_messages_from_the_calls_of_another() -> None:
    calls = PendingCalls(read, most_fresh=3_000, most_packed=3_000)
    noise = random.Random(700)
    first = opened(calls, "first", "pbx")
    calls.keep(first, message(noise.randbytes(1_000)))
    for number in range(50):
        calls.keep(opened(calls, f"c{number}"), message(noise.randbytes(1_000)))
        assert calls.fresh_bytes + calls.packed_bytes <= 6_000
    assert (len(calls.captured(first).messages), calls.captured(first).lost) == (1, 0)
    assert calls.given_up > 40
    for call in list(calls):
        calls.remove(call)
    assert (calls.fresh_bytes, calls.packed_bytes) == (0, 0)


def test_one_call_cannot_take_the_memory_of_all() -> None:
    calls = PendingCalls(read)
    call = opened(calls, "endless")
    for _ in range(2_000):
        calls.keep(call, message(b"x" * 1_000))
    assert calls.fresh_bytes <= MOST_CALL_BYTES
    assert calls.captured(call).lost == calls.given_up == 2_000 - call.count > 0


def test_messages_of_unknown_dialogs_take_bounded_memory() -> None:
    calls = PendingCalls(read)
    for number in range(10_000):
        calls.join(message(b"x" * 1_000), str(number).encode(), 0.0)
    assert calls.unclaimed >= 10_000 - MOST_UNCLAIMED_BYTES / 1_000
    calls.expire(100.0)
    assert calls.unclaimed == 10_000


def test_calls_whose_end_is_never_told_are_given_up_in_the_end() -> None:
    calls = PendingCalls(read)
    opened(calls, "long", "pbx")
    for number in range(MOST_CALLS + 10):
        opened(calls, str(number))
    assert len(calls) == MOST_CALLS
    assert calls.get("0") is None
    assert calls.get("long") is not None


def test_a_removed_call_leaves_the_dialog_to_another_of_the_same_call_id() -> None:
    calls = PendingCalls(read)
    dialog = CapturedDialog("same", "caller", "carrier")
    calls.link("c1", b"same", dialog, "127.0.0.2", 0.0)
    calls.link("c2", b"same", dialog, "127.0.0.2", 0.0)
    second = calls.get("c2")
    assert second is not None
    calls.remove(second)
    found = calls.join(message(b"BYE"), b"same", 0.0)
    assert found is not None
    assert found[0].call_id == "c1"
