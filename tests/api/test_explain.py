"""POST /v1/explain: own numbers only, audited, and no oracle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from relay.errors import Refused
from relay.policy.explain import TrialCall, explain
from relay.policy.figures import CapCounts
from relay.policy.rules import Rules
from relay.reports.explain import EXPLANATIONS_PER_S, explanation_form
from tests.api.conftest import A, Api, B, Client, Json
from tests.ladder.settings import settings_for
from tests.policy.cases import NOW_S, found

BINDING: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-9"}
UNKNOWN = "700999999990001"


def explained(number: str, caller: str, business: str | None, peer: str | None = None) -> Json:
    """The answer of a relay that grants each call."""
    if peer == "nobody":
        raise Refused("not_found", "peer", "there is no peer nobody")
    call = TrialCall(number, caller, NOW_S)
    told = explain(call, found(), Rules(), settings_for(), None, counts=CapCounts())
    return explanation_form(call, told, "relay", for_operator=business is None)


@pytest.fixture
def relay() -> dict[str, Callable[..., Json]]:
    """It keeps what it was asked."""
    asked: list[Json] = []

    def answer(**fields: Any) -> Json:
        told = explained(**fields)
        asked.append(fields)
        return told

    return {"explain": answer, "asked": lambda: {"asked": asked}}


async def asked_of_relay(api: Api) -> list[Json]:
    answer: list[Json] = (await api.backend.control.ask("asked"))["asked"]
    return answer


async def test_an_operator_explains_any_call(api: Api, operator: Client) -> None:
    told = await operator.post("/v1/explain", {"caller": A, "number_dialled": UNKNOWN, "peer": "pbx"}, 200)
    assert (told["outcome"], told["caller"], told["callee"]) == ("granted", "138****0001", "139****0002")
    assert {check["name"] for check in told["checks"]} > {"lists", "hours", "frequency caps"}
    assert [target["peer"] for target in told["targets"]] == ["carrier"]
    assert await asked_of_relay(api) == [{"number": UNKNOWN, "caller": f"86{A}", "peer": "pbx", "business": None}]
    (line,) = (await operator.get("/v1/audit?action=explain"))["items"]
    assert (line["object"], line["business_id"]) == (UNKNOWN, None)
    assert line["details"] == {"number": "138****0001", "outcome": "granted"}


async def test_a_business_user_explains_calls_to_its_own_numbers(api: Api, company: Client, operator: Client) -> None:
    bound = await company.post("/v1/bindings", BINDING)
    told = await company.post("/v1/explain", {"caller": None, "number_dialled": bound["x"]}, 200)
    assert (told["caller"], told["targets"], told["peer"]) == ("", [], None)
    assert await asked_of_relay(api) == [{"number": bound["x"], "caller": "", "peer": None, "business": "acme"}]
    (line,) = (await operator.get("/v1/audit?action=explain"))["items"]
    assert (line["object"], line["business_id"]) == (bound["x"], "acme")
    await company.refused("POST", "/v1/explain", "invalid", {"caller": A, "number_dialled": bound["x"], "peer": "pbx"})


async def test_numbers_of_others_answer_as_unknown_ones_and_reach_no_relay(api: Api, company: Client) -> None:
    other = await api.company("other")
    foreign = (await other.post("/v1/bindings", BINDING))["x"]
    free = foreign[:-4] + "0099"
    answers = []
    for number in (foreign, free, UNKNOWN, A):
        problem = await company.refused("POST", "/v1/explain", "not_found", {"caller": A, "number_dialled": number})
        del problem["request_id"]
        answers.append(problem)
    assert answers == 4 * answers[:1]
    assert await asked_of_relay(api) == []


async def test_a_number_that_was_held_answers_the_same_before_and_after_another_gets_it(
    api: Api, company: Client
) -> None:
    made = await company.post("/v1/bindings", BINDING)
    await company.ask("DELETE", f"/v1/bindings/{made['id']}")  # without a cool-down
    asked = {"caller": A, "number_dialled": made["x"]}
    await company.refused("POST", "/v1/explain", "not_found", asked)
    rival = await api.company("rival")
    await rival.post("/v1/bindings", BINDING | {"x": made["x"]})
    await company.refused("POST", "/v1/explain", "not_found", asked)


@pytest.mark.parametrize("scope", ["calls:read", "parties:read"])
async def test_both_scopes_are_needed(api: Api, company: Client, scope: str) -> None:
    """Otherwise a key that sees 139****0002 could try the ten thousand numbers behind it."""
    client = await api.company("acme", [scope])
    await client.refused("POST", "/v1/explain", "forbidden", {"caller": A, "number_dialled": UNKNOWN})


async def test_what_the_relay_refuses_leaves_no_audit_line(api: Api, operator: Client) -> None:
    asked = {"caller": A, "number_dialled": UNKNOWN, "peer": "nobody"}
    await operator.refused("POST", "/v1/explain", "not_found", asked)
    assert (await operator.get("/v1/audit?action=explain"))["items"] == []
    now = datetime.now(UTC).isoformat()
    for at in (None, now):
        problem = await operator.refused("POST", "/v1/explain", "not_found", asked | {"at": at})
        assert [error["field"] for error in problem["errors"]] == ["peer"]


async def test_a_past_call_is_explained_from_history_for_its_own_business_user(api: Api, company: Client) -> None:
    bound = await company.post("/v1/bindings", BINDING)
    now = datetime.now(UTC).isoformat()
    for client, targets in ((company, 0), (await api.operator(), 1)):
        told = await client.post("/v1/explain", {"caller": A, "number_dialled": bound["x"], "at": now}, 200)
        assert (told["source"], told["outcome"], told["callee"]) == ("history", "granted", "139****0002")
        assert len(told["targets"]) == targets
        assert told["notes"][0] == "the configuration of the tests"
    before = {"caller": A, "number_dialled": bound["x"], "at": "2026-01-01T00:00:00Z"}
    assert (await company.post("/v1/explain", before, 200))["outcome"] == "no_binding"
    assert await asked_of_relay(api) == []
    coming = before | {"at": "2099-01-01T00:00:00Z"}
    await company.refused("POST", "/v1/explain", "invalid", coming)


async def test_a_past_call_of_an_unknown_source_is_refused_as_it_was(
    api: Api, operator: Client, company: Client
) -> None:
    bound = await company.post("/v1/bindings", BINDING)
    asked = {"caller": A, "number_dialled": bound["x"], "at": datetime.now(UTC).isoformat()}
    asked["unknown_source"] = "udp:127.0.0.9:5060"
    told = await operator.post("/v1/explain", asked, 200)
    assert (told["outcome"], told["sip_status"], told["callee"]) == ("caller_not_allowed", 403, None)
    assert [check["figures"] for check in told["checks"] if check["verdict"] == "fail"] == [
        "udp:127.0.0.9:5060 is in no peer's sources"
    ]
    await company.refused("POST", "/v1/explain", "invalid", asked)
    await operator.refused("POST", "/v1/explain", "invalid", asked | {"at": None})
    await operator.refused("POST", "/v1/explain", "invalid", asked | {"peer": "pbx"})


async def test_explanations_of_live_and_past_calls_are_rate_limited_together(api: Api, operator: Client) -> None:
    api.app.state.explanations._granted[""] = deque([time.time()] * EXPLANATIONS_PER_S)
    for at in (None, "2026-01-01T00:00:00Z"):
        asked = {"caller": A, "number_dialled": UNKNOWN, "at": at}
        await operator.refused("POST", "/v1/explain", "rate_limited", asked)
    assert await asked_of_relay(api) == []
