"""Routes of SIP peers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.defence.bans import Bans, KnownAddresses
from relay.model.settings import Limits
from relay.net.control import BanAnswers
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


# -- Routes of bans, over the real table of bans

BAD, PEER = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def bans(relay: dict[str, Callable[..., Json]]) -> Bans:
    made = Bans(Limits())
    made.spare(lambda: KnownAddresses([], [PEER]))
    relay |= BanAnswers(made).by_name()
    return made


async def test_an_operator_bans_an_address_and_lifts_the_ban(bans: Bans, operator: Client) -> None:
    made = await operator.post("/v1/bans", {"address": BAD, "for_s": 60, "reason": "case 114"})
    assert bans.holds(BAD)
    assert (made["address"], made["reason"]) == (BAD, "case 114")
    assert (await operator.get("/v1/bans"))["items"] == [made]
    assert await operator.ask("DELETE", f"/v1/bans/{BAD}?reason=sorry") == {"lifted": [BAD]}
    assert not bans.holds(BAD)
    lifted, added = (await operator.get("/v1/audit"))["items"][:2]
    assert (added["action"], added["object"], added["reason"]) == ("ban.add", BAD, "case 114")
    assert (lifted["action"], lifted["object"], lifted["reason"]) == ("ban.lift", BAD, "sorry")


async def test_all_bans_are_lifted_at_once(bans: Bans, operator: Client) -> None:
    await operator.post("/v1/bans", {"address": BAD, "for_s": 60})
    await operator.post("/v1/bans", {"address": "2001:db8::/64", "for_s": 61})
    assert await operator.ask("DELETE", "/v1/bans") == {"lifted": [BAD, "2001:db8::/64"]}
    assert (await operator.get("/v1/audit"))["items"][0]["object"] == "all"


async def test_the_ban_of_a_network_is_lifted_by_any_of_its_addresses(bans: Bans, operator: Client) -> None:
    await operator.post("/v1/bans", {"address": "2001:db8::/64", "for_s": 60})
    assert await operator.ask("DELETE", "/v1/bans/2001:db8::") == {"lifted": ["2001:db8::/64"]}


async def test_bans_of_peers_and_invalid_addresses_are_refused(bans: Bans, operator: Client) -> None:
    await operator.refused("POST", "/v1/bans", "state_conflict", {"address": PEER, "for_s": 60})
    await operator.refused("POST", "/v1/bans", "invalid", {"address": "1:2", "for_s": 60})
    await operator.refused("POST", "/v1/bans", "invalid", {"address": BAD, "for_s": 0})
    await operator.refused("DELETE", f"/v1/bans/{BAD}", "not_found")
    assert [line for line in (await operator.get("/v1/audit"))["items"] if line["action"].startswith("ban.")] == []


async def test_bans_require_an_operator_key(bans: Bans, api: Api) -> None:
    company = await api.company("acme")
    await company.refused("GET", "/v1/bans", "forbidden")
    await company.refused("POST", "/v1/bans", "forbidden", {"address": BAD, "for_s": 60})
    await company.refused("DELETE", "/v1/bans", "forbidden")
