"""Routes of SIP peers."""

from __future__ import annotations

from collections.abc import Callable

from tests.api.conftest import Api, Client, Json

DOWN = {"target": "udp:192.0.2.10:5060", "state": "down", "failures": 3, "aside_until": None}
ASIDE = {"target": "udp:192.0.2.11:5060", "state": "aside", "failures": 0, "aside_until": 1_767_225_600_000}


async def test_an_operator_sees_the_state_of_the_peers(operator: Client, relay: dict[str, Callable[..., Json]]) -> None:
    peer = {"peer": "carrier", "calls_in": 1, "calls_out": 2, "registered": False, "targets": [DOWN, ASIDE]}
    relay["peers"] = lambda: {"peers": [peer]}
    (shown,) = (await operator.get("/v1/peers"))["items"]
    assert shown == {
        "name": "carrier",
        "calls_in": 1,
        "calls_out": 2,
        "registered": False,
        "targets": [DOWN, ASIDE | {"aside_until": "2026-01-01T00:00:00.000Z"}],
    }


async def test_peers_require_an_operator_key(api: Api) -> None:
    company = await api.company("acme")
    await company.refused("GET", "/v1/peers", "forbidden")


async def test_peers_are_unavailable_without_the_relay(operator: Client, api: Api) -> None:
    await api.backend.server.close()
    await operator.refused("GET", "/v1/peers", "relay_unavailable")
