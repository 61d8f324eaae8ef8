"""Units of work and journals that are killed at any step, and the check of the store afterwards.

A round has two processes that make, change and end bindings at the same time, and one that writes call records. One of
the first two is killed: before a statement, once its COMMIT was sent, or after some time. Or its connection is cut once
its COMMIT was sent, so that it lives on in doubt. The third may be killed, too. Their clocks jump. Each process tells,
through a pipe, what it begins and what was acknowledged; that is compared with the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.service.bindings import change, end
from relay.service.numbers import load_prefix, new_prefix
from relay.service.placement import BindRules
from relay.store.audit import AuditQuery, count_entries, verify_audit
from relay.store.bindings import all_bindings
from relay.store.connection import Place, PostgresServer
from relay.store.database import connect_reader
from relay.store.journal.journal import Journal
from relay.store.postgres.connection import PostgresConnection
from relay.store.postgres.journal import postgres_journal
from relay.store.records import RecordFilter, live_calls, read_all
from relay.store.rights_check import check_rights
from relay.store.sealing.sealer import load_key
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import UnitOfWork, operator_cli
from relay.store.writer import Writer, now_ms
from tests.support.stored import PREFIX, ended_record, live_record
from tests.support.written import bind, written

How = Literal["statement", "commit", "cut", "time", "not"]
HOWS: Final[tuple[How, ...]] = ("statement", "statement", "statement", "commit", "cut", "time", "not")
RULES: Final = BindRules(cool_down_ms=0)
NUMBERS: Final = 8  # of the prefix
STEPS: Final = 4  # of a round: each makes, changes and ends a binding
CALLS: Final = 20  # of a round
MOST_STATEMENTS: Final = 400  # of a round, some
LONGEST_S: Final = 0.15  # of a round, some
COMMITS: Final = 100  # in LONGEST_S, some
PATIENCE_S: Final = 20.0
JUMP_MS: Final = 2 * 3_600_000


class Figures(NamedTuple):
    """The figures of some rounds."""

    rounds: int
    killed: int  # processes
    cut: int  # connections
    bindings: int
    records: int
    in_doubt: int  # steps that were begun and not acknowledged
    done: int  # of these, those that were done


class Round(NamedTuple):
    """What happens in one round."""

    number: int
    how: How
    statement: int  # the one before which the binder is killed; a COMMIT counts for the hows that are about it
    after_s: float
    recorder_dies: bool
    seed: int


Tell = Callable[[str, str], None]


class KilledUnits:
    """A store in a folder, with few numbers, since each check reads all of them; and what it must hold."""

    def __init__(self, place: Place, folder: Path, dice: random.Random) -> None:
        self._place = place
        self._key_file = folder / "relay.key"
        self._dice = dice
        self.begun: dict[str, set[str]] = {step: set() for step in ("bind", "end", "live", "record")}
        self.done: dict[str, set[str]] = {step: set() for step in self.begun}
        self._used: list[str] = []  # bindings that had calls
        self._counts: Counter[str] = Counter()
        with closing(Writer(place, load_key(self._key_file))) as writer:
            writer.run(operator_cli(), _load_numbers)

    def run(self, rounds: int) -> Figures:
        """Raises AssertionError if the store is not as it must be after one of them."""
        for _ in range(rounds):
            self._counts["rounds"] += 1
            self._round(
                Round(
                    self._counts["rounds"],
                    self._dice.choice(HOWS),
                    self._dice.randrange(1, MOST_STATEMENTS),
                    self._dice.uniform(0, LONGEST_S),
                    self._dice.random() < 0.3,
                    self._dice.randrange(1 << 32),
                )
            )
        return Figures(**{name: self._counts[name] for name in Figures._fields})

    def _round(self, round_: Round) -> None:
        ended = [self._used.pop(0) for _ in range(min(2, max(len(self._used) - 2, 0)))]
        used = sorted(self.done["bind"] - self.begun["end"] - set(ended))[-2:]
        began_s = time.monotonic()
        children = [
            _Child(partial(_bind_and_end, self._place, self._key_file, round_, ended)),
            _Child(
                partial(
                    _bind_and_end, self._place, self._key_file, round_._replace(how="not", seed=-1 - round_.seed), []
                )
            ),
            _Child(partial(_record, self._place, self._key_file, round_, used)),
        ]
        if round_.how == "time" or round_.recorder_dies:
            time.sleep(max(round_.after_s - (time.monotonic() - began_s), 0))
            children[2 if round_.recorder_dies else 0].kill()
        for child in children:
            self._hear(*child.ended())
        self._used += [one for one in used if one not in self._used]
        self.check(round_)

    def _hear(self, told: list[tuple[str, str, str]], is_killed: bool) -> None:
        self._counts["killed"] += is_killed
        for word, step, what in told:
            if word == "cut":
                self._counts["cut"] += 1
            else:
                (self.begun if word == "begins" else self.done)[step].add(what)

    # -- the check

    def check(self, after: object) -> None:
        """Raises AssertionError, which names the round `after` which the store was not as it must be."""
        asyncio.run(_inherit(self._place, self._key_file))
        sealer = load_key(self._key_file)
        with closing(connect_reader(self._place)) as reader:
            rights = check_rights(reader, sealer, lambda: now_ms() + 2 * JUMP_MS)
            assert rights.named() == [], (after, rights.named())
            assert rights.records.broken is None, (after, rights.records.broken)
            log = verify_audit(reader, sealer)
            assert log.broken is None, (after, log.broken)
            assert count_entries(reader, AuditQuery(action="ledger.fault")) == 0, after
            bindings = {one.binding_id: one for one in all_bindings(reader, sealer)}
            records = Counter(record.call_id for record in read_all(reader, sealer, RecordFilter()))
            live = {record.call_id for record in live_calls(reader, sealer)}
            (taken,) = reader.execute("SELECT sum(bindings) FROM number").fetchone()
        assert taken == sum(one.released_at is None for one in bindings.values()), after
        self._compare("bind", set(bindings), after)
        self._compare("end", {id_ for id_, one in bindings.items() if one.ended_at is not None}, after)
        self._compare("record", set(records), after)
        self._compare("live", live | set(records), after)
        assert set(records.values()) <= {1}, after
        assert not live & set(records), after
        self._counts["bindings"], self._counts["records"] = len(bindings), len(records)

    def _compare(self, step: str, there: set[str], after: object) -> None:
        """What was acknowledged is there, and nothing that was not begun. What was in doubt is decided from now on."""
        lost, unknown = self.done[step] - there, there - self.begun[step]
        assert not lost, f"{step}: {lost} was acknowledged, and is lost: {after}"
        assert not unknown, f"{step}: {unknown} was never begun: {after}"
        doubtful = self.begun[step] - self.done[step]
        self._counts["in_doubt"] += len(doubtful)
        self._counts["done"] += len(doubtful & there)
        self.begun[step] = set(there)
        self.done[step] = set(self.begun[step])


def _load_numbers(unit: UnitOfWork) -> None:
    load_prefix(unit, new_prefix(PREFIX))
    unit.connection.execute("DELETE FROM number WHERE number > ?", (f"{PREFIX}{NUMBERS:04}",))


async def _opened(place: Place, key_file: Path) -> Journal:
    """An open journal. A server keeps the session of a killed node, and its name, until it notices."""
    sealer = load_key(key_file)
    if not isinstance(place, PostgresServer):
        journal = sqlite_journal(place, sealer, lambda *_: None)
        await journal.open()
        return journal
    async with asyncio.timeout(PATIENCE_S):
        while True:
            journal = postgres_journal(place, sealer, lambda *_: None)
            try:
                await journal.open()
                return journal
            except StoreError as error:
                if "another relay700 is node" not in str(error):
                    raise
                await asyncio.sleep(0.02)


async def _inherit(place: Place, key_file: Path) -> None:
    """Have the store take the records of the overflow log, as the next start does."""
    await (await _opened(place, key_file)).close()


# -- The processes


class _Child:
    """A forked process, which tells by lines of three words. It ends without any clean-up of this one."""

    def __init__(self, work: Callable[[Tell], None]) -> None:
        reading, writing = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(reading)
            with suppress(BaseException):
                work(lambda step, what: _write(writing, step, what))
            os._exit(0)
        os.close(writing)
        self._reading = reading

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def ended(self) -> tuple[list[tuple[str, str, str]], bool]:
        """What it has told, and whether it was killed."""
        with os.fdopen(self._reading, "r") as pipe:
            told = [(word, step, what) for word, step, what in map(str.split, pipe)]
        _, status = os.waitpid(self._pid, 0)
        return told, os.WIFSIGNALED(status)


def _write(pipe: int, step: str, what: str) -> None:
    os.write(pipe, f"{step} {what}\n".encode())


class _Clock:
    """A clock that jumps by hours."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def __call__(self) -> int:
        return now_ms() + self._dice.choice([0, 0, JUMP_MS, -JUMP_MS])


