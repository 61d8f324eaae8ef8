"""The API asked within the process."""

from __future__ import annotations

import pytest

from relay.console.ask import ApiClient, ApiError
from relay.service.keys import OPERATOR_SCOPES
from relay.store.keys import ApiKey
from tests.api.conftest import Api


def asker(api: Api, business: str | None = None, scopes: frozenset[str] = OPERATOR_SCOPES) -> ApiClient:
    return ApiClient(api.app, ApiKey("test", business, scopes, b"", b"", 0, "", None, None), "request")


async def test_the_api_decides(api: Api) -> None:
    assert (await asker(api).ask("GET", "/v1/calls", query={"limit": "5", "outcome": None}))["items"] == []
    with pytest.raises(ApiError) as caught:
        await asker(api, "acme", frozenset(["numbers:read"])).ask("GET", "/v1/calls")
    assert (caught.value.status, caught.value.kind) == (403, "forbidden")
    with pytest.raises(ApiError) as caught:
        await asker(api).ask("GET", "/v1/calls", query={"number": "1"})
    assert list(caught.value.errors) == ["number"]


async def test_a_form_pressed_twice_acts_once(api: Api) -> None:
    body = {"id": "acme", "name": "Acme"}
    first = await asker(api).ask("POST", "/v1/businesses", body=body, once="token")
    assert await asker(api).ask("POST", "/v1/businesses", body=body, once="token") == first
    assert len((await asker(api).ask("GET", "/v1/audit"))["items"]) == 1


async def test_no_request_from_outside_brings_its_actor(api: Api) -> None:
    await api.stranger().refused("GET", "/v1/calls", "unauthorised", actor="key:test")
