"""The ring between relay and backend, and what the relay writes into it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.net.capture import (
    ENDED,
    LINK,
    MARK,
    MOST_BYTES,
    RECEIVED,
    RING_BYTES,
    SENT,
    Capture,
    DialogItem,
    EndItem,
    Ring,
    make_memory,
    read_items,
)
from relay.sip.message import Flow
from tests.net.support import until
from tests.support.stored import live_record

FLOW = Flow(1, "udp", "127.0.0.2", 5060)
_FRAME_HEAD = 4  # bytes


class Ends:
    """The two ends of a ring, each as its process would map it."""

    def __init__(self, size: int) -> None:
        self.memory = make_memory(size)
        self.writer, self.reader = Ring(self.memory), Ring(self.memory)

    def read(self) -> list[bytes]:
        self.reader.look()
        return list(iter(self.reader.take, None))


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends(100)
    yield made
    os.close(made.memory)


def test_frames_are_read_in_order_once_they_were_seen(ends: Ends) -> None:
    assert ends.writer.write(b"one")
    assert ends.writer.write(b"")
    assert ends.reader.take() is None  # not seen yet
    assert ends.read() == [b"one", b""]
    assert ends.read() == []


def test_a_full_ring_takes_nothing_until_it_is_read(ends: Ends) -> None:
    assert ends.writer.write(b"x" * (100 - _FRAME_HEAD))
    assert not ends.writer.write(b"")
    assert ends.read() == [b"x" * (100 - _FRAME_HEAD)]
    assert ends.writer.write(b"y")
    assert ends.read() == [b"y"]


def test_a_frame_longer_than_the_ring_is_not_written(ends: Ends) -> None:
    assert not ends.writer.write(b"x" * (101 - _FRAME_HEAD))
    assert ends.read() == []


def test_a_new_reader_goes_on_where_its_predecessor_was(ends: Ends) -> None:
    ends.writer.write(b"read")
    assert ends.read() == [b"read"]
    ends.writer.write(b"left")
    ends.reader = Ring(ends.memory)
    assert ends.read() == [b"left"]


@given(st.lists(st.one_of(st.binary(max_size=120), st.sampled_from(["look", "take", "restart"])), max_size=200))
@settings(deadline=None)
def test_the_ring_is_a_queue_of_bounded_size(steps: list[bytes | str]) -> None:
    """Wrapping around at each offset; against a model."""
    ends = Ends(100)
    queue: deque[bytes] = deque()
    seen = 0
    try:
        for step in steps:
            if isinstance(step, bytes):
                has_room = sum(_FRAME_HEAD + len(each) for each in (*queue, step)) <= 100
                assert ends.writer.write(step) == has_room
                if has_room:
                    queue.append(step)
            elif step == "take":
                assert ends.reader.take() == (queue.popleft() if seen else None)
                seen = max(seen - 1, 0)
            else:
                if step == "restart":
                    ends.reader = Ring(ends.memory)
                ends.reader.look()
                seen = len(queue)
    finally:
        os.close(ends.memory)


# -- Capture


def items(ends: Ends) -> list[tuple[object, ...]]:
    """What was written, without the times."""
    return [item[:1] + item[2:] for frame in ends.read() for item in read_items(frame)[1]]


async def test_each_item_arrives_as_it_was_handed_over() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    record = live_record(outcome="answered", ended_by="caller", end_reason="bye", ended_at=5)
    capture.received(b"INVITE", FLOW, 1.0, "id\udcff")
    capture.link("call", "id\udcff", "caller", "carrier", FLOW)
    capture.mark("call", "look_up")
    capture.sent(b"\xff100", FLOW)
    capture.ended(record)
    capture.flush()
    received, link, mark, sent, ended = items(ends)
    assert received == (RECEIVED, list(FLOW), b"INVITE", b"id\xff")
    assert link == (LINK, list(DialogItem("call", b"id\xff", "caller", "carrier")), list(FLOW), None)
    assert mark == (MARK, "call", "look_up", None)
    assert sent == (SENT, list(FLOW), b"\xff100", b"")
    assert ended == (ENDED, [getattr(record, name) for name in EndItem._fields], None, None)
    assert (capture.messages, capture.dropped) == (2, 0)


def of_a_call(capture: Capture, call_id: str, outcome: str) -> None:
    """A call of which the capture gets all."""
    capture.received(b"INVITE", FLOW, 1.0, call_id)
    capture.link(call_id, call_id, "caller", "carrier", FLOW)
    capture.sent(b"SIP/2.0 200 OK\r\nCall-ID: " + call_id.encode() + b"\r\n\r\n", FLOW)
    capture.ended(live_record(call_id, outcome=outcome, ended_by="caller", end_reason="bye", ended_at=5))


def kinds(ends: Ends, capture: Capture) -> list[object]:
    capture.flush()
    return [item[0] for item in items(ends)]


WHOLE = [LINK, RECEIVED, SENT, ENDED]


async def test_once_the_reader_wants_failed_calls_alone_a_good_one_leaves_nothing() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    capture.hold(keeps_failed=True)
    of_a_call(capture, "c1", "answered")
    assert kinds(ends, capture) == WHOLE  # the reader has not said yet what it wants
    ends.reader.want(all_calls=False)
    of_a_call(capture, "c2", "answered")
    of_a_call(capture, "c3", "delivered")
    assert kinds(ends, capture) == []
    of_a_call(capture, "c4", "busy")
    assert kinds(ends, capture) == WHOLE
    ends.reader.want(all_calls=True)  # something is armed
    of_a_call(capture, "c5", "answered")
    assert kinds(ends, capture) == WHOLE


async def test_where_failed_calls_are_not_kept_only_what_may_be_armed_is_written() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    capture.hold(keeps_failed=False)
    ends.reader.want(all_calls=False)
    of_a_call(capture, "c1", "busy")
    assert kinds(ends, capture) == []
    ends.reader.want(all_calls=True)
    of_a_call(capture, "c2", "busy")
    assert kinds(ends, capture) == WHOLE


async def test_what_is_held_is_written_once_all_is_to_be() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    capture.hold(keeps_failed=True)
    ends.reader.want(all_calls=False)
    capture.received(b"INVITE", FLOW, 1.0, "a@b")
    capture.link("c1", "a@b", "caller", "carrier", FLOW)
    assert capture.statistics()["captures_held"] == 1
    assert kinds(ends, capture) == []
    capture.pass_all()
    capture.mark("c1", "commit")
    assert kinds(ends, capture) == [LINK, RECEIVED, MARK]
    assert capture.statistics()["captures_held"] == 0


async def test_a_single_message_is_written_soon() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    capture.received(b"OPTIONS", FLOW, 1.0, "a@b")
    await until(lambda: capture.messages)
    assert [item[2] for item in items(ends)] == [b"OPTIONS"]


async def test_many_messages_are_written_before_their_time() -> None:
    ends = Ends(2 * MOST_BYTES)
    capture = Capture(ends.writer)
    for _ in range(3):
        capture.received(b"x" * (MOST_BYTES // 2), FLOW, 1.0, "a@b")
    assert len(ends.read()) == 1
    assert capture.messages == 2


async def test_text_that_cannot_be_encoded_costs_its_frame_only() -> None:
    ends = Ends(10_000)
    capture = Capture(ends.writer)
    capture.received(b"lost", FLOW, 1.0, "a@b")
    capture.mark("call", "\udcff")
    capture.flush()
    capture.received(b"next", FLOW, 1.0, "a@b")
    capture.flush()
    assert [item[2] for item in items(ends)] == [b"next"]
    assert capture.dropped == 1


async def test_a_flood_that_nobody_reads_is_dropped_and_counted() -> None:
    """Ten times a load of 1,000 calls a second, for two seconds."""
    ends = Ends(RING_BYTES)
    capture = Capture(ends.writer)
    message = b"x" * 650
    for _ in range(320_000):
        capture.received(message, FLOW, 1.0, "a@b")
    capture.flush()
    assert capture.messages == 320_000
    written = sum(1 for _ in items(ends))
    assert written == capture.messages - capture.dropped
    assert 0 < written * len(message) <= RING_BYTES


async def test_a_slow_reader_gets_what_finds_room_in_order() -> None:
    ends = Ends(1_000_000)
    capture = Capture(ends.writer)
    read: list[bytes] = []

    def read_a_frame() -> bool:
        frame = ends.reader.take()
        ends.reader.look()
        if frame is not None:
            read.extend(item[3] for item in read_items(frame)[1])
        return frame is not None

    for number in range(20_000):
        capture.received(number.to_bytes(4) + b"x" * 650, FLOW, 1.0, "a@b")
        if number % 600 == 0:  # of some 170 in a frame
            read_a_frame()
    capture.flush()
    ends.reader.look()
    while read_a_frame():
        pass
    assert read == sorted(read)
    assert len(read) == 20_000 - capture.dropped
    assert 0 < capture.dropped < 20_000


async def test_the_reader_is_told_how_many_messages_were_dropped() -> None:
    ends = Ends(3_000)
    capture = Capture(ends.writer)
    for _ in range(10):
        capture.received(b"x" * 1_000, FLOW, 1.0, "a@b")
        capture.flush()
    ends.read()
    capture.received(b"after", FLOW, 1.0, "a@b")
    capture.flush()
    (frame,) = ends.read()
    dropped, _ = read_items(frame)
    assert dropped == capture.dropped == 8
