"""A node of a world: the product from its SIP service to its store, as `relay.server` composes them, on a network
without sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from structlog.typing import FilteringBoundLogger

from relay import sip_service
from relay.config import load_config
from relay.model.actions import Commit, LookUp
from relay.model.call import CallRecord, Refusal, Route
from relay.model.settings import Peer
from relay.policy.call_policy import CallPolicy
from relay.sip.message import Flow
from relay.sip_service import SipService
from relay.store.database import connect_reader, open_store
from relay.store.journal.attempts import AttemptFile, with_records
from relay.store.journal.journal import Batch
from relay.store.records import RecordFilter, live_calls, read_all
from relay.store.sqlite.journal import sqlite_journal
from relay.store.writer import Writer
from tests.simulation.virtual import Disk, Machine, forever, use_disk

RELAY, PBX, CARRIER, SECOND = "127.0.0.10", "127.0.0.11", "127.0.0.22", "127.0.0.23"
PREFIX = "70010000001"
RING_S, MOST_S = 20, 100
_CONFIG = """
[sip]
listen = ["udp:{relay}:5060"]
ring_timeout_s = {ring}
max_call_s = {most}
[store]
url = "sqlite:{folder}/relay.db"
key_file = "{folder}/relay.key"
[numbers]
prefixes = ["{prefix}"]
[policy]
caller_caps = []
number_caps = []
refused_per_number = 0
refused_per_caller = 0
{peers}
[[route]]
prefix = "86138"
peers = ["pbx"]
[[route]]
prefix = "86139"
peers = ["carrier", "second"]
"""
_PEER = '[[peer]]\nname = "{0}"\nuri = "sip:{1}:5060;transport=udp"\nsources = ["{1}/32"]\nnumbers = "any"\n'


class Log:
    """The node's log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    debug = warning = error = exception = info


class Network:
    """In the place of `relay.net.transports.Transports`."""

    send_to: Callable[[bytes, Flow], None]

    def __init__(self, *_: object) -> None:
        self.receive: Callable[[bytes, Flow], None] = lambda data, flow: None

    async def open(self, receive: Callable[[bytes, Flow], None], *_: object) -> None:
        self.receive = receive

    def send(self, data: bytes, flow: Flow) -> None:
        self.send_to(data, flow)

    def send_all(self, messages: list[bytes], flow: Flow) -> None:
        for data in messages:
            self.send_to(data, flow)

    def nothing(self, *_: object) -> None: ...

    hold = release = sweep = locate = reload = nothing

    def statistics(self) -> dict[str, int]:
        return {}

    async def close(self) -> None: ...


