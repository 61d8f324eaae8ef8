"""Who gets in: keys, signatures, rates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from relay.api.credentials import AHEAD_S, BEHIND_S, signature
from relay.api.settings import ApiSettings
from relay.service.keys import make_key
from relay.store.act import Act
from tests.api.conftest import Api, Client, Json, TestDesk

LATER_S = 60.0  # long enough after the start


async def test_without_a_key_nothing_behind_the_door_is_told(api: Api) -> None:
    stranger = api.stranger()
    for path in ("/v1/businesses", "/v1/nothing", "/v1/"):
        await stranger.refused("GET", path, "unauthorised")
    assert (await stranger.http.get("/v1/businesses")).headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_secret_and_an_unknown_id_are_answered_alike(api: Api, operator: Client) -> None:
    _, key_id, secret = operator.key.split("_", 2)
    answers = [
        await api.stranger(key).refused("GET", "/v1/businesses", "unauthorised")
        for key in (f"rk_{key_id}_{'A' * 43}", f"rk_{'0' * 12}_{secret}")
    ]
    for answer in answers:
        del answer["request_id"]
    assert answers[0] == answers[1]


async def test_an_expired_key_is_refused(api: Api) -> None:
    def do(act: Act) -> str:
        return make_key(act, None, ["operator"], act.now_ms + 60_000)[1]

    client = api.stranger(await api.act(do))
    await client.get("/v1/businesses")
    api.ahead_s = 61
    await client.refused("GET", "/v1/businesses", "unauthorised")


async def test_a_key_without_the_scope_is_forbidden(api: Api) -> None:
    reader = await api.operator(["bindings:read"])
    problem = await reader.refused("POST", "/v1/businesses", "forbidden", {"name": "Acme"})
    assert problem["detail"] == "authorization: the key lacks the scope operator: take one that has it"


class Request(NamedTuple):
    """A request to be signed. Times are seconds from the door's now."""

    method: str = "POST"
    target: str = "/v1/businesses?a=%20b"
    body: bytes = b'{"id": "acme", "name": "Acme"}'
    nonce: str = "0123456789abcdef"
    ts: int = 0

    async def send(self, api: Api, client: Client, **changes: object) -> httpx.Response:
        """Signs this and sends it with `changes`."""
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


async def test_a_signed_request_is_taken_once(api: Api, operator: Client) -> None:
    api.ahead_s = LATER_S
    assert (await Request().send(api, operator)).status_code == 201
    answer = await Request().send(api, operator)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/replayed")


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b'{"id": "evil", "name": "Acme"}'},
        {"target": "/v1/businesses?a=%20c"},
        {"target": "/v1/businesses"},
        {"nonce": "0123456789abcdee"},
        {"method": "PATCH"},
    ],
)
async def test_a_signature_covers_all_of_the_request(api: Api, operator: Client, changes: Json) -> None:
    api.ahead_s = LATER_S
    answer = await Request().send(api, operator, **changes)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorised")


@pytest.mark.parametrize("ts", [-BEHIND_S - 2, AHEAD_S + 2])
async def test_a_signature_of_another_time_is_refused(api: Api, operator: Client, ts: int) -> None:
    api.ahead_s = BEHIND_S + LATER_S
    assert (await Request(ts=ts).send(api, operator)).json()["type"] == "/problems/replayed"


async def test_a_signature_from_before_the_start_is_refused(api: Api, operator: Client) -> None:
    assert (await Request(ts=AHEAD_S - 1).send(api, operator)).json()["type"] == "/problems/replayed"


@pytest.fixture
async def slow_api(tmp_path: Path, relay: dict[str, Callable[..., Json]]) -> Api:
    return Api(TestDesk(tmp_path, relay, ApiSettings(requests_per_s=1, burst=2, failures_per_s=1)))


async def test_a_key_over_its_rate_waits(slow_api: Api) -> None:
    api = slow_api
    operator = await api.operator()
    answers = [await operator.http.get("/v1/businesses") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert (answers[2].headers["ratelimit-limit"], answers[2].headers["retry-after"]) == ("2", "1")
    api.ahead_s += 1
    assert (await operator.http.get("/v1/businesses")).status_code == 200
    await api.desk.close()


async def test_a_business_user_has_one_rate_however_many_keys_it_has(slow_api: Api) -> None:
    api = slow_api
    answers = [await (await api.company("acme")).http.get("/v1/businesses/acme") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert (await (await api.company("other")).http.get("/v1/businesses/other")).status_code == 200
    await api.desk.close()


async def test_each_answer_behind_the_door_says_how_much_is_left(api: Api, operator: Client) -> None:
    for path, status in (("/v1/businesses", 200), ("/v1/nothing", 404), ("/v1/businesses?limit=0", 400)):
        answer = await operator.http.get(path)
        assert answer.status_code == status
        assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= answer.headers.keys()


async def test_an_address_that_shows_bad_keys_waits(slow_api: Api) -> None:
    api = slow_api
    await api.stranger().refused("GET", "/v1/businesses", "unauthorised")
    await api.stranger().refused("GET", "/v1/businesses", "rate_limited")
    await api.stranger(address="127.0.0.2").refused("GET", "/v1/businesses", "unauthorised")
    await api.desk.close()
