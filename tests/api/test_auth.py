"""Authentication and rate limits: keys, signatures, token buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from relay.api.auth import AHEAD_S, BEHIND_S, named_by, signature
from relay.api.backend import ApiSettings
from relay.service.keys import make_key
from relay.store.keys import set_revoked
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import Writer
from tests.api.conftest import TESTER, Api, Client, Json, TestBackend

LATER_S = 60.0  # after the start, when signed requests are accepted


async def test_every_path_below_v1_requires_a_key(api: Api) -> None:
    stranger = api.stranger()
    for path in ("/v1/businesses", "/v1/nothing", "/v1/"):
        await stranger.refused("GET", path, "unauthorised")
    assert (await stranger.http.get("/v1/businesses")).headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_secret_and_an_unknown_id_get_the_same_response(api: Api, operator: Client) -> None:
    _, key_id, secret = operator.key.split("_", 2)
    answers = [
        await api.stranger(key).refused("GET", "/v1/businesses", "unauthorised")
        for key in (f"rk_{key_id}_{'A' * 43}", f"rk_{'0' * 12}_{secret}")
    ]
    for answer in answers:
        del answer["request_id"]
    assert answers[0] == answers[1]


async def test_an_expired_key_is_refused(api: Api) -> None:
    def do(unit: UnitOfWork) -> str:
        return make_key(unit, None, ["operator"], unit.now_ms + 60_000)[1]

    client = api.stranger(await api.run(do))
    await client.get("/v1/businesses")
    api.ahead_s = 61
    await client.refused("GET", "/v1/businesses", "unauthorised")


async def test_a_key_revoked_by_a_command_is_refused_at_once(api: Api, operator: Client) -> None:
    await operator.get("/v1/bindings")
    with closing(Writer(api.backend.path, api.backend.sealer)) as command:
        command.run(TESTER, lambda unit: set_revoked(unit, operator.key.split("_")[1]))
    await operator.refused("GET", "/v1/bindings", "unauthorised")


async def test_a_key_without_the_scope_is_forbidden(api: Api) -> None:
    reader = await api.operator(["bindings:read"])
    problem = await reader.refused("POST", "/v1/businesses", "forbidden", {"name": "Acme"})
    assert problem["detail"] == "authorization: the key lacks the scope operator: use a key that has it"


class Request(NamedTuple):
    """A request to sign. `ts` is relative to the application's clock, in seconds."""

    method: str = "POST"
    target: str = "/v1/calls/search?limit=%35"
    body: bytes = b'{"order_id": "17"}'
    nonce: str = "0123456789abcdef"
    ts: int = 0

    async def send(self, api: Api, client: Client, **changes: object) -> httpx.Response:
        """Sign the request, and send it with `changes`."""
        _, key_id, secret = client.key.split("_", 2)
        ts = int(api.now()) + self.ts
        key = hashlib.sha256(secret.encode()).digest()
        sig = signature(key, self.method, self.target, ts, self.nonce, self.body)
        sent = self._replace(**changes)  # type: ignore[arg-type]
        headers = {
            "authorization": f"RELAY700 key={key_id}, ts={ts}, nonce={sent.nonce}, sig={sig}",
            "content-type": "application/json",
        }
        return await api.stranger().http.request(sent.method, sent.target, content=sent.body, headers=headers)


async def test_a_signed_request_is_accepted_once(api: Api, operator: Client) -> None:
    api.ahead_s = LATER_S
    assert (await Request().send(api, operator)).status_code == 200
    answer = await Request().send(api, operator)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/replayed")


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b'{"order_id": "18"}'},
        {"target": "/v1/calls/search?limit=%36"},
        {"target": "/v1/calls/search"},
        {"nonce": "0123456789abcdee"},
        {"method": "PATCH"},
    ],
)
async def test_a_signature_covers_the_whole_request(api: Api, operator: Client, changes: Json) -> None:
    api.ahead_s = LATER_S
    answer = await Request().send(api, operator, **changes)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorised")


