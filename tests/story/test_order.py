"""An order from its first request to the inspector's traceback: real HTTP, real SIP, each mode, both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import running_relay
from tests.story.calls import Ends, Seen, assert_sees_none_of, call, refused
from tests.story.company import Client, Inbox, Json
from tests.support.addresses import RELAY, free
from tests.support.phone import Phone
from tests.support.relay_process import Setup

pytestmark = pytest.mark.outside

PREFIX = "70010000007"
X, Y = PREFIX + "0001", PREFIX + "0002"
COURIER, CUSTOMER = "13800000001", "13900000002"
COLLEAGUE = "13800000005"
NEXT_COURIER, NEXT_CUSTOMER = "13800000003", "13900000004"
NUMBERS = (COURIER, CUSTOMER, COLLEAGUE, NEXT_COURIER, NEXT_CUSTOMER)
CALL_KINDS = ["call.received", "call.ringing", "call.answered", "call.ended"]


class Way(NamedTuple):
    """One direction of a mode: number dialled, number shown, and direction in the record."""

    dialled: str
    shown: str
    direction: str


# mode: courier to customer, customer to courier. In an AXN the customer is a.
WAYS = {
    "AXB": (Way(X, X, "a_to_b"), Way(X, X, "b_to_a")),
    "AXYB": (Way(X, Y, "a_to_b"), Way(Y, X, "b_to_a")),
    "GXB": (Way(X, X, "a_to_b"), Way(X, X, "b_to_a")),
    "GXYB": (Way(X, Y, "a_to_b"), Way(Y, X, "b_to_a")),
    "AXN": (Way(X, X, "b_to_a"), Way(X, X, "a_to_b")),
}


class Story(NamedTuple):
    """The relay with its phones, the operator, the company's program and its inbox."""

    ends: Ends
    operator: Client
    company: Client
    inbox: Inbox
    business: str


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    """A company ready for its first order: approved, with a key, numbers and a webhook."""
    setup = Setup(api=free(RELAY))
    assert setup.api is not None
    with running_relay(tmp_path, setup, NUMBERS) as relay:
        operator_key = relay.answer("keys", "make", "--operator", "--also", "trace", "--json")["secret"]
        async with (
            Phone(setup.caller) as left,
            Phone(setup.callee) as right,
            Client(setup.api, operator_key) as operator,
            Inbox() as inbox,
        ):
            await operator.until_ready()
            business, key = await _take_on(operator)
            async with Client(setup.api, key) as company:
                inbox.secret = await _subscribe(operator, business, inbox.url)
                yield Story(Ends(relay, left, right), operator, company, inbox, business)


async def _take_on(operator: Client) -> tuple[str, str]:
    """Take a business from its application to its key. Returns its id and the key."""
    application = {
        "name": "快送 Express", "licence": "91110000MA0000000X", "application": "pilot-17", "scenario": "express",
        "contact": "Li Lei, 010-12345678", "scheme": "scheme-1", "live_events": True,
    }  # fmt: skip
    applied = await operator.post("/v1/businesses", application)
    assert applied["state"] == "applied"
    approved = await operator.post(f"/v1/businesses/{applied['id']}/approve", {"reason": "papers complete"}, 200)
    assert approved["state"] == "approved"
    await operator.post("/v1/prefixes", {"prefix": PREFIX, "peer": "callee_side_1", "cool_down_s": 3})
    scopes = ["bindings:read", "bindings:write", "numbers:read", "calls:read", "webhooks"]
    made = await operator.post(f"/v1/businesses/{applied['id']}/keys", {"scopes": scopes})
    return applied["id"], made["secret"]


async def _subscribe(operator: Client, business: str, url: str) -> str:
    """Make the webhook as the operator, since the inbox is on this machine. Returns the secret that signs events."""
    kinds = [*CALL_KINDS, "call.refused", "number.cooling"]
    hook = {"business_id": business, "url": url, "kinds": kinds, "parties": "masked"}
    return str((await operator.post("/v1/webhooks", hook))["secret"])


async def _bind(story: Story, mode: str, courier: str, customer: str, order: str, status: int = 201) -> Json:
    body: Json = {"mode": mode, "x": X, "order_id": order, "expires_in": 3600, "user_data": f"for {order}"}
    if mode in ("AXYB", "GXYB"):
        body["y"] = Y
    if mode in ("GXB", "GXYB"):
        body |= {"group_id": await _group(story, courier), "b": customer}
    else:
        body |= {"a": customer} if mode == "AXN" else {"a": courier, "b": customer}
    return await story.company.post("/v1/bindings", body, status)


