"""Records on their way from a worker to its parent's journal, and the word back that they are durable.

Each message wakes the other process, so they are sent together: by the worker shortly before the journal's next
transaction, by the parent after one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from relay.call.actions import Commit
from relay.call.record import CallRecord
from relay.net.channel import Channel
from relay.policy.last_caller import LastCaller
from relay.store.journal_queue import MIN_GAP_S, Acknowledgements, JournalQueue
from relay.store.record_rows import decode_record, encode_record

AHEAD_S: Final = 0.003  # of a transaction: timers are late by 1 ms, and the parent is to have read it


class FarRecords:
    """The worker's end, for `Switch`. A record that finds the journal idle goes at once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._done: Callable[[int], None]
        self._next_at = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None  # while something waits
        self._acknowledgements = Acknowledgements()

    def append(self, commit: Commit, done: Callable[[int], None]) -> None:
        """As `JournalQueue.append`; `done` is the same one each time."""
        self._done = done
        self._keep("commit", commit.token, encode_record(commit.record), commit.dialogs)

    def tell(self, kind: str, record: CallRecord) -> None:
        """As `JournalQueue.tell`."""
        self._keep("tell", kind, encode_record(record))

    def remember(self, last: LastCaller) -> None:
        """As `JournalQueue.remember`."""
        self._keep("remember", last)

    def committed(self, tokens: Sequence[int], rest_s: float) -> None:
        """The parent says that they are durable, and its journal's `rest_s`."""
        self._next_at = asyncio.get_running_loop().time() + rest_s - AHEAD_S
        if self._timer is not None:
            self._timer.cancel()
            self._wait()
        for token in tokens:
            self._acknowledgements.put(self._done, token)

    def _keep(self, name: str, *fields: object) -> None:
        self._channel.keep(name, *fields)
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._next_at, self._send)

    def _send(self) -> None:
        self._timer = None
        self._next_at = asyncio.get_running_loop().time() + MIN_GAP_S  # unless the parent says more
        self._channel.flush()


class NearRecords:
    """The parent's end. `tell` sends to whichever worker there is, as `Channel.tell`."""

    def __init__(self, queue: JournalQueue, tell: Callable[..., None]) -> None:
        self._queue = queue
        self._tell = tell
        self._durable: list[int] = []  # of which it is to be told

    def handlers(self) -> Mapping[str, Callable[..., None]]:
        """For the messages of the worker's end, in a `Channel`."""
        return {"commit": self._append, "tell": self._told, "remember": self._remember}

    def _append(self, token: int, record: bytes, dialogs: bytes | None) -> None:
        self._queue.append(Commit(token, decode_record(record), dialogs), self._committed)

    def _told(self, kind: str, record: bytes) -> None:
        self._queue.tell(kind, decode_record(record))

    def _remember(self, last: list[Any]) -> None:
        self._queue.remember(LastCaller(*last))

    def _committed(self, token: int) -> None:
        if not self._durable:
            asyncio.get_running_loop().call_soon(self._acknowledge)  # once the journal has called us for each
        self._durable.append(token)

    def _acknowledge(self) -> None:
        durable, self._durable = self._durable, []
        self._tell("committed", durable, self._queue.rest_s)
