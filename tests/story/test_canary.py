"""The canary over all outputs of the backend: after a whole story none has a real number unless revealed.

It searches HTTP answers, webhook requests, log, metrics, admin socket and the files of the store. Parties are in no
answer. A business user's own texts may come back to it alone, and are not in log, metrics or files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.net.control import ControlClient, control_path
from tests.interop.conftest import running_relay
from tests.story.company import Client, Inbox, Json
from tests.support.addresses import RELAY, free
from tests.support.live_call import Call
from tests.support.papers import PAPERS
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup, X

pytestmark = pytest.mark.outside

A, B = "13812344321", "13987655678"  # not the numbers in examples of error texts
MEMBER, LISTED, FOREIGN, CONTACT = "13700000077", "13500000066", "+447912345987", "13300000044"
PARTIES = (A, B, MEMBER, LISTED, FOREIGN.removeprefix("+"), CONTACT)
TEXT = "13600000088"  # in texts of a business user
NUMBERS = (*PARTIES, TEXT)


class Backend(NamedTuple):
    relay: RelayProcess
    operator: Client
    company: Client
    agent: Client  # of the same company, with the right to search by party
    inbox: Inbox


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    setup = Setup(api=free(RELAY), numbers={"parties": ["mobile", "foreign"], "countries": ["GB"]})
    assert setup.api is not None
    with running_relay(tmp_path, setup, NUMBERS) as relay:
        operator_key = relay.answer("keys", "make", "--operator", "--json")["secret"]
        async with Client(setup.api, operator_key) as operator, Inbox() as inbox:
            await operator.until_ready()
            contact = f"Li Lei {CONTACT[:3]}-{CONTACT[3:7]}-{CONTACT[7:]}"
            await operator.post(
                "/v1/businesses", PAPERS | {"id": "acme", "name": "Acme", "contact": contact, "live_events": True}
            )
            await operator.post("/v1/businesses/acme/approve", {"reason": f"papers of {TEXT}"}, 200)
            scopes = ["bindings:read", "bindings:write", "calls:read", "calls:hangup", "lists", "webhooks", "reports"]
            made = await operator.post("/v1/businesses/acme/keys", {"scopes": scopes})
            # The operator's key has no parties:read to grant.
            seeing = [f"--scope={scope}" for scope in ("bindings:read", "calls:read", "parties:read")]
            of_agent = relay.answer("keys", "make", "--business", "acme", *seeing, "--json")
            inbox.secret = (await operator.post("/v1/webhooks", {"url": inbox.url, "business_id": "acme"}))["secret"]
            async with Client(setup.api, made["secret"]) as company, Client(setup.api, of_agent["secret"]) as agent:
                yield Backend(relay, operator, company, agent, inbox)


async def test_no_output_holds_a_real_number(backend: Backend) -> None:
    relay, company = backend.relay, backend.company
    binding = await _orders(company)
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A)
        await call.answer()
        control = ControlClient(control_path(relay.folder / "relay.db"))
        answers = [str(await control.ask(name)) for name in ("state", "statistics", "live")]
        answers.append(str(await control.ask("explain", number=X, caller=f"86{A}")))
        await company.get("/v1/calls/live")
        await call.hang_up()
    await backend.inbox.event("call.ended")
    await _looks_for_parties(backend.agent)
    await _looks(company, binding)
    await _mistakes(company, binding)
    metrics = await backend.operator.text("/metrics")
    await company.ask("DELETE", f"/v1/bindings/{binding['id']}")
    await backend.inbox.event("number.cooling")
    # The fixture `backend` searches log and files for all of NUMBERS once the relay has stopped; here it still runs.
    await asyncio.to_thread(relay.assert_nothing_in_clear)
    _assert_none_of(NUMBERS, [metrics, relay.log()])
    _assert_none_of(
        PARTIES, [*answers, *company.seen, *backend.agent.seen, *backend.operator.seen, *_texts(backend.inbox.bodies)]
    )
    assert all(str(number[-4:]) in str(company.seen) for number in (A, B, MEMBER, LISTED))  # they are there, masked


async def _orders(company: Client) -> Json:
    """Send parties in all requests of a company. Returns the binding to call."""
    text = {"order_id": f"order of {TEXT}", "consent": f"asked {TEXT}", "user_data": f"call {TEXT}"}
    asked = {"mode": "AXB", "x": X, "a": A, "b": B, **text}
    made = await company.post("/v1/bindings", asked, idempotency_key=f"order-{TEXT}")
    await company.post("/v1/bindings", asked, idempotency_key=f"order-{TEXT}")
    await company.post("/v1/bindings/batch", {"items": [{"mode": "AXN", "a": MEMBER, **text}]}, 200)
    group = await company.post("/v1/groups", {"name": f"riders of {TEXT}", "members": [MEMBER, FOREIGN]})
    await company.post("/v1/bindings", {"mode": "GXB", "group_id": group["id"], "b": LISTED, **text})
    for whose in ("business/acme", f"binding/{made['id']}"):
        await company.ask("PUT", f"/v1/lists/{whose}/entries", {"number": LISTED, "kind": "black"})
        await company.get(f"/v1/lists/{whose}/entries")
    await company.get(f"/v1/groups/{group['id']}/members")
    changed = await company.ask("PATCH", f"/v1/bindings/{made['id']}", {"b": FOREIGN})
    return await company.ask("PATCH", f"/v1/bindings/{changed['id']}", {"b": B, "max_call_s": 600})


async def _looks_for_parties(agent: Client) -> None:
    for party in (A, B, MEMBER, FOREIGN):
        await agent.post("/v1/bindings/search", {"party": party}, 200)
        await agent.post("/v1/calls/search", {"party": party}, 200)
        await agent.post("/v1/explain", {"caller": party, "number_dialled": X}, 200)
        then = datetime.now(UTC).isoformat()
        await agent.post("/v1/explain", {"caller": party, "number_dialled": X, "at": then}, 200)
        await agent.post("/v1/explain", {"caller": party, "number_dialled": party}, 404)


async def _looks(company: Client, binding: Json) -> None:
    for path in ("/v1/bindings", f"/v1/bindings/{binding['id']}", "/v1/calls", "/v1/businesses/acme", "/v1/groups"):
        await company.get(path)
    (found,) = (await company.get("/v1/calls"))["items"]
    await company.get(f"/v1/calls/{found['call_id']}")
    span = "since=2026-01-01T00:00:00Z&until=2100-01-01T00:00:00Z"
    for format_ in ("csv", "jsonl"):
        await company.text(f"/v1/calls/export?{span}&format={format_}")
    await company.get("/v1/reports/daily?day=2026-01-01")


async def _mistakes(company: Client, binding: Json) -> None:
    """Errors do not repeat the values sent, and parties in a URL are not in the log."""
    on_x = {"mode": "AXB", "x": X, "a": A, "b": MEMBER, "order_id": "2"}
    await company.post("/v1/bindings", on_x, 409)
    await company.post("/v1/bindings", on_x | {"b": A}, 400)
    await company.post("/v1/bindings", on_x | {"a": f"{A}x"}, 400)
    await company.post("/v1/bindings", on_x | {"mode": B}, 400)
    await company.post("/v1/groups", {"name": f"{A}\n", "members": [f"{B}00000000000"]}, 400)
    await company.ask("PATCH", f"/v1/bindings/{binding['id']}", {"hours": A}, 400)
    await company.get(f"/v1/bindings?number={A}&cursor={B}", 400)
    await company.get(f"/v1/bindings/{A}", 404)
    await company.get(f"/v1/{A}", 404)
    await company.get(f"/v1/calls/{binding['id']}{A}", 404)
    await company.get(f"/v1/bindings?reveal=true&reason={A}", 403)
    await company.post("/v1/bindings/search", {"party": A}, 403)


def _texts(bodies: Iterable[bytes]) -> Iterator[str]:
    return (body.decode() for body in bodies)


def _assert_none_of(numbers: Iterable[str], outputs: Iterable[str]) -> None:
    for output in outputs:
        for number in numbers:
            assert number[-10:] not in output.replace("-", "").replace(" ", ""), f"{number} in {output}"
