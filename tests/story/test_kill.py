"""kill -9 of the relay and its backend between a call's end and the delivery of its event.

The event is delivered after the restart, at least once, wherever it was at the kill: four places.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.events.conftest import Inbox
from tests.support.addresses import RELAY, free
from tests.support.live_call import call
from tests.support.relay_process import RelayProcess, Setup
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside


class Story(NamedTuple):
    relay: RelayProcess
    inbox: Inbox

    async def call(self) -> str:
        """Make one call, answered and hung up, with its record on disk. Returns the id of its end's event."""
        mark = len(self.relay.log().splitlines())
        async with call(self.relay) as up:
            await up.hang_up()
        event = await asyncio.to_thread(self.relay.wait_for_event, "call.ended", after=mark)
        return f"{event['call_id']}.ended"

    def backend(self) -> int:
        return int(self.relay.wait_for_event("backend.started")["pid"])

    async def backend_stopped(self) -> None:
        """Stop the backend outside a transaction: the journal would wait for its end."""
        backend = self.backend()
        with self.nobody_writes():
            os.kill(backend, signal.SIGSTOP)
            await until_seen(lambda: " T " in Path(f"/proc/{backend}/stat").read_text())

    def kill(self) -> None:
        """Kill both at once, the backend first: if stopped, it would keep the log open."""
        os.kill(self.backend(), signal.SIGKILL)
        self.relay.kill()

    async def killed_and_started(self) -> None:
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.relay.start)

    async def delivered(self, event_id: str) -> None:
        await self.inbox.until(lambda: event_id in self.inbox.taken)

    def rows(self, statement: str) -> int:
        with closing(sqlite3.connect(self.relay.folder / "relay.db")) as connection:
            (count,) = connection.execute(statement).fetchone()
        return int(count)

    async def until_rows(self, statement: str) -> None:
        """Wait until the query counts rows."""
        await until_seen(lambda: self.rows(statement))

    async def until_answered(self) -> None:
        """Wait until the backend has read the answer to its first delivery."""
        url = f"http://{self.relay.setup.api}/metrics"
        await until_seen(lambda: "relay700_deliveries_total 1.0" in httpx.get(url, trust_env=False).text)

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """Block all writes to the store, as a stuck disk does."""
        with closing(sqlite3.connect(self.relay.folder / "relay.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


@pytest.fixture
async def story(tmp_path: Path, inbox: Inbox) -> AsyncIterator[Story]:
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY)))
    await asyncio.to_thread(relay.start)
    try:
        await asyncio.to_thread(relay.bind)
        relay.answer("webhooks", "make", inbox.url, "--business", "default", "--kind", "call.ended", "--json")
        await asyncio.to_thread(relay.wait_for_event, "backend.ready")
        yield Story(relay, inbox)
    finally:
        inbox.released.set()
        await asyncio.to_thread(relay.stop)


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    made = Inbox()
    async with made.serving():
        yield made


async def test_kill_between_commit_and_follower(story: Story) -> None:
    await story.backend_stopped()
    event_id = await story.call()
    assert story.rows("SELECT count(*) FROM call_record") == 1
    assert story.rows("SELECT count(*) FROM outbox") == story.rows("SELECT count(*) FROM record_index") == 0
    await story.killed_and_started()
    await story.delivered(event_id)
    assert story.inbox.taken == [event_id]


async def test_kill_between_follower_and_delivery(story: Story) -> None:
    story.inbox.answer = lambda ids: 503
    event_id = await story.call()
    await story.until_rows("SELECT count(*) FROM outbox WHERE dead_at IS NULL")
    await story.inbox.until(lambda: len(story.inbox.requests) == 1)
    assert story.inbox.taken == []
    await asyncio.to_thread(story.kill)
    story.inbox.answer = lambda ids: 200
    await asyncio.to_thread(story.relay.start)
    await story.delivered(event_id)


async def test_kill_during_delivery(story: Story) -> None:
    story.inbox.released.clear()
    event_id = await story.call()
    await story.inbox.until(lambda: len(story.inbox.requests) == 1)  # read, not answered
    await asyncio.to_thread(story.kill)
    story.inbox.released.set()
    await asyncio.to_thread(story.relay.start)
    await story.inbox.until(lambda: len(story.inbox.requests) == 2)
    assert story.inbox.batches == [[event_id], [event_id]]


async def test_kill_between_answer_and_removal(story: Story) -> None:
    story.inbox.released.clear()
    event_id = await story.call()
    await story.inbox.until(lambda: len(story.inbox.requests) == 1)
    with story.nobody_writes():
        story.inbox.released.set()
        await story.until_answered()
        assert story.rows("SELECT count(*) FROM outbox") == 1
        await asyncio.to_thread(story.kill)
    await asyncio.to_thread(story.relay.start)
    await story.inbox.until(lambda: len(story.inbox.requests) == 2)
    assert story.inbox.batches == [[event_id], [event_id]]


async def test_kill_after_removal_sends_nothing_again(story: Story) -> None:
    event_id = await story.call()
    await story.delivered(event_id)
    await story.until_rows("SELECT count(*) = 0 FROM outbox")
    await story.killed_and_started()
    another = await story.call()
    await story.delivered(another)
    assert story.inbox.batches == [[event_id], [another]]