async def _group(story: Story, courier: str) -> str:
    group = await story.company.post("/v1/groups", {"name": f"riders of {courier[-2:]}"})
    members = {"members": [courier, COLLEAGUE]} if courier == COURIER else {"members": [courier]}
    await story.company.post(f"/v1/groups/{group['id']}/members", members, 200)
    return str(group["id"])


def _assert_masked(seen: Seen, way: Way, caller: str, callee: str) -> None:
    assert (seen.shown, seen.called) == (way.shown, callee)
    assert_sees_none_of(seen.by_callee, [caller])
    assert_sees_none_of(seen.by_caller, [callee])


@pytest.mark.parametrize("mode", WAYS)
async def test_an_order_from_binding_to_traceback(story: Story, mode: str) -> None:
    there, back = WAYS[mode]
    binding = await _bind(story, mode, COURIER, CUSTOMER, "order-1")
    assert (binding["state"], binding["x"]) == ("live", X)

    _assert_masked(await call(story.ends, COURIER, there.dialled), there, COURIER, CUSTOMER)
    _assert_masked(await call(story.ends, CUSTOMER, back.dialled), back, CUSTOMER, COURIER)
    await _assert_told(story, binding, back)
    record = await _assert_told(story, binding, there)

    ended = await story.company.ask("DELETE", f"/v1/bindings/{binding['id']}")
    assert ended["state"] == "ended"
    await story.inbox.event("number.cooling", number=X)
    for caller, way in ((COURIER, there), (CUSTOMER, back)):
        assert (await refused(story.ends, caller, way.dialled)).status == 403

    await _assert_next_customer_waits(story, mode)
    await _bind(story, mode, NEXT_COURIER, NEXT_CUSTOMER, "order-2")
    _assert_masked(await call(story.ends, NEXT_COURIER, there.dialled), there, NEXT_COURIER, NEXT_CUSTOMER)
    await _assert_inspector_finds(story, record)


async def _assert_told(story: Story, binding: Json, way: Way) -> Json:
    """Assert that all events of the call came in order, the last with the record, which the API has, too."""
    ended = await story.inbox.event("call.ended", direction=way.direction, outcome="answered")
    call_id = ended["call_id"]
    assert [event["kind"] for event in story.inbox.events if event.get("call_id") == call_id] == CALL_KINDS
    assert (ended["binding_id"], ended["order_id"], ended["business_id"]) == (binding["id"], "order-1", story.business)
    assert {ended["caller"], ended["callee"]} == {"138****0001", "139****0002"}
    assert ended["user_data"] == "for order-1"
    record = await story.company.get(f"/v1/calls/{call_id}")
    assert (record["number_dialled"], record["number_shown"], record["outcome"]) == (way.dialled, way.shown, "answered")
    for number in NUMBERS:
        assert all(number.encode() not in body for body in story.inbox.bodies)
    return record


async def _assert_next_customer_waits(story: Story, mode: str) -> None:
    refusal = await _bind(story, mode, NEXT_COURIER, NEXT_CUSTOMER, "order-2", 409)
    assert refusal["type"] == "/problems/number_cooling"
    for number in {X, Y} if "Y" in mode else {X}:
        await story.company.until(f"/v1/numbers/{number}", lambda answer: bool(answer["state"] == "free"))


async def _assert_inspector_finds(story: Story, record: Json) -> None:
    """Assert who was behind the number at the time of the first order, though it is another's by now."""
    question = {"number": X, "at": record["answered_at"] or record["received_at"], "reason": "case 2026-114"}
    traced = await story.operator.post("/v1/trace", question, 200)
    (binding,) = traced["bindings"]
    assert (binding["order_id"], binding["business_id"]) == ("order-1", story.business)
    assert f"86{CUSTOMER}" in (binding["a"], binding["b"])
    (found,) = traced["calls"]
    assert (found["caller"], found["callee"]) == (f"86{COURIER}", f"86{CUSTOMER}")
    lines = await story.operator.items("/v1/audit?action=traceback")
    assert [line["reason"] for line in lines] == ["case 2026-114"]
