"""The channel between the parent and a worker, over a real socket pair."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from relay.net.channel import MOST_UNSENT, Channel

PATIENCE_S = 10


class End:
    """One end, and all that it was told."""

    def __init__(self, name: str) -> None:
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.channel = Channel({name: lambda *fields: self.told.put_nowait(fields)}, self.closed.set)


@pytest.fixture
async def ends() -> tuple[End, End]:
    one, other = End("word"), End("word")
    for end, its_socket in zip((one, other), socket.socketpair(), strict=True):
        await end.channel.open(its_socket)
    return one, other


async def heard(end: End) -> tuple[Any, ...]:
    return await asyncio.wait_for(end.told.get(), PATIENCE_S)


async def test_messages_arrive_both_ways_in_their_order(ends: tuple[End, End]) -> None:
    one, other = ends
    for number in range(3):
        one.channel.tell("word", number, b"\x00\xff", None, (1, "two"))
    other.channel.tell("word", {"a": [True]})
    assert [await heard(other) for _ in range(3)] == [(number, b"\x00\xff", None, [1, "two"]) for number in range(3)]
    assert await heard(one) == ({"a": [True]},)


async def test_a_message_is_as_long_as_it_is(ends: tuple[End, End]) -> None:
    one, other = ends
    long = bytes(range(256)) * 8_000  # more than a socket takes at once
    one.channel.tell("word", long)
    one.channel.tell("word", b"")
    assert await heard(other) == (long,)
    assert await heard(other) == (b"",)


async def test_what_is_kept_waits_and_goes_in_its_order(ends: tuple[End, End]) -> None:
    one, other = ends
    one.channel.keep("word", "kept")
    other.channel.tell("word", "a turn of the loop")
    await heard(one)
    assert other.told.empty()
    one.channel.tell("word", "told")
    one.channel.keep("word", "kept later")
    assert [await heard(other) for _ in range(3)] == [("kept",), ("told",), ("kept later",)]
    one.channel.tell("word", "told again")
    assert await heard(other) == ("told again",)
    one.channel.keep("word", "last")
    one.channel.close()
    assert await heard(other) == ("last",)


async def test_what_was_told_before_the_close_arrives(ends: tuple[End, End]) -> None:
    one, other = ends
    one.channel.tell("word", "last")
    one.channel.close()
    await asyncio.wait_for(other.closed.wait(), PATIENCE_S)
    assert other.told.get_nowait() == ("last",)
    other.channel.tell("word", "nobody hears it")
    await asyncio.wait_for(one.closed.wait(), PATIENCE_S)


async def test_the_half_of_a_message_of_a_process_that_was_killed_is_nothing() -> None:
    end = End("word")
    ours, theirs = socket.socketpair()
    await end.channel.open(ours)
    theirs.sendall(struct.pack("=I", 100) + b"half")
    theirs.close()
    await asyncio.wait_for(end.closed.wait(), PATIENCE_S)
    assert end.told.empty()


async def test_who_does_not_read_is_behind_until_he_has() -> None:
    relieved = asyncio.Event()
    channel = Channel({}, lambda: None, relieved.set)
    ours, theirs = socket.socketpair()
    await channel.open(ours)
    channel.tell("word", bytes(2 * MOST_UNSENT))
    assert not channel.is_behind
    channel.flush()
    assert channel.is_behind
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    await reader.readexactly(2 * MOST_UNSENT)
    await asyncio.wait_for(relieved.wait(), PATIENCE_S)
    assert not channel.is_behind
    channel.close()
    writer.close()
