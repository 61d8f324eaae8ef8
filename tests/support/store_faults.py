"""Faults of a running relay's store, and a caller who observes them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.live_call import Call, call
from tests.support.namespace import reran_with_own_mounts
from tests.support.phone import SDP, Leg
from tests.support.relay_process import A, RelayProcess, X

PATIENCE_S = 60.0
UNANSWERED_S = 1.0  # a further attempt is made after this time
PAGE = 4096
GO_ON, ARE_REFUSED = (486,), (503,)  # answers to calls while a failing store can be read, and while it cannot
Undo = Callable[[], None]


class Fault(NamedTuple):
    """`happens` causes the fault in a folder and returns its remedy; faults without a remedy end by themselves."""

    happens: Callable[[Path], Undo]
    answers: tuple[int, ...]  # the allowed answers to calls during the fault
    needs: str = ""  # "small" (a small disk) or "attributes" (extended attributes)
    tells: bool | None = True  # whether the journal must report it; None: it may


SMALL_MB = 40


def reran_with_own_disk(request: pytest.FixtureRequest, fault: Fault) -> bool:
    """As `reran_with_own_mounts`, if the fault needs a small disk."""
    return fault.needs == "small" and reran_with_own_mounts(request)


@contextmanager
def disk_for(folder: Path, fault: Fault, megabytes: int = SMALL_MB) -> Iterator[None]:
    """Mounts a small disk there if the fault needs one. Creates the folder if missing."""
    folder.mkdir(exist_ok=True)
    if fault.needs != "small":
        yield
        return
    mount_small(folder, megabytes)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount_small(folder: Path, megabytes: int = SMALL_MB) -> None:
    """A small disk, mounted over the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)


def store_of(folder: Path, suffix: str = "") -> Path:
    return folder / f"relay.db{suffix}"


