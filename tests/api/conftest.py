"""The API over ASGI in this process, with a real store, the real writer, and the admin socket of a relay."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from relay.api.app import make_app
from relay.api.backend import ApiSettings, RequestCounts
from relay.model.capture import CapturedCall, CaptureRules
from relay.net.control import ControlClient, ControlServer, control_path
from relay.net.spans import Spans
from relay.policy.rules import Rules
from relay.reports.explain import PolicyConfiguration
from relay.service.businesses import set_state
from relay.service.keys import BUSINESS_SCOPES, OPERATOR_SCOPES, make_key
from relay.service.numbers import new_prefix
from relay.service.placement import BindRules
from relay.store import numbers
from relay.store.captures import Captures
from relay.store.connection import Connection
from relay.store.database import Reader
from relay.store.numbers import Prefix
from relay.store.unit_of_work import OPERATOR, Actor, UnitOfWork
from relay.store.writer import GroupWriter
from tests.ladder.settings import settings_for
from tests.support.papers import PAPERS, apply
from tests.support.places import new_store
from tests.support.stored import PBX

Json = dict[str, Any]
Ask = Callable[..., Any]
PREFIX = "70010000007"
A, B, C = "13800000001", "13900000002", "13700000003"
TESTER = Actor("cli:test", None, OPERATOR)
RULES = BindRules(parties=PBX, hooks=True)
FAST = ApiSettings(requests_per_s=1_000_000, burst=1_000_000, failures_per_s=1_000_000, rules=RULES)


class TestBackend:
    """The backend that `make_app` needs."""

    __test__ = False

    def __init__(
        self,
        folder: Path,
        handlers: Mapping[str, Callable[..., Json]],
        settings: ApiSettings = FAST,
        prefix: Prefix | None = None,
    ) -> None:
        self.path = folder / "relay.db"
        self.sealer = new_store(self.path, folder / "relay.key", prefix)
        self.reader = Reader(self.path)
        self.writer = GroupWriter(self.path, self.sealer)
        self.server = ControlServer(control_path(self.path), handlers)
        self.control = ControlClient(control_path(self.path))
        self.settings = settings
        self.requests = RequestCounts()
        self.spans: Spans | None = None
        self.capture = CaptureRules()
        self.captures = Captures(self.path, self.sealer)
        self.pending: dict[str, CapturedCall] = {}
        self.counts: Json = {}  # for `statistics`
        self.leads = True

    async def pending_capture(self, call_id: str) -> CapturedCall | None:
        return self.pending.get(call_id)

    def configured_at(self, connection: Connection, at_ms: int) -> PolicyConfiguration:
        return PolicyConfiguration(Rules(parties=PBX), settings_for(), 0, "the configuration of the tests")

    async def metrics(self) -> bytes:
        return b"relay700_up 1\n"

    async def statistics(self) -> Json:
        return {"up": 1, "short_pools": {}, **self.counts}

    async def close(self) -> None:
        await self.writer.close()
        await self.server.close()
        self.reader.close()
        self.captures.close()


class Client:
    """An HTTP client with one key."""

    def __init__(self, app: FastAPI, key: str | None = None, address: str = "127.0.0.1") -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(app, client=(address, 5000))  # type: ignore[arg-type]
        self.http = httpx.AsyncClient(transport=transport, base_url="http://relay", headers=headers)
        self.key = key or ""

    async def ask(self, method: str, path: str, body: object = None, status: int = 200, **headers: str) -> Json:
        """The document of the response, after checking its status."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.request(method, path, json=body, headers=names)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        document: Json = answer.json()
        return document

    async def get(self, path: str, status: int = 200) -> Json:
        return await self.ask("GET", path, None, status)

    async def post(self, path: str, body: object, status: int = 201, **headers: str) -> Json:
        return await self.ask("POST", path, body, status, **headers)

    async def refused(self, method: str, path: str, kind: str, body: object = None, **headers: str) -> Json:
        """The problem document, after checking its kind."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.request(method, path, json=body, headers=names)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        document: Json = answer.json()
        assert document["type"] == f"/problems/{kind}", document
        assert document["status"] == answer.status_code
        assert document["request_id"] == answer.headers["request-id"]
        return document


class Api:
    """The application and its keys."""

    def __init__(self, backend: TestBackend) -> None:
        self.backend = backend
        self.ahead_s = 0.0  # lead of the application's clock
        self.app = make_app(backend, self.now)

    def now(self) -> float:
        return time.time() + self.ahead_s

    async def run(self, do: Callable[[UnitOfWork], Any]) -> Any:
        return await self.backend.writer.run(TESTER, do)

    async def operator(self, scopes: Collection[str] = OPERATOR_SCOPES) -> Client:
        _, text = await self.run(lambda unit: make_key(unit, None, scopes))
        return Client(self.app, text)

    async def company(self, name: str, scopes: Collection[str] = BUSINESS_SCOPES) -> Client:
        """A client with a key of an approved business user, which is made if needed."""

        def do(unit: UnitOfWork) -> str:
            if unit.connection.execute("SELECT 1 FROM business WHERE id = ?", (name,)).fetchone() is None:
                apply(unit, name, name, **PAPERS)
                set_state(unit, name, "approve", "test")
            return make_key(unit, name, scopes)[1]

        return Client(self.app, await self.run(do))

    def stranger(self, key: str | None = None, address: str = "127.0.0.1") -> Client:
        return Client(self.app, key, address)


@pytest.fixture(scope="module")
def small_prefixes() -> Iterator[None]:
    """Ten numbers in each instead of 10,000: hundreds are loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "_ADD_NUMBERS", numbers._ADD_NUMBERS.replace("9999", "9"))
        yield


@pytest.fixture
def relay() -> dict[str, Callable[..., Json]]:
    """The commands of the relay's admin socket; a test may change them."""
    return {"state": lambda: {"state": "serving"}}


@pytest.fixture
async def api(
    tmp_path: Path, relay: dict[str, Callable[..., Json]], request: pytest.FixtureRequest
) -> AsyncIterator[Api]:
    """With the numbers of PREFIX, if the test asks for the `company` that uses them."""
    prefix = new_prefix(PREFIX, cool_down_ms=0) if "company" in request.fixturenames else None
    backend = TestBackend(tmp_path, relay, prefix=prefix)
    await backend.server.open()
    try:
        yield Api(backend)
    finally:
        await backend.close()


@pytest.fixture
async def operator(api: Api) -> Client:
    return await api.operator()


@pytest.fixture
async def company(api: Api) -> Client:
    """A client with a key of acme. Numbers have no cool-down."""
    return await api.company("acme")
