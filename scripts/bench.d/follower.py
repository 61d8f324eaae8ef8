"""CPU time of the backend's follower for each call, without calls: it follows records that a journal has just written.

The journal writes as beside that many calls a second, and the follower looks as often as in service. Only its own time
is measured, in a process with all its threads. Time stands still: a run takes as long as the machine needs.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import stores
from load import CALLEE_HOST, free
from servers import PYTHON, RELAY700, relay_toml

if TYPE_CHECKING:
    from relay.events.follower import Follower
    from relay.model.call import CallRecord
    from relay.store.sealing.sealer import Sealer

RECORDS = 20_000  # for each rate; the first half is not measured
COMMIT_S = 0.02  # between two of the journal's
IDLE_LOOKS = 200
INDEXED_AT_ONCE = 100_000


@dataclass(frozen=True)
class Followed:
    """The results at one rate of calls a second."""

    rate: int
    a_call_us: float
    a_look: float  # calls
    idle_us: float  # of a look that finds nothing


def measure(run: Path, bindings: stores.Bindings, rates: Sequence[int], indexed: int) -> list[Followed]:
    """A new store for each rate. `indexed`: records that the index has beforehand."""
    return [_measure(run / f"follower-{rate}", bindings, rate, indexed) for rate in rates]


def table(figures: Sequence[Followed]) -> str:
    rows = [f"{one.rate:7}{one.a_call_us:12.1f}{one.a_look:15.0f}{one.idle_us:18.0f}" for one in figures]
    return "\n".join(["calls/s   us a call   calls a look   us an idle look", *rows])


def _measure(folder: Path, bindings: stores.Bindings, rate: int, indexed: int) -> Followed:
    folder.mkdir()
    config = folder / "relay.toml"
    config.write_text(relay_toml(folder, free("127.0.0.10"), free(CALLEE_HOST), bindings.prefixes))
    stores.put_relay_store(folder, bindings, [*RELAY700, "bindings", "import", "-c", str(config)])
    follow = [PYTHON, __file__, str(folder), str(bindings.count), str(rate), str(indexed)]
    done = subprocess.run(follow, check=True, stdout=subprocess.PIPE)
    return Followed(rate, *json.loads(done.stdout))


async def _follow(folder: Path, count: int, rate: int, indexed: int) -> tuple[float, float, float]:
    """CPU time of a call, us; calls a look; CPU time of an idle look, us."""
    from relay.events.follower import Follower
    from relay.log import configure
    from relay.model.actions import Commit
    from relay.policy.fraud import Signals, Watch
    from relay.store.database import open_store
    from relay.store.journal.journal import Batch
    from relay.store.sqlite.journal import SqliteWriter
    from relay.store.writer import GroupWriter

    path = folder / "relay.db"
    sealer = open_store(path, folder / "relay.key")
    journal = SqliteWriter(path, sealer, lambda event, fields: None)
    await journal.open(lambda: None)
    writer = GroupWriter(path, sealer)
    now_s = 0.0
    follower = Follower(path, sealer, writer, configure("json", "error"), Watch(Signals()), lambda: now_s)
    draw, called, ids = random.Random(700), list(stores.Bindings(count, folder)), ids_of(path)
    began_ms = int(time.time() * 1000) - 1000 * RECORDS // rate
    _index(path, sealer, (record_of(draw, called, ids, began_ms - indexed + n) for n in range(indexed)))
    written = followed_at = measured = looks = 0
    look_at_s = spent_s = 0.0
    while written < RECORDS:
        ends = range(written, round(rate * (now_s + COMMIT_S)))
        records = [record_of(draw, called, ids, began_ms + 1000 * n // rate) for n in ends]
        await journal.write(Batch([], [Commit(0, record, None) for record in records], [], []))
        written, now_s = ends.stop, now_s + COMMIT_S
        if now_s < look_at_s:
            continue
        before_s = time.process_time()
        look_at_s = now_s + await follower.look()
        if written > RECORDS // 2:
            spent_s += time.process_time() - before_s
            measured += written - followed_at
            looks += 1
        followed_at = written
    idle_us = await _idle_us(follower)
    await journal.close()
    await writer.close()
    return spent_s / measured * 1e6, measured / looks, idle_us


async def _idle_us(follower: Follower) -> float:
    """CPU time of a look that finds nothing."""
    await follower.look()
    before_s = time.process_time()
    for _ in range(IDLE_LOOKS):
        await follower.look()
    return (time.process_time() - before_s) / IDLE_LOOKS * 1e6


def _index(path: Path, sealer: Sealer, records: Iterator[CallRecord]) -> None:
    """Add rows of records to the index that are not in the store, and older than all in it."""
    import contextlib

    from relay.store.database import connect, transaction
    from relay.store.record_index import add_index, index_rows
    from relay.store.record_rows import StoredRecord

    with contextlib.closing(connect(path)) as connection:
        numbered = enumerate(records, -(1 << 40))
        while chunk := list(islice(numbered, INDEXED_AT_ONCE)):
            rows = []
            for seq, record in chunk:
                hashes = sealer.lookup_hash(record.caller), sealer.lookup_hash(record.callee or "")
                rows += index_rows(sealer, StoredRecord(record, b"", seq, b"", *hashes))
            with transaction(connection):
                add_index(connection, sorted(rows))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def ids_of(path: Path) -> dict[str, str]:
    """The ids of the bindings by 700 number."""
    import contextlib

    from relay.store.database import connect_reader

    with contextlib.closing(connect_reader(path)) as connection:
        return dict(connection.execute("SELECT x, id FROM binding").fetchall())


def record_of(draw: random.Random, called: Sequence[stores.Binding], ids: dict[str, str], at_ms: int) -> CallRecord:
    """The record of an answered call that lasted a second."""
    from relay.model.call import CallRecord, record_id

    caller, number, callee = draw.choice(called)
    return CallRecord(
        call_id=record_id(at_ms - 1_060, lambda: f"{draw.randrange(1 << 64):016x}"),
        binding_id=ids[number],
        mode="AXB",
        business="default",
        order_id="bench",
        number_dialled=number,
        number_shown=number,
        caller=f"86{caller}",
        callee=f"86{callee}",
        peer_in="callers",
        peer_out="callees",
        received_at=at_ms - 1_060,
        routed_at=at_ms - 1_059,
        ringing_at=at_ms - 1_050,
        answered_at=at_ms - 1_000,
        ended_at=at_ms,
        duration_ms=1_000,
        sip_status=200,
        q850_cause=16,
        outcome="answered",
        ended_by="caller",
        end_reason="bye",
        caller_leg_call_id=f"{draw.randrange(1 << 32)}-{draw.randrange(1 << 16)}@127.0.0.20",
        callee_leg_call_id=f"{draw.randrange(1 << 128):032x}",
        direction="a_to_b",
        source="udp:127.0.0.20:5060",
    )


if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(_follow(Path(folder), *map(int, numbers)))))