def _locked(folder: Path) -> Undo:
    """Another process holds a write transaction open."""
    connection = sqlite3.connect(store_of(folder), isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection.close


def _full(folder: Path) -> Undo:
    """The disk is full to the last byte."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, PAGE):
        try:
            while os.write(descriptor, bytes(size)) == size:
                pass
        except OSError:
            continue
    os.close(descriptor)
    return ballast.unlink


def _read_only(folder: Path) -> Undo:
    files = [str(store_of(folder, suffix)) for suffix in ("", "-wal")]
    subprocess.run(["chattr", "+i", *files], check=True)
    return lambda: _done(subprocess.run(["chattr", "-i", *files], check=True))


def _moved(folder: Path) -> Undo:
    away = store_of(folder).rename(folder / "away")
    return lambda: _done(away.rename(store_of(folder)))


def _replaced(folder: Path) -> Undo:
    """The file is replaced by a copy."""
    copy = shutil.copy(store_of(folder), folder / "copy")
    undo = _moved(folder)
    os.replace(copy, store_of(folder))
    return undo


def _written_over(change: Callable[[Path, bytes], None]) -> Callable[[Path], Undo]:
    """The same file, with other bytes."""

    def happens(folder: Path) -> Undo:
        store = store_of(folder)
        with closing(sqlite3.connect(store, timeout=PATIENCE_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(FULL)")  # SQLite deletes the log of an empty file
        whole = store.read_bytes()
        change(store, whole)
        return lambda: _done(store.write_bytes(whole))

    return happens


def _damage(store: Path, whole: bytes) -> None:
    """Half of its pages are overwritten; not the first, which would be noticed at once."""
    pages = len(whole) // PAGE
    with store.open("r+b") as file:
        for page in random.sample(range(1, pages), pages // 2):
            file.seek(page * PAGE)
            file.write(random.randbytes(PAGE))


def _deleted(*suffixes: str) -> Callable[[Path], Undo]:
    def happens(folder: Path) -> Undo:
        for suffix in suffixes:
            store_of(folder, suffix).unlink()
        return _nothing

    return happens


def _key_gone(folder: Path) -> Undo:
    away = (folder / "relay.key").rename(folder / "away.key")
    return lambda: _done(away.rename(folder / "relay.key"))


def _nothing() -> None: ...


def _done(_: object) -> None: ...


FAULTS = {
    "locked": Fault(_locked, GO_ON),
    "full": Fault(_full, GO_ON, needs="small"),
    "read_only": Fault(_read_only, GO_ON, needs="attributes"),
    "moved": Fault(_moved, ARE_REFUSED),
    "replaced": Fault(_replaced, ARE_REFUSED),
    "cut_short": Fault(_written_over(lambda store, _: os.truncate(store, 2 * PAGE)), ARE_REFUSED),
    "emptied": Fault(_written_over(lambda store, _: os.truncate(store, 0)), ARE_REFUSED),
    "damaged": Fault(_written_over(_damage), GO_ON + ARE_REFUSED, tells=None),
    "log_deleted": Fault(_deleted("-wal"), ARE_REFUSED),
    "index_deleted": Fault(_deleted("-shm"), ARE_REFUSED),
    "log_and_index_deleted": Fault(_deleted("-wal", "-shm"), ARE_REFUSED),
    "key_gone": Fault(_key_gone, GO_ON, tells=False),
}


async def outlives(relay: RelayProcess, fault: Fault) -> Witness:
    """Run a fault of a serving relay's store from start to end. Returns the witness."""
    folder = relay.setup.store_in or relay.folder
    mark = len(relay.log().splitlines())

    async def until(event: str) -> None:
        if fault.tells:
            await asyncio.to_thread(relay.wait_for_event, event, after=mark, timeout_s=PATIENCE_S)

    async with call(relay) as up:
        witness = Witness(up)
        await witness.until(GO_ON)
        undo = fault.happens(folder)
        await witness.call()  # the first call may get either answer
        await until("journal.write_failed")
        await witness.until(fault.answers)
        undo()
        await until("journal.recovered")
        await witness.until(GO_ON)
        await witness.until_all_are_answered()
        await up.hang_up()
    assert await asyncio.to_thread(relay.verify)
    await asyncio.to_thread(witness.check_records, relay)
    return witness


class Witness:
    """Calls repeatedly during a live call, and keeps the answers. The callee is busy."""

    def __init__(self, up: Call) -> None:
        self.answers: dict[str, int] = {}  # final statuses by Call-ID
        self.unanswered: set[str] = set()
        self._up = up
        self._legs: dict[str, tuple[Leg, str]] = {}

    async def until(self, answers: tuple[int, ...]) -> None:
        """Call until a call gets one of these answers."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.call() not in answers:
                pass

    async def call(self) -> int:
        """The status of one more call; 0: none within `UNANSWERED_S`."""
        leg = Leg.calling(self._up.caller, self._up.relay, A, X)
        self.unanswered.add(leg.call_id)
        self._legs[leg.call_id] = leg, await leg.request("INVITE", body=SDP)
        try:
            async with asyncio.timeout(UNANSWERED_S):
                while leg.call_id in self.unanswered:
                    await self._hear()
        except TimeoutError:
            return 0
        return self.answers[leg.call_id]

    async def until_all_are_answered(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.unanswered:
                await self._hear()

    async def _hear(self) -> None:
        for invite in self._up.callee.take_arrived():
            if invite.first_line.startswith("INVITE"):
                await Leg.called(self._up.callee, self._up.relay, invite).answer(invite, 486)
        for response in self._up.caller.take_arrived():
            call_id = response["call-id"]
            if response.status >= 200 and call_id in self.unanswered:
                self.unanswered.remove(call_id)
                self.answers[call_id] = response.status
                leg, branch = self._legs[call_id]
                leg.learn(response)
                await leg.request("ACK", cseq=leg.cseq, branch=branch)
        await asyncio.sleep(0.01)

    def check_records(self, relay: RelayProcess) -> None:
        """Exactly one record per answered call, with its status, and no others."""
        found: dict[str, list[int]] = {call_id: [] for call_id in self.answers}
        for record in relay.calls():
            assert record["ended_at"], record
            if (call_id := record["caller_leg_call_id"]) in self._legs:
                found.setdefault(call_id, []).append(record["sip_status"])
        assert found == {call_id: [status] for call_id, status in self.answers.items()}
