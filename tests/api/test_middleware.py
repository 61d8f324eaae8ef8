"""Rules for every request: request id, body limits, security headers, isolation of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.api import middleware
from relay.store import writer
from tests.api.conftest import Api, Client


async def test_every_response_has_a_request_id_and_security_headers(api: Api, operator: Client) -> None:
    for client, path in ((operator, "/v1/businesses"), (operator, "/v1/nothing"), (api.stranger(), "/v1/businesses")):
        headers = (await client.http.get(path)).headers
        assert len(headers["request-id"]) == 16
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"name": "\\ud800"}', b'{"\\ud800": 1}', b"\xff"])
async def test_an_unreadable_body_is_invalid(operator: Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await operator.http.post("/v1/businesses", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_a_body_without_a_json_content_type_is_refused_with_the_fix(
    operator: Client, headers: dict[str, str]
) -> None:
    answer = await operator.http.post("/v1/businesses", content=b'{"name": "Acme"}', headers=headers)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == "body"
    assert "content-type: application/json" in error["problem"]


async def test_a_body_over_the_limit_is_refused_by_its_declared_length(operator: Client) -> None:
    await operator.refused("POST", "/v1/businesses", "too_large", {"name": "x" * (1 << 20)})


async def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(operator: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * (1 << 16)

    headers = {"content-type": "application/json"}
    answer = await operator.http.post("/v1/businesses", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too_large")


async def test_concurrent_large_bodies_are_limited_and_small_ones_are_not(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incomplete body is kept in memory: a thousand of them would exhaust it."""
    monkeypatch.setattr(middleware, "ROOM", 1 << 16)
    came, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b" " * (middleware.SMALL + 57_000)
        came.set()
        await go_on.wait()
        yield b"{}"

    headers = {"content-type": "application/json"}
    slow = asyncio.ensure_future(operator.http.post("/v1/businesses", content=slowly(), headers=headers))
    await came.wait()
    large = await operator.http.post("/v1/businesses", content=b" " * (middleware.SMALL + 9_000), headers=headers)
    assert (large.status_code, large.headers["retry-after"]) == (429, "1")
    assert "large bodies" in large.json()["detail"]
    await operator.refused("POST", "/v1/businesses", "invalid", {"name": ""})
    go_on.set()
    assert (await slow).status_code == 400
    large = await operator.http.post("/v1/businesses", content=b" " * (middleware.SMALL + 9_000), headers=headers)
    assert large.status_code == 400, "the room was not released"


async def test_large_bodies_in_the_name_of_a_key_leave_room_for_others(
    api: Api, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is no secret, and the body is read before the signature can be checked."""
    monkeypatch.setattr(middleware, "ROOM", 1 << 16)
    go_on = asyncio.Event()

    async def slowly(size: int) -> AsyncIterator[bytes]:
        yield b" " * (middleware.SMALL + size)
        await go_on.wait()

    key_id = (await api.company("acme")).key.split("_")[1]
    forged = {"authorization": f"RELAY700 key={key_id}, ts=1, nonce={'0' * 16}, sig=00"}
    send = api.stranger().http.post
    slow = [asyncio.ensure_future(send("/v1/groups", content=slowly(size), headers=forged)) for size in (57_000, 8_000)]
    await asyncio.wait(slow, timeout=0.2)
    headers = {"content-type": "application/json"}
    other = await operator.http.post("/v1/businesses", content=b" " * (middleware.SMALL + 3_000), headers=headers)
    go_on.set()
    assert other.status_code == 400
    assert [(await each).status_code for each in slow] == [401, 429]


def test_the_room_of_a_name_is_forgotten_with_its_last_body() -> None:
    room = middleware.Room()
    assert room.take("acme", 5) and room.take("acme", 6) and room.take("other", 7)
    room.give_back("acme", 11)
    assert not room.take("other", middleware.ROOM)
    assert room.names == {"other": 7}


async def test_an_error_fails_its_own_request_only(api: Api, operator: Client) -> None:
    async def fail() -> None:
        raise RuntimeError("13800000001")

    api.app.add_api_route("/v1/fail", fail)
    problem = await operator.refused("GET", "/v1/fail", "internal")
    assert "13800000001" not in str(problem)
    await operator.get("/v1/businesses")


async def test_an_unavailable_store_gets_503(api: Api, operator: Client) -> None:
    api.backend.path.unlink()
    api.backend.reader.close()
    await operator.refused("GET", "/v1/businesses", "store_busy")


async def test_a_full_queue_of_writes_says_when_to_come_again(
    api: Api, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 0)
    answer = await operator.http.post("/v1/businesses", json={"id": "shop", "name": "Shop"})
    assert (answer.status_code, answer.json()["type"], answer.headers["retry-after"]) == (
        503,
        "/problems/store_busy",
        "1",
    )


async def test_requests_are_counted_by_route_template_and_status(api: Api, operator: Client) -> None:
    for path in ("/v1/businesses/acme", "/v1/nothing/13800000001"):
        await operator.http.get(path)
    counted: dict[str, Any] = api.backend.requests.statistics()
    assert counted["api_requests"] == {"4xx": 2}
    assert counted["api_request_seconds"]["rows"].keys() == {"GET /v1/businesses/{business_id} 4xx", "GET - 4xx"}
