"""A worker's way to its parent's journal."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from relay.call.actions import Commit
from relay.net.channel import Channel
from relay.store.record_rows import decode_record
from relay.worker import FarRecords
from tests.support.stored import ended_record

PATIENCE_S = 10


async def test_a_record_with_a_call_id_that_is_no_text_arrives_as_it_is() -> None:
    arrived: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    handlers = {name: lambda *fields: arrived.put_nowait(fields) for name in ("commit", "tell")}
    worker, parent = Channel({}, lambda: None), Channel(handlers, lambda: None)
    for channel, end in zip((worker, parent), socket.socketpair(), strict=True):
        await channel.open(end)
    record = ended_record()._replace(caller_leg_call_id="odd-\udcff\udce9")
    records = FarRecords(worker)
    records.append(Commit(7, record, None), lambda _: None)
    records.tell("ringing", record)
    token, encoded, dialogs = await asyncio.wait_for(arrived.get(), PATIENCE_S)
    assert (token, decode_record(encoded), dialogs) == (7, record, None)
    kind, encoded = await asyncio.wait_for(arrived.get(), PATIENCE_S)
    assert (kind, decode_record(encoded)) == ("ringing", record)
    worker.close()
    parent.close()
