"""Liveness, readiness, metrics and documentation."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.api.conftest import Api, Json


async def test_alive_and_ready(api: Api) -> None:
    assert await api.stranger().get("/healthz") == {"status": "ok"}
    assert await api.stranger().get("/readyz") == {"status": "ok"}


async def test_not_ready_while_the_relay_drains(api: Api, relay: dict[str, Callable[..., Json]]) -> None:
    relay["state"] = lambda: {"state": "draining"}
    await api.stranger().refused("GET", "/readyz", "relay_unavailable")
    assert await api.stranger().get("/healthz") == {"status": "ok"}


async def test_not_ready_without_the_relay(api: Api) -> None:
    await api.backend.server.close()
    await api.stranger().refused("GET", "/readyz", "relay_unavailable")


async def test_not_ready_without_the_store(api: Api) -> None:
    api.backend.path.unlink()
    api.backend.reader.close()
    await api.stranger().refused("GET", "/readyz", "store_busy")


async def test_metrics_require_an_operator_key_from_other_machines(api: Api) -> None:
    assert (await api.stranger().http.get("/metrics")).text == "relay700_up 1\n"
    await api.stranger(address="192.0.2.1").refused("GET", "/metrics", "unauthorised")
    await api.stranger().refused("GET", "/metrics", "unauthorised", X_Forwarded_For="192.0.2.1")
    operator = api.stranger((await api.operator()).key, "192.0.2.1")
    assert (await operator.http.get("/metrics")).status_code == 200
    company = api.stranger((await api.company("acme")).key, "192.0.2.1")
    await company.refused("GET", "/metrics", "forbidden")


async def test_the_documentation_loads_nothing_from_other_hosts(api: Api) -> None:
    answer = await api.stranger().http.get("/docs")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://", answer.text)


async def test_the_document_is_openapi_3_1_with_scopes_and_problems(api: Api) -> None:
    document = await api.stranger().get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/businesses"]["post"]
    assert "Scope: `operator`" in operation["description"]
    assert operation["responses"]["409"] == {"$ref": "#/components/responses/409"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
