"""A business user's program that loads the HTTP API during calls: it reads, makes, changes and ends bindings.

It runs as a separate process, which prints a line when it begins. When stopped, it compares the bindings that it has
made with those that the API lists, and prints its rate, its delays and the differences as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from itertools import count

import aiohttp

CONNECTIONS = 16
MOST_PENDING = 200  # requests; beyond, the rate falls
MIX = ("read",) * 6 + ("make", "change", "end", "read")  # ten requests
BRIEF = 5  # every fifth binding made is left to expire
BRIEF_S = 60  # the shortest life of a binding
OTHER_S = 7200
PAGE = 500


class Company:
    """Requests at a constant rate, as long as responses keep up."""

    def __init__(self, api: str, key: str, rate: int) -> None:
        self._url = f"http://{api}/v1/bindings"
        self._headers = {"authorization": f"Bearer {key}"}
        self._rate = rate
        self._serial = count()
        self._made: list[str] = []
        self._brief: dict[str, float] = {}  # by id: time.time() of the expiry, at the latest
        self._states: dict[str, str] = {}  # of all made
        self.delays_ms: list[float] = []
        self.failed = 0
        self.stopping = asyncio.Event()

    async def run(self) -> dict[str, float]:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:
            for _ in range(20):
                await self._make(session)
            print("begins", flush=True)
            began = time.monotonic()
            pending: set[asyncio.Task[None]] = set()
            for number in count():
                if self.stopping.is_set():
                    break
                task = asyncio.create_task(self._request(session, MIX[number % len(MIX)]))
                pending.add(task)
                task.add_done_callback(pending.discard)
                if len(pending) >= MOST_PENDING:
                    await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            seconds = time.monotonic() - began
            await asyncio.gather(*pending)
            return self._figures(seconds) | await self._compared(session)

    async def _request(self, session: aiohttp.ClientSession, kind: str) -> None:
        began = time.perf_counter()
        match kind:
            case "make":
                good = await self._make(session)
            case "change":
                good = await self._ask(session, "PATCH", self._made[-1], {"expires_in": OTHER_S})
            case "end" if len(self._made) > 20:
                ended = self._made.pop(0)
                good = await self._ask(session, "DELETE", ended)
                self._states[ended] = "ended"
            case _:
                good = await self._ask(session, "GET", self._made[next(self._serial) % len(self._made)])
        self.delays_ms.append(1000 * (time.perf_counter() - began))
        self.failed += not good

    async def _make(self, session: aiohttp.ClientSession) -> bool:
        serial = next(self._serial)
        is_brief = serial % BRIEF == 0
        body = {"mode": "AXB", "a": f"134{serial:08}", "b": f"135{serial:08}", "order_id": f"o{serial}"}
        expiry = {"expires_in": BRIEF_S if is_brief else OTHER_S}
        async with session.post(self._url, json=body | expiry) as answer:
            if answer.status != 201:
                return False
            made = (await answer.json())["id"]
        self._states[made] = "live"
        if is_brief:
            self._brief[made] = time.time() + BRIEF_S
        else:
            self._made.append(made)
        return True

    async def _ask(self, session: aiohttp.ClientSession, method: str, id_: str, body: object = None) -> bool:
        async with session.request(method, f"{self._url}/{id_}", json=body) as answer:
            await answer.read()
            return answer.status == 200

    def _figures(self, seconds: float) -> dict[str, float]:
        delays = sorted(self.delays_ms)
        return {
            "per_s": len(delays) / seconds,
            "failed": self.failed,
            "p50_ms": delays[len(delays) // 2],
            "p99_ms": delays[len(delays) * 99 // 100],
        }

    async def _compared(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """Counts of bindings by state, and of those in another state than they should be, or not listed."""
        now = time.time()
        expired = {id_ for id_, at in self._brief.items() if at < now}
        expected = self._states | dict.fromkeys(expired, "expired")
        dying = self._brief.keys() - expired  # they expire while being listed
        listed = await self._listed(session)
        wrong = sum(listed.get(id_) != state for id_, state in expected.items() if id_ not in dying)
        return {**Counter(listed.values()), "wrong": wrong + len(dying - listed.keys())}

    async def _listed(self, session: aiohttp.ClientSession) -> dict[str, str]:
        """The states of the bindings made, by id, as the API lists them."""
        found: dict[str, str] = {}
        query = {"limit": str(PAGE), "fields": "id,state"}
        while True:
            async with session.get(self._url, params=query) as answer:
                page = await answer.json()
            found |= {item["id"]: item["state"] for item in page["items"] if item["id"] in self._states}
            if page["next"] is None or len(found) == len(self._states):
                return found
            query["cursor"] = page["next"]


async def _main(api: str, key: str, rate: int) -> None:
    company = Company(api, key, rate)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, company.stopping.set)
    print(json.dumps(await company.run()))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
