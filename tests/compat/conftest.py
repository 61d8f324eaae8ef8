"""Alibaba's API on a loopback socket, in a thread of this process, driven by Alibaba's own SDKs."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_dyplsapi20170525 import models
from alibabacloud_dyplsapi20170525.client import Client as NewSdk
from alibabacloud_tea_openapi.models import Config as SdkConfig
from aliyunsdkcore.auth.composer.rpc_signature_composer import get_signed_url
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import RpcRequest
from structlog import get_logger

from relay.api.auth import RequestLimits
from relay.api.middleware import HttpMiddleware
from relay.api.places import PAGES, Places
from relay.api.server import Address, HttpServer
from relay.compat.actions import ActionService, Granted
from relay.compat.app import AlibabaApp
from relay.defence.limits import Rates
from relay.model.binding import Binding
from relay.service.bindings import end
from relay.service.businesses import set_state
from relay.service.fields import CHINA
from relay.service.keys import BUSINESS_SCOPES, OPERATOR_SCOPES, make_key
from relay.service.numbers import new_prefix
from relay.store.bindings import BindingQuery, all_bindings, find_numbered
from relay.store.keys import ApiKey
from relay.store.numbers import Pool, insert_pool
from relay.store.unit_of_work import UnitOfWork
from tests.api.conftest import FAST, TESTER, TestBackend
from tests.support.addresses import RELAY, free
from tests.support.papers import PAPERS, apply

Json = dict[str, Any]
Ask = Callable[..., Json]
PREFIX = "70010000007"
POOL = "acme-pool"
A, B, C, D = "13800000001", "13900000002", "13700000003", "13600000004"


def in_china(**ahead: float) -> str:
    """A time from now, as Alibaba writes it."""
    return (datetime.now(CHINA) + timedelta(**ahead)).strftime("%Y-%m-%d %H:%M:%S")


class Client:
    """Both SDKs with one access key."""

    def __init__(self, address: str, key_id: str, secret: str) -> None:
        self.key_id = key_id
        self.secret = secret
        self.address = address
        config = SdkConfig(access_key_id=key_id, access_key_secret=secret, endpoint=address, protocol="http")
        self.new = NewSdk(config)
        self.old = AcsClient(key_id, secret, "cn-hangzhou")

    def ask(self, action: str, **parameters: Any) -> Json:
        """The body of the answer by the new SDK. Names of parameters are the SDK's. Raises what the SDK raises."""
        request = getattr(models, f"{action}Request")(**parameters)
        method = next(name for name in dir(self.new) if name.replace("_", "") == action.lower())
        answer = getattr(self.new, method)(request)
        assert answer.status_code == 200
        body: Json = answer.body.to_map()
        return body

    def ask_old(self, action: str, **parameters: Any) -> Json:
        """The body of the answer by the older SDK. Names of parameters are those on the wire."""
        module = __import__(f"aliyunsdkdyplsapi.request.v20170525.{action}Request", fromlist=["*"])
        request: RpcRequest = getattr(module, f"{action}Request")()
        for name, value in parameters.items():
            getattr(request, f"set_{name}")(value)
        request.set_endpoint(self.address)
        request.set_protocol_type("http")
        body: Json = json.loads(self.old.do_action_with_exception(request))
        return body

    def ask_raw(self, action: str, parameters: Json) -> tuple[int, Json]:
        """Status and document of the answer to any parameters, by the older SDK's signature."""
        whole = {**parameters, "Action": action, "Version": "2017-05-25"}
        target, _ = get_signed_url(whole, self.key_id, self.secret, "JSON", "GET", {})
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


