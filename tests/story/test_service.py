"""Changes over HTTP by business users and operator, and their effect on the next call: real HTTP, SIP and one relay."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import httpx
import pytest

from relay.api.backend import ApiSettings
from relay.service.fields import CHINA
from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call, connect, refused
from tests.story.company import PATIENCE_S, Client, Json
from tests.support.addresses import RELAY, Address, free
from tests.support.papers import PAPERS
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside

A, A2, A3 = "13800000001", "13800000002", "13800000003"
B, B2 = "13900000002", "13900000004"
NUMBERS = (A, A2, A3, B, B2)
SCOPES = ["bindings:read", "bindings:write", "numbers:read", "calls:read", "calls:hangup", "lists"]
_serials = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    with running_relay(tmp_path_factory.mktemp("service"), Setup(api=free(RELAY)), NUMBERS) as relay:
        relay.wait_for_event("api.listening")
        yield relay


@pytest.fixture(scope="module")
def operator_key(shared: RelayProcess) -> str:
    return str(shared.answer("keys", "make", "--operator", "--also", "parties:read", "--json")["secret"])


class Platform(NamedTuple):
    """The phones, the operator, and an approved business user per test."""

    ends: Ends
    operator: Client
    company: Client
    business: str
    key: str

    @property
    def path(self) -> str:
        """The path of the business user in the API."""
        return f"/v1/businesses/{self.business}"

    async def bind(self, mode: str = "AXB", **fields: object) -> Json:
        parties = {"a": A} if mode == "AXN" else {"b": B} if "G" in mode else {"a": A, "b": B}
        return await self.company.post("/v1/bindings", {"mode": mode, "order_id": "order-1", **parties, **fields})

    async def change(self, binding: Json, **fields: object) -> Json:
        return await self.company.ask("PATCH", f"/v1/bindings/{binding['id']}", dict(fields))

    async def step(self, step: str, status: int = 200) -> Json:
        return await self.operator.post(f"{self.path}/{step}", {"reason": f"test of {step}"}, status)

    async def reaches(self, caller: str, number: str) -> str:
        """The number that a call reaches."""
        return (await call(self.ends, caller, number)).called

    async def refused(self, caller: str, number: str) -> tuple[int, str]:
        """The status of a refused call, and its outcome in the record."""
        answer = await refused(self.ends, caller, number)
        return answer.status, str(self.ends.relay.calls("--number", number)[-1]["outcome"])


@pytest.fixture
async def platform(shared: RelayProcess, operator_key: str) -> AsyncIterator[Platform]:
    setup, business = shared.setup, f"acme{next(_serials)}"
    assert setup.api is not None
    async with (
        Phone(setup.caller) as left,
        Phone(setup.callee) as right,
        Client(setup.api, operator_key) as operator,
    ):
        await operator.post("/v1/businesses", {"id": business, "name": business} | PAPERS)
        await operator.post(f"/v1/businesses/{business}/approve", {"reason": "papers complete"}, 200)
        key = (await operator.post(f"/v1/businesses/{business}/keys", {"scopes": SCOPES}))["secret"]
        async with Client(setup.api, key) as company:
            yield Platform(Ends(shared, left, right), operator, company, business, key)


# Business users


async def test_a_suspension_stops_all_bindings_until_resumed_and_a_revocation_for_good(
    platform: Platform,
) -> None:
    numbers = [(await platform.bind(mode))["x"] for mode in ("AXB", "AXYB", "AXN")]
    anothers = (await platform.operator.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "order_id": "1"}))["x"]
    talk = await connect(platform.ends, A, numbers[0])
    await platform.step("suspend")
    for number in numbers:
        assert await platform.refused(B if number == numbers[2] else A, number) == (403, "business_suspended")
    assert await platform.reaches(A, anothers) == B
    await talk.hang_up()  # the live call went on
    await platform.step("resume")
    for number in numbers[:2]:
        assert await platform.reaches(A, number) == B
    assert await platform.reaches(B, numbers[2]) == A
    await platform.step("revoke")
    assert (await platform.step("resume", 409))["type"] == "/problems/state_conflict"
    for number in numbers[:2]:
        assert await platform.refused(A, number) == (403, "business_revoked")
    await platform.company.ask("GET", "/v1/bindings", status=401)
    history = (await platform.operator.get(f"{platform.path}/history"))["items"]
    assert [line["reason"] for line in history[1:]] == [
        "papers complete",
        *(f"test of {step}" for step in ("suspend", "resume", "revoke")),
    ]


async def test_limits_of_a_business_user_hold_from_the_next_call_or_request_on(platform: Platform) -> None:
    made = await platform.bind()
    await platform.operator.ask("PATCH", platform.path, {"max_calls": 1, "max_bindings": 1, "modes": ["AXB"]})
    again = {"mode": "AXB", "a": A2, "b": B2, "order_id": "order-2"}
    for asked, kind in ((again, "quota"), (again | {"mode": "AXYB"}, "mode_not_allowed")):
        answer = await platform.company.post("/v1/bindings", asked, 403 if kind == "mode_not_allowed" else 409)
        assert answer["type"] == f"/problems/{kind}"
    talk = await connect(platform.ends, A, made["x"])
    assert await platform.refused(B, made["x"]) == (503, "business_busy")
    await talk.hang_up()
    assert await platform.reaches(B, made["x"]) == A
    await platform.operator.ask("PATCH", platform.path, {"max_calls": None, "max_cps": 0})
    assert await platform.refused(A, made["x"]) == (503, "business_rate")
    await platform.operator.ask("PATCH", platform.path, {"max_cps": None})
    assert await platform.reaches(A, made["x"]) == B


# Numbers


async def test_locks_of_a_number_and_of_its_prefix(platform: Platform) -> None:
    prefix = "70010000009"
    await platform.operator.post("/v1/prefixes", {"prefix": prefix, "peer": "callee_side_1"})
    x, z = f"{prefix}0001", f"{prefix}0002"
    await platform.bind(x=x)
    await platform.bind(x=z, a=A2, b=B2)
    assert await platform.reaches(A, x) == B
    await platform.operator.post(f"/v1/numbers/{x}/lock", {"reason": "complaints"}, 200)
    assert await platform.refused(A, x) == (480, "number_locked")
    assert await platform.reaches(A2, z) == B2
    await platform.operator.post(f"/v1/numbers/{x}/unlock", {"reason": "checked"}, 200)
    assert await platform.reaches(B, x) == A
    for state, status in (("locked", 200), ("active", 200), ("returned", 200), ("active", 409)):
        await platform.operator.ask("PATCH", f"/v1/prefixes/{prefix}", {"state": state}, status)
        if state == "active" and status == 200:
            assert (await platform.reaches(A, x), await platform.reaches(A2, z)) == (B, B2)
        else:
            assert await platform.refused(A, x) == await platform.refused(B2, z) == (480, "number_locked")
    asked = {"mode": "AXB", "a": A3, "b": B2, "order_id": "order-3", "x": f"{prefix}0003"}
    assert (await platform.company.post("/v1/bindings", asked, 409))["type"] == "/problems/number_locked"


async def test_a_pool_that_runs_short_warns(platform: Platform) -> None:
    pool = f"{platform.business}-pool"
    numbers = ["700100000010901", "700100000010902"]
    await platform.operator.post(
        "/v1/pools", {"id": pool, "business_id": platform.business, "area": "010", "warn_percent": 100}
    )
    await platform.operator.post("/v1/numbers/move", {"pool_id": pool, "numbers": numbers}, 200)
    made = [await platform.bind(area="010"), await platform.bind(a=A2)]
    assert {binding["x"] for binding in made} == set(numbers)
    usage = await platform.company.get(f"/v1/pools/{pool}/usage")
    assert (usage["bound"], usage["percent"], usage["warning"]) == (2, 100, True)
    api = platform.ends.relay.setup.api
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        assert "relay700_pools_short 1.0" in (await http.get(f"http://{api}/metrics")).text
        await platform.operator.ask("DELETE", f"/v1/bindings/{made[0]['id']}")
        assert (await platform.company.get(f"/v1/pools/{pool}/usage"))["cooling"] == 1
        await platform.operator.ask("PATCH", f"/v1/pools/{pool}", {"warn_percent": 80})
        await platform.operator.post("/v1/numbers/move", {"pool_id": pool, "numbers": ["700100000010903"]}, 200)
        assert "relay700_pools_short 0.0" in (await http.get(f"http://{api}/metrics")).text


async def test_complaints_and_filings_that_end_warn_and_stop_nothing(platform: Platform) -> None:
    day = datetime.now(CHINA).date().isoformat()
    entered = {"day": day, "business_id": platform.business, "prefix": "70010000001", "count": 3}
    ends = (datetime.now(CHINA) + timedelta(days=1)).isoformat()
    filed = {"number": "13800000001", "reference": "CT-1", "business_id": platform.business, "expires_at": ends}
    api = platform.ends.relay.setup.api
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        for count, high in ((3, "1.0"), (2, "0.0")):
            await platform.operator.ask("PUT", "/v1/reports/daily/complaints", entered | {"count": count})
            assert f"relay700_complaints_high {high}" in (await http.get(f"http://{api}/metrics")).text
        await platform.operator.post("/v1/filings", filed)
        assert "relay700_filings_expiring 1.0" in (await http.get(f"http://{api}/metrics")).text
        gone = {"number": filed["number"], "business_id": platform.business}
        await platform.operator.ask("DELETE", "/v1/filings", gone)
        assert "relay700_filings_expiring 0.0" in (await http.get(f"http://{api}/metrics")).text
    assert (await platform.operator.get(f"/v1/businesses/{platform.business}"))["state"] == "approved"
    said = platform.ends.relay.wait_for_event("complaints.high")
    assert (said["business"], said["complaints"], said["answered"]) == (platform.business, 3, 0)


# Bindings


async def test_a_changed_binding_holds_from_the_next_call_and_ends_none(platform: Platform) -> None:
    made = await platform.bind()
    x = made["x"]
    talk = await connect(platform.ends, A, x)
    await platform.change(made, b=B2)
    await talk.hang_up()
    assert await platform.reaches(A, x) == B2
    assert await platform.refused(B, x) == (403, "no_binding")
    await platform.change(made, a=A2)
    assert await platform.reaches(B2, x) == A2
    assert await platform.refused(A, x) == (403, "no_binding")
    await platform.change(made, direction="b_to_a")
    assert await platform.refused(A2, x) == (403, "direction_barred")
    assert await platform.reaches(B2, x) == A2
    await platform.change(made, direction="both", white_only=True)
    assert await platform.refused(A2, x) == (403, "caller_not_listed")
    entries = f"/v1/lists/binding/{made['id']}/entries"
    await platform.company.ask("PUT", entries, {"number": A2, "kind": "white"})
    assert await platform.reaches(A2, x) == B2
    history = (await platform.company.get(f"/v1/bindings/{made['id']}/history"))["items"]
    assert [step["changed"] for step in history] == [[], ["b"], ["a"], ["direction"], ["direction", "white_only"]]


async def test_members_and_groups_change_with_the_next_call(platform: Platform) -> None:
    day = await platform.company.post("/v1/groups", {"name": "day", "members": [A]})
    night = await platform.company.post("/v1/groups", {"name": "night", "members": [A3]})
    made = await platform.bind("GXYB", group_id=day["id"])
    x, y, members = made["x"], made["y"], f"/v1/groups/{day['id']}/members"
    assert await platform.refused(A2, x) == (403, "no_binding")
    await platform.company.post(members, {"members": [A2]}, 200)
    assert await platform.reaches(A2, x) == B
    assert await platform.reaches(B, y) == A2
    await platform.company.post(f"{members}/remove", {"members": [A2]}, 200)
    assert await platform.refused(A2, x) == (403, "no_binding")
    assert await platform.refused(B, y) == (480, "no_callee")
    await platform.change(made, group_id=night["id"])
    assert await platform.refused(A, x) == (403, "no_binding")
    assert await platform.reaches(A3, x) == B


async def test_an_expired_binding_refuses_calls_and_cannot_be_renewed(platform: Platform) -> None:
    made = await platform.bind(expires_in=60)
    path = f"/v1/bindings/{made['id']}"
    assert (await platform.company.post(f"{path}/renew", {"expires_in": 3600}, 200))["state"] == "live"
    assert await platform.reaches(A, made["x"]) == B
    assert platform.ends.relay.command("bindings", "renew", made["id"], "--expires-in", "1s").returncode == 0
    await platform.company.until(path, lambda answer: bool(answer["state"] == "expired"))
    assert await platform.refused(A, made["x"]) == (403, "expired")
    assert (await platform.company.post(f"{path}/renew", {"expires_in": 60}, 409))["type"] == "/problems/ended"


# The API


async def test_one_of_two_live_calls_is_hung_up(platform: Platform) -> None:
    first, second = await platform.bind(order_id=f"{platform.business}-1"), await platform.bind(a=A2, b=B2)
    doomed, other = [await connect(platform.ends, a, made["x"]) for a, made in ((A, first), (A2, second))]
    live = await platform.company.until("/v1/calls/live", lambda answer: bool(answer["total"] == 2))
    (call_id,) = [one["call_id"] for one in live["items"] if one["number_dialled"] == first["x"]]
    hung_up = await platform.company.ask("DELETE", f"/v1/calls/live/{call_id}", status=202)
    assert hung_up == {"call_id": call_id, "status": "hanging_up"}
    await doomed.is_hung_up()
    left = await platform.company.until("/v1/calls/live", lambda answer: bool(answer["total"] == 1))
    await platform.company.ask("DELETE", f"/v1/calls/live/{call_id}", status=404)
    await other.hang_up()
    ways = (f"number={first['x']}", f"order_id={platform.business}-1", f"until={left['items'][0]['received_at']}")
    for way in ways:
        found = await platform.company.until(f"/v1/calls?{way}", lambda answer: bool(answer["items"]))
        assert [one["call_id"] for one in found["items"]] == [call_id]
    (record,) = platform.ends.relay.calls("--number", first["x"])
    assert (record["call_id"], record["ended_by"], record["end_reason"]) == (call_id, "relay", "hung_up")


class Signer(NamedTuple):
    """Sign requests as in docs/API.md."""

    api: Address
    key: str

    def ask(self, path: str, body: Json) -> httpx.Request:
        _, key_id, secret = self.key.split("_", 2)
        data, ts, nonce = json.dumps(body).encode(), str(int(time.time())), secrets.token_hex(16)
        text = "\n".join(["POST", path, ts, nonce, hashlib.sha256(data).hexdigest()])
        sig = hmac.new(hashlib.sha256(secret.encode()).digest(), text.encode(), hashlib.sha256).hexdigest()
        headers = {
            "authorization": f"RELAY700 key={key_id}, ts={ts}, nonce={nonce}, sig={sig}",
            "content-type": "application/json",
        }
        return httpx.Request("POST", f"http://{self.api}{path}", headers=headers, content=data)


async def test_a_signed_request_is_accepted_once_and_unchanged(platform: Platform) -> None:
    api = platform.ends.relay.setup.api
    assert api is not None
    signer, body = Signer(api, platform.key), {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
        until_s = time.monotonic() + PATIENCE_S
        while (answer := await http.send(request := signer.ask("/v1/bindings", body))).status_code == 401:
            assert time.monotonic() < until_s, answer.text  # requests that may be from before the start are refused
            await asyncio.sleep(2 / ApiSettings().failures_per_s)
        assert answer.status_code == 201, answer.text
        again = await http.send(request)
        assert (again.status_code, again.json()["type"]) == (401, "/problems/replayed")
        other = signer.ask("/v1/bindings", body)
        forged = httpx.Request("POST", other.url, headers=other.headers, content=other.content.replace(b"-1", b"-2"))
        assert (await http.send(forged)).json()["type"] == "/problems/unauthorised"
    assert await platform.reaches(A, answer.json()["x"]) == B
    assert len(await platform.company.items("/v1/bindings")) == 1
