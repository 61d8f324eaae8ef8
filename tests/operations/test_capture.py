"""Routes of arms."""

from __future__ import annotations

import pytest

from relay.model.capture import CaptureRules
from relay.service.keys import OPERATOR_SCOPES
from tests.api.conftest import PREFIX, A, Api, C, Client, Json


async def test_a_number_is_armed_listed_and_disarmed(api: Api, operator: Client) -> None:
    made = await operator.post("/v1/capture/arms", {"number": A, "for_s": 3600})
    assert (made["kind"], made["value"]) == ("number", "138****0001")
    assert (await operator.get("/v1/capture/arms"))["items"] == [made]
    assert await operator.ask("DELETE", f"/v1/capture/arms/{made['id']}") == made
    assert (await operator.get("/v1/capture/arms"))["items"] == []
    await operator.refused("DELETE", f"/v1/capture/arms/{made['id']}", "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"for_s": 60},
        {"number": A, "peer": "pbx", "for_s": 60},
        {"number": A},
        {"number": A, "for_s": 0},
        {"number": A, "for_s": 604_801},
        {"number": "12", "for_s": 60},
    ],
)
async def test_a_wrong_arm_is_refused(operator: Client, body: Json) -> None:
    await operator.refused("POST", "/v1/capture/arms", "invalid", body)


async def test_unknown_peers_and_businesses_are_refused(api: Api, operator: Client) -> None:
    api.backend.settings = api.backend.settings._replace(peers=("pbx",))
    await operator.refused("POST", "/v1/capture/arms", "not_found", {"peer": "nobody", "for_s": 60})
    await operator.refused("POST", "/v1/capture/arms", "not_found", {"business_id": "nobody", "for_s": 60})
    await operator.post("/v1/capture/arms", {"peer": "pbx", "for_s": 60})


async def test_nothing_is_armed_while_capture_is_off(api: Api, operator: Client) -> None:
    api.backend.capture = CaptureRules("off")
    await operator.refused("POST", "/v1/capture/arms", "state_conflict", {"number": A, "for_s": 60})


async def test_an_operator_without_parties_read_arms_no_party(api: Api) -> None:
    """Which calls are captured would tell who is behind a mask."""
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    for guess in (A, C, f"+86 {A}"):
        problem = await blind.refused("POST", "/v1/capture/arms", "forbidden", {"number": guess, "for_s": 60})
        assert problem["errors"][0]["field"] == "number"
    await blind.refused("POST", "/v1/capture/arms", "invalid", {"number": "12", "for_s": 60})
    await blind.post("/v1/capture/arms", {"number": f"{PREFIX}0001", "for_s": 60})
    await blind.post("/v1/capture/arms", {"business_id": "default", "for_s": 60})


async def test_a_business_user_arms_nothing(company: Client) -> None:
    await company.refused("POST", "/v1/capture/arms", "forbidden", {"business_id": "acme", "for_s": 60})
    await company.refused("GET", "/v1/capture/arms", "forbidden")