def _bind_and_end(place: Place, key_file: Path, round_: Round, ended: list[str], tell: Tell) -> None:
    """Make and change bindings, and end each second one, and others of before."""
    _die_at(round_, tell)
    with closing(Writer(place, load_key(key_file), clock_ms=_Clock(round_.seed))) as writer:
        for step in range(STEPS):
            made: list[str] = []
            with suppress(StoreError):  # in doubt, or not done
                made.append(writer.run(operator_cli(), partial(_make, round_=round_, step=step, tell=tell)))
                tell("did bind", made[0])
                writer.run(operator_cli(), lambda unit, made=made: change(unit, made[0], {"max_call_s": 600}, RULES))
            for binding_id in made[step % 2 :] + ended[step : step + 1]:
                with suppress(StoreError):
                    writer.run(operator_cli(), partial(_end, binding_id=binding_id, tell=tell))
                    tell("did end", binding_id)


def _make(unit: UnitOfWork, round_: Round, step: int, tell: Tell) -> str:
    place = 2 * (round_.number * STEPS + step) + (round_.seed < 0)  # others than the second process takes
    parties = f"138{place:08}", f"139{place:08}"
    made = bind(unit, written("AXB", *parties, x=f"{PREFIX}{1 + place % NUMBERS:04}", order_id=f"{place}"), RULES)
    tell("begins bind", made.binding_id)
    return made.binding_id