@pytest.mark.parametrize("ts", [-BEHIND_S - 2, AHEAD_S + 2])
async def test_a_signature_with_a_time_out_of_range_is_refused(api: Api, operator: Client, ts: int) -> None:
    api.ahead_s = BEHIND_S + LATER_S
    assert (await Request(ts=ts).send(api, operator)).json()["type"] == "/problems/replayed"


async def test_a_signature_from_before_the_start_is_refused(api: Api, operator: Client) -> None:
    assert (await Request(ts=AHEAD_S - 1).send(api, operator)).json()["type"] == "/problems/replayed"


@pytest.fixture
async def slow_api(tmp_path: Path, relay: dict[str, Callable[..., Json]]) -> Api:
    return Api(TestBackend(tmp_path, relay, ApiSettings(requests_per_s=1, burst=2, failures_per_s=1)))


async def test_a_key_over_its_rate_gets_429(slow_api: Api) -> None:
    api = slow_api
    operator = await api.operator()
    answers = [await operator.http.get("/v1/businesses") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert (answers[2].headers["ratelimit-limit"], answers[2].headers["retry-after"]) == ("2", "1")
    api.ahead_s += 1
    assert (await operator.http.get("/v1/businesses")).status_code == 200
    await api.backend.close()


async def test_a_signed_request_over_the_rate_takes_no_memory(slow_api: Api) -> None:
    """Its nonce is still good."""
    api = slow_api
    api.ahead_s = LATER_S
    operator = await api.operator()
    answers = [(await Request(nonce=f"{n:016}").send(api, operator)).status_code for n in range(3)]
    api.ahead_s += 1
    answers.append((await Request(nonce=f"{2:016}").send(api, operator)).status_code)
    assert answers == [200, 200, 429, 200]
    await api.backend.close()


async def test_all_keys_of_a_business_user_share_one_rate(slow_api: Api) -> None:
    api = slow_api
    answers = [await (await api.company("acme")).http.get("/v1/businesses/acme") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert (await (await api.company("other")).http.get("/v1/businesses/other")).status_code == 200
    await api.backend.close()


async def test_each_authenticated_response_has_ratelimit_headers(api: Api, operator: Client) -> None:
    for path, status in (("/v1/businesses", 200), ("/v1/nothing", 404), ("/v1/businesses?limit=0", 400)):
        answer = await operator.http.get(path)
        assert answer.status_code == status
        assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= answer.headers.keys()


async def test_an_address_with_failed_authentications_gets_429(slow_api: Api) -> None:
    api = slow_api
    await api.stranger().refused("GET", "/v1/businesses", "unauthorised")
    await api.stranger().refused("GET", "/v1/businesses", "rate_limited")
    await api.stranger(address="127.0.0.2").refused("GET", "/v1/businesses", "unauthorised")
    await api.backend.close()


SIGNED = f"RELAY700 key=0123456789ab, ts=1, nonce={'0' * 16}, sig=00"


@pytest.mark.parametrize(
    ("path", "authorization", "address", "name"),
    [
        ("/v1/groups", SIGNED, "198.51.100.7", "0123456789ab"),
        ("/v1/groups", f"Bearer rk_0123456789ab_{'A' * 43}", "198.51.100.7", "0123456789ab"),
        ("/v1/groups", "RELAY700 key=0123456789ab", "198.51.100.7", "198.51.100.7"),
        ("/v1/groups", "", "2001:db8::7", "2001:db8::/64"),
        ("/console/login", SIGNED, "198.51.100.7", "198.51.100.7"),
    ],
)
def test_a_request_is_named_by_its_key_id_else_by_its_source(
    path: str, authorization: str, address: str, name: str
) -> None:
    headers = [(b"authorization", authorization.encode())]
    assert named_by({"type": "http", "path": path, "headers": headers, "client": (address, 5000)}) == name
    assert named_by({"type": "http", "path": "/", "headers": [], "client": None}) == ""