class Compat:
    """The running service."""

    def __init__(self, folder: Path) -> None:
        self.ahead_s = 0.0  # of the service's clock
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._folder = folder
        self.address = free(RELAY)
        self.backend, self._server, self._serving = self._do(self._begin())
        self._do(self._listening())

    async def _begin(self) -> tuple[TestBackend, HttpServer, asyncio.Task[None]]:
        backend = TestBackend(self._folder, {}, FAST, new_prefix(PREFIX, cool_down_ms=0))
        self.limits = RequestLimits(backend)
        service = ActionService(
            backend.reader,
            backend.writer,
            backend.sealer,
            rules=lambda: backend.settings.rules,
            limits=self,
            binds=Rates(),
            pages=Places(PAGES),
            public_url=lambda: "https://api.example",
            clock=lambda: time.time() + self.ahead_s,
        )
        app = HttpMiddleware(AlibabaApp(service), backend.settings, backend.requests, None)
        server = HttpServer(app, Address(*self.address), get_logger())
        return backend, server, asyncio.create_task(server.run())

    async def _listening(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(*self.address)
            except ConnectionError:
                await asyncio.sleep(0)
            else:
                writer.close()
                return

    def close(self) -> None:
        async def end() -> None:
            self._server.finish()
            await self._serving
            await self.backend.close()

        self._do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(timeout=30)

    def run(self, do: Callable[[UnitOfWork], Any]) -> Any:
        return self._do(self.backend.writer.run(TESTER, do))

    def set(self, **rules: Any) -> None:
        """Change the rules of bindings in force."""
        self.backend.settings = self.backend.settings._replace(rules=self.backend.settings.rules._replace(**rules))

    def limit(self, **limits: int) -> None:
        """Limit requests from now on."""
        self.backend.settings = self.backend.settings._replace(**limits)
        self.limits = RequestLimits(self.backend)

    def take(self, key: ApiKey, now_s: float) -> Granted:
        return self.limits.take(key, now_s)

    def take_failure(self, scope: Any, now_s: float) -> Granted:
        return self.limits.take_failure(scope, now_s)

    def key(self, business: str = "acme", scopes: Collection[str] = BUSINESS_SCOPES) -> ApiKey:
        """A new key of an approved business user, which is made with a pool of its own if needed."""

        def do(unit: UnitOfWork) -> ApiKey:
            if unit.connection.execute("SELECT 1 FROM business WHERE id = ?", (business,)).fetchone() is None:
                apply(unit, business, business, **PAPERS)
                set_state(unit, business, "approve", "test")
            return make_key(unit, business, scopes)[0]

        key: ApiKey = self.run(do)
        return key

    def operator_key(self) -> ApiKey:
        key: ApiKey = self.run(lambda unit: make_key(unit, None, OPERATOR_SCOPES)[0])
        return key

    def client(self, business: str = "acme", scopes: Collection[str] = BUSINESS_SCOPES) -> Client:
        key = self.key(business, scopes)
        return Client(str(self.address), key.id, key.access_key_secret)

    def pool(self, pool_id: str, business: str, serials: Collection[int], area: str = "") -> None:
        """A pool of a business user, with these numbers of PREFIX."""

        def do(unit: UnitOfWork) -> None:
            insert_pool(unit, Pool(pool_id, business, area, 200, 100, unit.now_ms))
            for serial in serials:
                unit.connection.execute(
                    "UPDATE number SET pool = ? WHERE number = ?", (pool_id, f"{PREFIX}{serial:04d}")
                )

        self.run(do)


def end_all(unit: UnitOfWork) -> None:
    for binding in all_bindings(unit.connection, unit.sealer, BindingQuery(state="live"), unit.now_ms):
        end(unit, binding.binding_id, FAST.rules)


@pytest.fixture(scope="module")
def compat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compat]:
    """With the business user acme and its pool of ten numbers."""
    compat = Compat(tmp_path_factory.mktemp("compat"))
    try:
        compat.key()
        compat.pool(POOL, "acme", range(10))
        yield compat
    finally:
        compat.close()


@pytest.fixture(autouse=True)
def as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take back what a test set, and end its bindings."""
    yield
    if "compat" in request.fixturenames:
        compat: Compat = request.getfixturevalue("compat")
        compat.ahead_s = 0.0
        compat.backend.settings = FAST
        compat.limits = RequestLimits(compat.backend)
        compat.run(end_all)


@pytest.fixture
def client(compat: Compat) -> Client:
    return compat.client()


def bind(client: Client, action: str = "BindAxb700", **given: Any) -> Json:
    wanted = {"pool_key": POOL, "tel_a": A, "tel_b": B, "expiration": in_china(hours=1), "order_id": "order-1"}
    return client.ask(action, **{**wanted, **given})


@pytest.fixture
def bound(client: Client) -> Json:
    """What a new binding of A and B answered in `Data`."""
    body = bind(client)
    assert body["Code"] == "OK", body
    data: Json = body["Data"]
    return data


def stored(compat: Compat, data: Json) -> Binding:
    binding = compat.run(
        lambda unit: find_numbered(unit.connection, unit.sealer, data["SubsId"], "acme", data["SecretNo"])
    )
    assert binding is not None
    return binding


def change(client: Client, bound: Json, **given: Any) -> Json:
    return client.ask("UpdateSubs700", pool_key=POOL, subs_id=bound["SubsId"], tel_x=bound["SecretNo"], **given)


def as_new(names: Json) -> Json:
    """Names on the wire -> the new SDK's."""
    irregular = {"ASRStatus": "asrstatus", "ASRModelId": "asrmodel_id"}
    return {
        irregular.get(name, "".join(f"_{c.lower()}" if c.isupper() else c for c in name)[1:]): value
        for name, value in names.items()
    }


@pytest.fixture(params=["new", "old"])
def ask(client: Client, request: pytest.FixtureRequest) -> Ask:
    """Asks by one of the SDKs, with names as on the wire."""
    if request.param == "old":
        return client.ask_old
    return lambda action, **given: client.ask(action, **as_new(given))


def bind_older(ask: Ask, action: str = "BindAxb", **given: Any) -> Json:
    wanted = {"PoolKey": POOL, "PhoneNoA": A, "Expiration": in_china(hours=1), "OutOrderId": "order-1"}
    if action == "BindAxb":
        wanted["PhoneNoB"] = B
    return ask(action, **{**wanted, **given})