def _end(unit: UnitOfWork, binding_id: str, tell: Tell) -> None:
    tell("begins end", binding_id)
    end(unit, binding_id, RULES)


def _record(place: Place, key_file: Path, round_: Round, used: list[str], tell: Tell) -> None:
    asyncio.run(_write_records(place, key_file, round_, used, tell))


async def _write_records(place: Place, key_file: Path, round_: Round, used: list[str], tell: Tell) -> None:
    """Calls that are answered, then end, some at once. They use bindings that nobody ends meanwhile."""
    clock, journal = _Clock(round_.seed), await _opened(place, key_file)
    left = 2 * CALLS
    all_told = asyncio.Event()

    def done(step: str, call_id: str, _: int) -> None:
        nonlocal left
        tell(f"did {step}", call_id)
        left -= 1
        if not left:
            all_told.set()

    for number in range(CALLS):
        call_id, at = f"r{round_.number}c{number}", clock()
        of = {"binding_id": used[number % len(used)] if used else None, "received_at": at, "routed_at": at + 1}
        tell("begins live", call_id)
        journal.queue.append(Commit(1, live_record(call_id, **of), b"dialogs"), partial(done, "live", call_id))
        if number % 4 == 0:
            await asyncio.sleep(0.004)
        tell("begins record", call_id)
        ended = ended_record(call_id, ended_at=clock(), **of)
        journal.queue.append(Commit(2, ended, None), partial(done, "record", call_id))
    await all_told.wait()
    await journal.close()


# -- Where the binder dies


def _die_at(round_: Round, tell: Tell) -> None:
    """Have this process die before a statement, or at a COMMIT, or lose its connection there."""
    left = round_.statement if round_.how == "statement" else 1 + round_.statement % (2 * STEPS)

    def is_due(sql: str) -> bool:
        nonlocal left
        if round_.how in ("time", "not") or (round_.how != "statement" and sql != "COMMIT"):
            return False
        left -= 1
        return not left

    connect, execute = sqlite3.connect, PostgresConnection._execute

    def connected(*where: Any, **options: Any) -> Any:
        connection = connect(*where, **options)
        connection.set_trace_callback(lambda sql: dies() if is_due(sql) else None)
        return connection

    def dies() -> None:
        if round_.how == "statement":
            _die()
        threading.Timer(round_.after_s / COMMITS, _die).start()  # somewhere in the COMMIT, or soon after

    def executed(self: PostgresConnection, sql: str, parameters: Any) -> Any:
        if is_due(sql):
            if round_.how != "statement":
                _send_commit(self, tell if round_.how == "cut" else None)
            if round_.how != "cut":
                _die()
        return execute(self, sql, parameters)

    sqlite3.connect = connected  # type: ignore[assignment]
    PostgresConnection._execute = executed  # type: ignore[method-assign]


def _send_commit(connection: PostgresConnection, tell: Tell | None) -> None:
    """Send it and read no answer; with `tell`, cut the connection, too."""
    wire = connection._connection.pgconn
    wire.send_query(b"COMMIT")
    wire.flush()
    if tell is not None:
        tell("cut", "COMMIT x")
        with socket.socket(fileno=os.dup(wire.socket)) as cut:
            cut.shutdown(socket.SHUT_RDWR)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
