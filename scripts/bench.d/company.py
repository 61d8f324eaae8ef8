"""A business user's program that loads the HTTP API during calls: it reads, makes, changes and ends bindings.

It runs as a separate process and, when stopped, prints its rate and delays as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from itertools import count

import aiohttp

CONNECTIONS = 16
MIX = ("read",) * 6 + ("make", "change", "end", "read")  # ten requests


class Company:
    """Requests at a constant rate, regardless of response times."""

    def __init__(self, api: str, key: str, rate: int) -> None:
        self._url = f"http://{api}/v1/bindings"
        self._headers = {"authorization": f"Bearer {key}"}
        self._rate = rate
        self._serial = count()
        self._made: list[str] = []
        self.delays_ms: list[float] = []
        self.failed = 0
        self.stopping = asyncio.Event()

    async def run(self) -> dict[str, float]:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers) as session:
            for _ in range(20):
                await self._make(session)
            began = time.monotonic()
            pending: set[asyncio.Task[None]] = set()
            for number in count():
                if self.stopping.is_set():
                    break
                task = asyncio.create_task(self._request(session, MIX[number % len(MIX)]))
                pending.add(task)
                task.add_done_callback(pending.discard)
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            seconds = time.monotonic() - began
            await asyncio.gather(*pending)
        return self._figures(seconds)

    async def _request(self, session: aiohttp.ClientSession, kind: str) -> None:
        began = time.perf_counter()
        match kind:
            case "make":
                good = await self._make(session)
            case "change":
                good = await self._ask(session, "PATCH", self._made[-1], {"expires_in": 7200})
            case "end" if len(self._made) > 20:
                good = await self._ask(session, "DELETE", self._made.pop(0))
            case _:
                good = await self._ask(session, "GET", self._made[next(self._serial) % len(self._made)])
        self.delays_ms.append(1000 * (time.perf_counter() - began))
        self.failed += not good

    async def _make(self, session: aiohttp.ClientSession) -> bool:
        serial = next(self._serial)
        body = {"mode": "AXB", "a": f"136{serial:08}", "b": f"137{serial:08}", "order_id": f"o{serial}"}
        async with session.post(self._url, json=body) as answer:
            if answer.status != 201:
                return False
            self._made.append((await answer.json())["id"])
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


async def _main(api: str, key: str, rate: int) -> None:
    company = Company(api, key, rate)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, company.stopping.set)
    print(json.dumps(await company.run()))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
