"""The async client in this process: arguments, errors, retries, pages, signed requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from relay700_client import (
    UNSET,
    ApiError,
    AsyncClient,
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    NotFound,
    RateLimited,
    Replayed,
    Unauthorised,
    Unreachable,
)
from relay700_client import client as client_module

from relay.api.app import make_app
from relay.api.auth import AHEAD_S
from tests.api.conftest import A, Api, B, C, Client

Failure = int | httpx.TransportError  # before the request arrives; a ReadError: after it was executed


class Line(httpx.AsyncBaseTransport):
    """The way to the application, which fails a few times."""

    def __init__(self, api: Api, *failures: Failure) -> None:
        self._way = httpx.ASGITransport(api.app, client=("127.0.0.1", 5000))
        self._failures = list(failures)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        match self._failures.pop(0) if self._failures else None:
            case int(status):
                return httpx.Response(status, headers={"retry-after": "0"}, content=b"a proxy's words")
            case httpx.ReadError() as error:
                await self._way.handle_async_request(request)
                raise error
            case httpx.TransportError() as error:
                raise error
        return await self._way.handle_async_request(request)


def client_on(line: httpx.AsyncBaseTransport, key: str, *, signed: bool = False) -> AsyncClient:
    return AsyncClient("http://relay/", key, signed=signed, http=httpx.AsyncClient(transport=line))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.0)


async def test_arguments_and_results_are_typed(api: Api, company: Client) -> None:
    async with client_on(Line(api), company.key) as client:
        until = datetime.now(UTC) + timedelta(hours=2)
        made = await client.create_binding(mode="AXB", a=A, b=B, order_id="17", expires_at=until, hours="08:00-22:00")
        assert (made.state, made.order_id, made.a) == ("live", "17", "138****0001")
        assert made.expires_at is not None
        assert abs(made.expires_at - until) < timedelta(milliseconds=1)
        changed = await client.update_binding(made.id, hours=None, b=C, max_call_s=UNSET)
        assert (changed.hours, changed.version) == (None, 2)
        assert await client.get_binding(made.id) == changed
        since = datetime.now(UTC) - timedelta(minutes=1)
        assert [each.id for each in (await client.list_bindings(since=since, state="live")).items] == [made.id]
        ended = await client.end_binding(made.id, reason="done / 100%")
        assert ended.state == "ended"


async def test_refusals_are_exceptions_by_kind(api: Api, company: Client) -> None:
    async with client_on(Line(api), company.key) as client:
        with pytest.raises(NotFound) as refused:
            await client.get_binding("0123456789abcdef")
        assert (refused.value.status, refused.value.kind) == (404, "not_found")
        assert refused.value.request_id
        with pytest.raises(Invalid, match="700 number") as invalid:
            await client.create_binding(mode="AXB", a="1", b=B, x="7")
        assert {error.field for error in invalid.value.errors} == {"a", "x"}
        with pytest.raises(Forbidden):
            await client.list_peers()
    async with client_on(Line(api), "rk_0123456789ab_" + "A" * 43) as stranger:
        with pytest.raises(Unauthorised):
            await stranger.list_bindings()


@pytest.mark.parametrize("failure", [503, 429, httpx.ConnectError("refused"), httpx.ReadError("reset")])
async def test_repeated_change_is_executed_once(api: Api, company: Client, failure: Failure) -> None:
    line = Line(api, failure, failure)
    async with client_on(line, company.key) as client:
        made = await client.create_binding(mode="AXB", a=A, b=B, order_id="17")
        assert len({request.headers["idempotency-key"] for request in line.requests}) == 1
        assert len(line.requests) == 3
        assert [each.id for each in (await client.list_bindings()).items] == [made.id]


async def test_own_idempotency_key_is_sent(api: Api, company: Client) -> None:
    async with client_on(Line(api), company.key) as client:
        first = await client.create_binding(mode="AXB", a=A, b=B, order_id="17", idempotency_key="order-17")
        again = await client.create_binding(mode="AXB", a=A, b=B, order_id="17", idempotency_key="order-17")
        assert again == first
        with pytest.raises(IdempotencyMismatch):
            await client.create_binding(mode="AXB", a=A, b=C, order_id="17", idempotency_key="order-17")


async def test_tries_end(api: Api, company: Client) -> None:
    line = Line(api, *[503] * 9)
    async with client_on(line, company.key) as client:
        with pytest.raises(ApiError, match='503 not by relay700: b"a proxy\'s words"'):
            await client.list_bindings()
    assert len(line.requests) == client_module.TRIES
    line = Line(api, *[httpx.ConnectError("refused")] * 9)
    async with client_on(line, company.key) as client:
        with pytest.raises(Unreachable, match="GET /v1/bindings: refused"):
            await client.list_bindings()


async def test_request_without_a_key_is_repeated_only_if_it_was_not_executed(api: Api, company: Client) -> None:
    line = Line(api, 429, httpx.ConnectError("refused"))
    async with client_on(line, company.key) as client:
        assert (await client.search_bindings(order_id="17")).items == []
    for failure in (503, httpx.ReadError("reset")):
        async with client_on(Line(api, failure), company.key) as client:
            with pytest.raises((ApiError, Unreachable)):
                await client.search_bindings(order_id="17")


def test_pause_is_that_of_retry_after_or_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PAUSE_S", 0.5)
    tries = client_module._Tries(client_module._request("GET", "/v1/bindings", None, None, None), 5)
    assert tries.after_refusal(httpx.Response(429, headers={"retry-after": "7"})) == 7
    assert 0.75 <= tries.after_refusal(httpx.Response(503)) <= 1.25
    assert 1.5 <= tries.after_failure(httpx.ReadError("reset")) <= 2.5
    with pytest.raises(ApiError):  # longer than anybody waits
        tries.after_refusal(httpx.Response(429, headers={"retry-after": "3600"}))


async def test_each_has_the_items_of_all_pages(api: Api, company: Client) -> None:
    line = Line(api)
    async with client_on(line, company.key) as client:
        made = [await client.create_binding(mode="AXB", a=A, b=f"1390000{n:04}", order_id="17") for n in range(5)]
        line.requests.clear()
        seen = [each.id async for each in client.each(client.list_bindings, order_id="17", limit=2)]
        assert seen == [each.id for each in reversed(made)]
        assert len(line.requests) == 3


async def test_signed_requests_do_not_send_the_secret(api: Api, company: Client) -> None:
    api.ahead_s = -2 * AHEAD_S
    api.app = make_app(api.backend, api.now)  # started a while ago
    api.ahead_s = 0
    line = Line(api, 503)
    async with client_on(line, company.key, signed=True) as client:
        made = await client.create_binding(mode="AXB", a=A, b=B, order_id="17")
        assert [each.id for each in (await client.list_bindings(order_id="17", limit=1)).items] == [made.id]
    secret = company.key.split("_", 2)[2]  # in which an underscore may stand
    assert not any(secret in value for request in line.requests for value in request.headers.values())
    replayed = client_on(line, company.key)
    replayed._auth = httpx.Auth()
    request = line.requests[-1]
    replayed._http.headers["authorization"] = request.headers["authorization"]
    with pytest.raises(Replayed):
        await replayed.list_bindings(order_id="17", limit=1)


async def test_a_signed_request_waits_for_a_relay_that_has_just_started(
    api: Api, company: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pause(_: float) -> None:
        api.ahead_s += AHEAD_S

    monkeypatch.setattr(client_module, "asyncio", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(client_module, "time", SimpleNamespace(time=api.now))
    line = Line(api)
    async with client_on(line, company.key, signed=True) as client:
        await client.create_binding(mode="AXB", a=A, b=B, order_id="17")
    assert len(line.requests) > 1


async def test_lines_of_json_are_given_as_they_came(api: Api, company: Client) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    async with client_on(Line(api), company.key) as client:
        assert await client.export_calls(format="jsonl", since=since, until=datetime.now(UTC)) == b""


async def test_batch_takes_and_gives_typed_items(api: Api, company: Client) -> None:
    async with client_on(Line(api), company.key) as client:
        batch = await client.create_bindings(
            items=[{"mode": "AXB", "a": A, "b": B, "order_id": "1"}, {"mode": "AXB", "a": A, "b": A, "order_id": "2"}]
        )
    made, refused = batch.items
    assert made.binding is not None and made.binding.order_id == "1"
    assert refused.problem is not None and refused.problem.type == "/problems/invalid"


async def test_rate_limit_ends_in_its_exception(api: Api, company: Client) -> None:
    line = Line(api)
    api.backend.settings = api.backend.settings._replace(requests_per_s=1, burst=1)
    client = AsyncClient("http://relay", company.key, tries=1, http=httpx.AsyncClient(transport=line))
    with pytest.raises(RateLimited):
        for _ in range(3):
            await client.list_bindings()