class Node:
    """`granted(number, caller, answer)` is told each decision, `sent` each message, `kept` each attempt."""

    def __init__(
        self,
        machine: Machine,
        folder: Path,
        sent: Callable[[bytes, Flow], None],
        granted: Callable[[str, str, Route | Refusal], None],
        kept: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.path = folder / "relay.db"
        self.log = Log()
        self.disk = Disk()
        self.durable: dict[str, dict[str, CallRecord]] = {}  # by the Call-ID of a leg, by call: what the disk has
        self.records: dict[str, CallRecord] = {}
        self.starts = 0
        self.is_up = False
        self._writer: Writer | None = None
        self._machine = machine
        self._sent = sent
        self._granted = granted
        self._kept = kept
        peers = "".join(_PEER.format(*it) for it in (("pbx", PBX), ("carrier", CARRIER), ("second", SECOND)))
        text = _CONFIG.format(relay=RELAY, folder=folder, prefix=PREFIX, peers=peers, ring=RING_S, most=MOST_S)
        (folder / "relay.toml").write_text(text)

    async def start(self) -> None:
        """As `relay.server.Server.run` until it serves."""
        self.life, self.context = self._machine.new_life()
        use_disk(self.context, self.disk)
        await asyncio.get_running_loop().create_task(self._start(), context=self.context)
        self.starts += 1
        self.is_up = True

    async def _start(self) -> None:
        log = cast(FilteringBoundLogger, self.log)
        report = lambda event, fields: self.log.info(event, **fields)  # noqa: E731
        config = load_config(self.folder / "relay.toml")
        sealer = self.sealer = open_store(self.path, self.folder / "relay.key")
        journal = self.journal = sqlite_journal(self.path, sealer, report)
        journal.queue._acknowledgements._clock = lambda: self._machine.now
        attempts = self.attempts = AttemptFile(self.path.with_name("relay.db.attempts"), sealer, report)
        self._watch_disk()
        keep = attempts.keep

        def told_keep(record: CallRecord, state: bytes) -> None:
            keep(record, state)
            self._kept()

        cast(Any, attempts).keep = told_keep
        with self._composed():
            service = self.service = SipService(config, sealer, journal.queue, attempts, log)
            await journal.open()
            self._note_stored()
            live = journal.live()
            unwritten = [commit.record for commit in journal.queue.unwritten()]
            kept = with_records(self.path, sealer, attempts.open(), unwritten)
            await service.open(live, [call.record for call in live] + unwritten, {}, kept)

    def _composed(self) -> ExitStack:
        """The names of `relay.sip_service` that are of the real process, replaced."""
        stack = ExitStack()
        network = type("NodeNetwork", (Network,), {"send_to": staticmethod(self._send)})
        policy = type("NodePolicy", (_ToldPolicy,), {"granted": staticmethod(self._granted)})
        named = {
            "Transports": network,
            "CallPolicy": policy,
            "take_huge_pages": lambda: 0,
            "collect_samples": forever,
            "collect_all": lambda: None,
            "ended_calls": lambda *_: lambda fields: None,
        }
        for name, value in named.items():
            stack.enter_context(patch.object(sip_service, name, value))
        return stack

    def _watch_disk(self) -> None:
        """Note what became durable: what a transaction or the overflow log was said to hold."""
        write, overflow = self.journal.writer.write, self.journal._overflow
        write_overflow, prepare = overflow.write, overflow.prepare
        prepared: list[Commit] = []

        async def watched(batch: Batch) -> None:
            await write(batch)
            for commit in (*batch.up, *batch.ended):
                self._note(commit.record)

        def prepare_watched(seq: int, commits: Any) -> Any:
            answer = prepare(seq, commits)
            prepared[:] = commits[: answer.commits]
            return answer

        def write_watched(entries: Any) -> None:
            write_overflow(entries)
            for commit in prepared:
                self._note(commit.record)

        cast(Any, self.journal.writer).write = watched
        cast(Any, overflow).prepare, cast(Any, overflow).write = prepare_watched, write_watched

    def _note_stored(self) -> None:
        """Of what a life committed as it ended, it did not hear."""
        with closing(connect_reader(self.path)) as connection:
            for record in (*read_all(connection, self.sealer, RecordFilter()), *live_calls(connection, self.sealer)):
                self._note(record)

    def _note(self, record: CallRecord) -> None:
        known = self.records.get(record.call_id)
        if known is not None and known.ended_at is not None:  # the overflow log may have had the end before the store
            assert record.ended_at is None or record == known, f"changed after it was closed: {known} {record}"
            return
        self.records[record.call_id] = record
        for leg in (record.caller_leg_call_id, record.callee_leg_call_id):
            if leg is not None:
                self.durable.setdefault(leg, {})[record.call_id] = record

    # -- in the node's own life

    def receive(self, data: bytes, flow: Flow) -> None:
        if self.is_up:
            self.context.run(self.network.receive, data, flow)

    @property
    def network(self) -> Network:
        return cast(Network, self.service._transports)

    @property
    def writer(self) -> Writer:
        """The operators' writer, which outlives the node."""
        if self._writer is None:
            self._writer = Writer(self.path, self.sealer)
        return self._writer

    def _send(self, data: bytes, flow: Flow) -> None:
        self._sent(data, flow)

    async def reload(self) -> None:
        config = load_config(self.folder / "relay.toml")
        await asyncio.get_running_loop().create_task(self.service.reload(config, dict), context=self.context)

    async def stop(self, limit_s: float) -> None:
        """SIGTERM: drain, and end as `relay.server` does."""
        await asyncio.get_running_loop().create_task(self._stop(limit_s), context=self.context)

    async def _stop(self, limit_s: float) -> None:
        await self.service.drain(limit_s, asyncio.Event())
        await self.journal.close()
        await self.service.close()
        self.attempts.close()
        self.is_up = False
        self._machine.over.add(self.life)

    # -- its end

    def kill(self) -> None:
        """`kill -9`: nothing of it runs any more, and the kernel closes its files."""
        self.is_up = False
        self._machine.over.add(self.life)
        journal, writer = self.journal, cast(Any, self.journal.writer)
        if writer._work is not None:
            writer._work.close()
        journal._overflow.close()
        if journal._lock is not None:
            os.close(journal._lock)
            journal._lock = None
        self.attempts.close()
        self.service._reader.close()

    def release(self) -> None:
        """After the play: close what it has open."""
        if self.is_up:
            self.kill()
        if self._writer is not None:
            self._writer.close()


class _ToldPolicy(CallPolicy):
    granted: Callable[[str, str, Route | Refusal], None]

    def look_up(
        self, number: str, caller: str, unix_s: float, peer: Peer | None = None, asked: LookUp | None = None
    ) -> Route | Refusal:
        answer = super().look_up(number, caller, unix_s, peer, asked)
        self.granted(number, caller, answer)
        return answer
