"""A day of a delivery platform, in minutes: orders bind couriers and customers, who call each other, while things fail.

Orders peak at 12 and 18 h, with a trough at 4 h. Each is bound by the API when it begins and unbound when it ends; then
the customer must no longer reach the courier. At set hours something fails or is changed. Hours and minutes are those
of the day; seconds are real.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import accounts
import aiohttp
import processes
from far_ends import FarEnds

from relay.store.database import open_store, transaction
from tests.support.addresses import CALLEE, CALLER, Address, free
from tests.support.crashes import check_records
from tests.support.load import LoadCall, LoadCallee, LoadCaller
from tests.support.relay_process import Neighbour, RelayProcess
from tests.support.shelf import Shelf
from tests.support.store_faults import FAULTS
from tests.support.stored import ended_record

NAME = "day"
HOUR = 60  # minutes
ORDER_MIN = (20, 45)
LATE_MIN = 2  # after the end of an order
LATE = 0.1  # of the orders
MOST_CALLS = 4  # of an order
COURIERS, CUSTOMERS = 300, 10_000
OLD_RECORDS, OLD_DAYS = 2_000, 200  # which the purge must delete
PARTIES = [f"1380000{n:04}" for n in range(COURIERS)] + [f"1390000{n:04}" for n in range(COURIERS)]  # searched for
NUMBERS = {"cool_down": "2m"}  # so that numbers come to other orders
T1_MS = 200  # a call without any answer ends after 64 times as long, some minutes of the day
PATIENCE_S = 90.0
MOST_SHOWN = 5  # faults of a kind
AFTER_S = 3.0  # after a trouble, calls may still suffer from it
ANSWERED, REFUSED, UNAVAILABLE = 200, 403, 503


class Order(NamedTuple):
    number: int
    begin: float  # minutes of the day, as below
    end: float
    courier: str
    customer: str
    calls: tuple[tuple[float, bool], ...]  # when, and whether by the courier
    late: bool


def intensity(hour: float) -> float:
    """Orders begun, as a fraction of those at the peaks."""
    peaks = math.exp(-(((hour - 12) / 1.4) ** 2)) + math.exp(-(((hour - 18) / 1.6) ** 2))
    return min(peaks + 0.05 + 0.1 * (1 - math.cos((hour - 4) / 12 * math.pi)), 1.0)


def orders_of(dice: random.Random, peak_a_minute: float) -> list[Order]:
    """All orders of a day, from midnight to 23:00."""
    found: list[Order] = []
    for minute in range(23 * HOUR):
        mean = peak_a_minute * intensity(minute / HOUR)
        for _ in range(int(mean) + (dice.random() < mean % 1)):
            found.append(_order(dice, len(found), minute + dice.random()))
    return found


def _order(dice: random.Random, number: int, begin: float) -> Order:
    length = dice.uniform(*ORDER_MIN)
    calls = sorted(
        (begin + dice.uniform(0.1, 0.8) * length, dice.random() < 0.7) for _ in range(dice.randint(1, MOST_CALLS))
    )
    courier, customer = f"1380000{dice.randrange(COURIERS):04}", f"1390000{number % CUSTOMERS:04}"
    return Order(number, begin, begin + length, courier, customer, tuple(calls), dice.random() < LATE)


# -- The phones of a side: they can be lost, and tell if a real number of the other side comes


def _number_of(prefix: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9a-zA-Z])(?:\+?86)?%s\d{4}(?![0-9a-zA-Z])" % prefix.encode())


class _Side:
    lost = False
    forbidden: re.Pattern[bytes]

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.leaks: list[bytes] = []

    def receive(self, data: bytes) -> None:
        if self.forbidden.search(data):
            self.leaks.append(data)
        if not self.lost:
            super().receive(data)  # type: ignore[misc]

    def send(self, data: bytes) -> None:
        if not self.lost:
            super().send(data)  # type: ignore[misc]


class _Caller(_Side, LoadCaller):
    def place(self, caller: str, number: str) -> LoadCall:
        self._pick_numbers = lambda: (caller, number)
        return self.call()


class _Callee(_Side, LoadCallee): ...


class _Phones:
    """Those of couriers, or of customers."""

    def __init__(self, host: str, called_at: Address, relay: Address, dice: random.Random, forbidden: str) -> None:
        self.caller = _Caller(free(host), relay, dice, lambda: ("", ""))
        self.callee = _Callee(called_at, relay, dice)
        self.caller.forbidden = self.callee.forbidden = _number_of(forbidden)

    @property
    def leaks(self) -> list[bytes]:
        return self.caller.leaks + self.callee.leaks

    def lose(self, *, lost: bool) -> None:
        self.caller.lost = self.callee.lost = lost


# -- Troubles


@dataclass
class Trouble:
    """What happens at an hour. Calls that meet it may get these answers instead of their own."""

    name: str
    began_s: float  # time.monotonic(), like the next
    ended_s: float = math.inf
    answers: tuple[int, ...] = ()

    def excuses(self, call: LoadCall) -> bool:
        meets = call.invited_s <= self.ended_s + AFTER_S and self.began_s <= call.final_s
        return meets and call.final_status in self.answers


class Placed(NamedTuple):
    call: LoadCall
    wanted: int  # final status


def unexcused(placed: list[Placed], troubles: list[Trouble]) -> list[LoadCall]:
    """Calls with another answer than wanted that no trouble excuses."""
    wrong = [each.call for each in placed if each.call.final_status != each.wanted]
    return [call for call in wrong if not any(trouble.excuses(call) for trouble in troubles)]


class Day:
    """A started relay, and what happens to it from midnight to midnight."""

    def __init__(
        self, relay: RelayProcess, ends: FarEnds, dice: random.Random, minutes: float, peak_per_s: float
    ) -> None:
        self._relay = relay
        self._ends = ends
        self._dice = dice
        self._minute_s = minutes * 60 / (24 * HOUR)
        calls_an_order = (1 + MOST_CALLS) / 2 + LATE
        self._orders = orders_of(random.Random(dice.random()), peak_per_s / calls_an_order * self._minute_s)
        setup, phones = relay.setup, random.Random(dice.random())
        self._couriers = _Phones(CALLER, setup.caller, setup.relay, phones, "1390000")
        self._customers = _Phones(CALLEE, setup.callee, setup.relay, phones, "1380000")
        self._placed: list[Placed] = []
        self._troubles: list[Trouble] = []
        self._key = relay.answer("keys", "make", "--operator", "--json")["secret"]

    async def run(self) -> str:
        """Returns the figures. Raises AssertionError for what must not be."""
        self._began_s = time.monotonic()
        phones = [phone for side in (self._couriers, self._customers) for phone in (side.caller, side.callee)]
        for phone in phones:
            await phone.open()
        headers = {"authorization": f"Bearer {self._key}"}
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(
            f"http://{self._relay.setup.api}", headers=headers, timeout=timeout
        ) as self._api:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._trouble())
                tasks.create_task(self._tell())
                for order in self._orders:
                    tasks.create_task(self._deliver(order))
            await self._until(lambda: not any(side.caller.unfinished for side in (self._couriers, self._customers)))
            await asyncio.to_thread(self._relay.wait_until_idle, PATIENCE_S)
            await self._until_all_is_told()
            states = await self._states()
        for phone in phones:
            phone.close()
        return await asyncio.to_thread(self._check, states)

    async def _at(self, minute: float) -> None:
        await asyncio.sleep(self._began_s + minute * self._minute_s - time.monotonic())

    async def _until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 (no event to wait for)
                await asyncio.sleep(0.1)

    async def _tell(self) -> None:
        for hour in range(1, 25):
            await self._at(hour * HOUR)
            got = Counter(each.call.final_status for each in self._placed)
            print(f"{hour:2} h: {len(self._placed)} calls, {dict(sorted(got.items()))}", flush=True)

    # -- Orders

    async def _deliver(self, order: Order) -> None:
        await self._at(order.begin)
        parties = {"a": order.courier, "b": order.customer, "order_id": f"order-{order.number}"}
        made = await self._ask(
            "POST", "/v1/bindings", f"bind-{order.number}", parties | {"mode": "AXB", "expires_in": 7200}
        )
        for at, by_courier in order.calls:
            await self._at(at)
            await self._call(order, made["x"], by_courier=by_courier, wanted=ANSWERED)
        await self._at(order.end)
        await self._ask("DELETE", f"/v1/bindings/{made['id']}", f"end-{order.number}")
        if order.late:
            await self._at(order.end + LATE_MIN)
            await self._call(order, made["x"], by_courier=False, wanted=REFUSED)

    async def _call(self, order: Order, x: str, *, by_courier: bool, wanted: int) -> None:
        side, caller = (self._couriers, order.courier) if by_courier else (self._customers, order.customer)
        call = side.caller.place(caller, x)
        self._placed.append(Placed(call, wanted))
        with suppress(TimeoutError):  # told at midnight
            await self._until(lambda: call.final_status)

    async def _ask(self, method: str, path: str, once: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, asking again while there is none, or a 503."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    async with self._api.request(method, path, json=body, headers={"idempotency-key": once}) as answer:
                        said: dict[str, Any] = await answer.json()
                        assert answer.status < 300 or answer.status >= 500, (path, said)
                        if answer.status < 300:
                            return said
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.5)

    async def _states(self) -> Counter[str]:
        """Numbers of bindings by state."""
        found: Counter[str] = Counter()
        query = {"limit": "500", "fields": "state"}
        while True:
            async with self._api.get("/v1/bindings", params=query) as answer:
                page = await answer.json()
            found.update(item["state"] for item in page["items"])
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]

    async def _until_all_is_told(self) -> None:
        """Until no event waits for the receiver."""
        async with asyncio.timeout(PATIENCE_S):
            while "\nrelay700_outbox_waiting 0" not in await self._metrics():  # noqa: ASYNC110 (no event to wait for)
                await asyncio.sleep(0.5)

    async def _metrics(self) -> str:
        async with self._api.get("/metrics") as answer:
            return await answer.text()

    # -- Troubles

    async def _trouble(self) -> None:
        """One after the other, each at its hour, or as soon as the one before is over."""
        for hour, name, happens, answers in (
            (1, "reload", self._reload, ()),
            (3, "purge", self._purge, ()),
            (5, "another key", self._turn_key, ()),
            (7, "kill -9", self._kill, (UNAVAILABLE,)),
            (9, "store locked", lambda: self._fail("locked"), (UNAVAILABLE,)),
            (11, "reload", self._reload, ()),
            (12, "customers' peer lost", lambda: self._lose(self._customers), (480,)),
            (13.5, "restart", self._restart, (UNAVAILABLE,)),
            (15, "disk full", lambda: self._fail("full"), (UNAVAILABLE,)),
            (16.5, "another key", self._turn_key, ()),
            (18, "kill -9", self._kill, (UNAVAILABLE,)),
            (19.5, "store moved", lambda: self._fail("moved"), (UNAVAILABLE,)),
            (21, "receiver hangs", self._hang_receiver, ()),
            (22, "couriers' peer lost", lambda: self._lose(self._couriers), (480,)),
            (22.8, "backend killed", self._kill_backend, ()),
        ):
            await self._at((hour + self._dice.uniform(0, 0.3)) * HOUR)
            trouble = Trouble(name, time.monotonic(), answers=answers)
            self._troubles.append(trouble)
            await happens()
            trouble.ended_s = time.monotonic()
            print(f"{hour:4} h: {name}, {trouble.ended_s - trouble.began_s:.1f} s", flush=True)

    async def _last(self, low: float, high: float) -> None:
        """That many minutes, at random."""
        await asyncio.sleep(self._dice.uniform(low, high) * self._minute_s)

    async def _command(self, *arguments: str) -> None:
        command = [*self._relay.program, *arguments, "-c", str(self._relay.config)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    async def _wait_for(self, event: str, mark: int) -> None:
        await asyncio.to_thread(self._relay.wait_for_event, event, after=mark, timeout_s=PATIENCE_S)

    async def _reload(self) -> None:
        """With one more peer."""
        name = f"spare{len(self._troubles)}"
        with self._relay.config.open("a") as config:
            config.write(Neighbour(name, free("127.0.0.24")).toml())
        await self._command("reload")

    async def _purge(self) -> None:
        await self._command("purge")

    async def _turn_key(self) -> None:
        key = 2 + sum(trouble.name == "another key" for trouble in self._troubles[:-1])
        mark = len(self._relay.log().splitlines())
        await self._command("seal-key", "add")
        await self._command("seal-key", "use", str(key))
        await self._wait_for("reseal.done", mark)

    async def _kill(self) -> None:
        await asyncio.to_thread(self._relay.kill)
        await asyncio.to_thread(self._relay.start)

    async def _restart(self) -> None:
        assert await asyncio.to_thread(self._relay.stop) == 0
        await asyncio.to_thread(self._relay.start)

    async def _kill_backend(self) -> None:
        (backend,) = processes.family(self._relay.pid)[1:]
        mark = len(self._relay.log().splitlines())
        os.kill(backend, signal.SIGKILL)
        await self._wait_for("backend.ready", mark)

    async def _fail(self, fault: str) -> None:
        """A fault of the store."""
        mark = len(self._relay.log().splitlines())
        undo = FAULTS[fault].happens(self._relay.setup.store_in or self._relay.folder)
        await self._last(8, 15)
        undo()
        if any(event["event"] == "journal.write_failed" for event in self._relay.events(mark)):
            await self._wait_for("journal.recovered", mark)

    async def _lose(self, side: _Phones) -> None:
        side.lose(lost=True)
        await self._last(15, 20)
        side.lose(lost=False)

    async def _hang_receiver(self) -> None:
        os.kill(self._ends.pid, signal.SIGSTOP)
        await self._last(8, 15)
        os.kill(self._ends.pid, signal.SIGCONT)

    # -- Midnight

    def _check(self, states: Counter[str]) -> str:
        records = self._relay.calls()
        with closing(sqlite3.connect(self._ends.arrivals)) as arrivals:
            told = [accounts.Record(record["call_id"], record["outcome"], record["business"]) for record in records]
            accounts.enter(arrivals, NAME, told)
            repeated = accounts.unmatched(arrivals, NAME, accounts.EVENTS_REPEATED)
            faults = [*self._faults(records, states), *_untold(records, arrivals)]
        figures = self._figures(records, repeated)
        assert not faults, "\n".join([figures, *faults])
        return figures

    def _faults(self, records: list[dict[str, Any]], states: Counter[str]) -> Iterator[str]:
        for phones, others in ((self._couriers, self._customers), (self._customers, self._couriers)):
            yield from (f"a real number came: {leak!r}" for leak in phones.leaks[:MOST_SHOWN])
            try:
                check_records(records, phones.caller, others.callee, at_least=10, may_be_shed=True, all_answered=True)
            except AssertionError as error:
                yield str(error)
        if states != {"ended": len(self._orders)}:
            yield f"bindings: {states}"
        yield from (f"no trouble excuses {call}" for call in unexcused(self._placed, self._troubles)[:MOST_SHOWN])
        recorded = Counter(record["caller_leg_call_id"] for record in records)
        placed = {each.call.call_id for each in self._placed}
        yield from (f"{number} records of {call_id}" for call_id, number in recorded.items() if number > 1)
        yield from (f"a record of no call: {call_id}" for call_id in recorded.keys() - placed)
        if not self._relay.verify():
            yield "relay700 verify said nothing"
        if "Traceback" in self._relay.log():
            yield "a traceback is in the log"

    def _figures(self, records: list[dict[str, Any]], repeated: list[str]) -> str:
        lines = [f"{len(self._orders)} orders, {len(self._placed)} calls, {len(records)} records"]
        lines.append(
            f"outcomes: {dict(Counter(record['outcome'] for record in records))}; {repeated or 'no event repeated'}"
        )
        for trouble in self._troubles:
            met = Counter(
                each.call.final_status
                for each in self._placed
                if each.call.final_status != each.wanted and trouble.excuses(each.call)
            )
            lines.append(f"  {trouble.name}, {trouble.ended_s - trouble.began_s:.1f} s: {dict(met)}")
        return "\n".join(lines)


def _untold(records: list[dict[str, Any]], arrivals: sqlite3.Connection) -> Iterator[str]:
    """Records without an event, and the reverse."""
    yield from accounts.unmatched(arrivals, NAME, accounts.EVENTS_MISSING)
    known = {call_id for (call_id,) in arrivals.execute("select call_id from event")}
    untold = [record for record in records if record["business"] and record["call_id"] not in known]
    yield from (f"without an event: {record}" for record in untold[:MOST_SHOWN])


def shelve_old_records(folder: Path) -> None:
    """Make a store with records that the purge must delete."""
    shelf = Shelf(folder / "relay.db", open_store(folder / "relay.db", folder / "relay.key"))
    long_ago = int(time.time() * 1000) - OLD_DAYS * 86_400_000
    with closing(shelf.connection), transaction(shelf.connection):
        shelf.add(*(ended_record(f"{n:032x}", received_at=long_ago, ended_at=long_ago + n) for n in range(OLD_RECORDS)))
        shelf.follow()
