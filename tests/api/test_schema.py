"""The served OpenAPI document against what is answered: right and wrong requests of each operation, from schemathesis.

No answer is a fault of the service, and none is undocumented in status, content type, headers or form.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from relay.api.app import make_app
from relay.api.desk import Desk
from relay.call.bans import Bans
from relay.call.settings import Limits
from relay.net.bans import BanAnswers
from tests.api.conftest import FAST, A, Api, B, TestDesk
from tests.api.seeds import CALL_ID, Seeds, sow
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

RIGHT, WRONG = 30, 15  # examples of an operation
CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class _Bare(NamedTuple):
    """Enough of a desk for the document."""

    settings: Any = FAST


DOCUMENT: dict[str, Any] = json.loads(make_app(cast(Desk, _Bare())).state.document)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.keys() & {"parameters", "requestBody"}
]
RELAY = {
    "state": lambda: {"state": "serving"},
    "live": lambda **_: {"calls": [], "total": 0},
    "hang_up": lambda call_id, **_: {"call_id": call_id},
    "peers": lambda: {"peers": []},
    **BanAnswers(Bans(Limits())).by_name(),
}


class Served(NamedTuple):
    """The application, an event loop for it, and an operator's key."""

    loop: asyncio.AbstractEventLoop
    api: Api
    http: httpx.AsyncClient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    desk = TestDesk(tmp_path_factory.mktemp("schema"), RELAY)
    shelf = Shelf(desk.path, desk.sealer)
    shelf.add(ended_record(CALL_ID))
    shelf.follow()

    async def start() -> Served:
        await desk.server.open()
        api = Api(desk)
        return Served(loop, api, (await api.operator()).http)

    yield loop.run_until_complete(start())
    loop.run_until_complete(desk.close())
    loop.close()


NAMES = count(1)
BINDING = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}
LOOSE = ("expires_in", "direction", "max_call_s", "ring_timeout_s", "user_data", "consent", "white_only", "hours")


@pytest.fixture
def seeds(served: Served) -> Seeds:
    """Of this operation alone: others may have ended or revoked theirs."""
    number = next(NAMES)
    sown: Seeds = served.loop.run_until_complete(
        served.api.act(lambda act: sow(act, f"acme{number}", f"700{number:08d}"))
    )
    return sown


@pytest.mark.no_cover  # as of all drawn examples (tests/conftest.py)
@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_answers_as_documented(served: Served, seeds: Seeds, method: str, path: str, mode: GenerationMode) -> None:
    @settings(
        max_examples=RIGHT if mode is GenerationMode.POSITIVE else WRONG,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMA[path][method].as_strategy(generation_mode=mode), st.integers(0, 9))
    def ask(case: Case, dice: int) -> None:
        if dice:
            case.headers.pop("Authorization", None)  # of schemathesis' own making: ours is in place of it
        if dice > 3:
            case.path_parameters |= {name: seeds[name] for name in case.path_parameters}
            if mode is GenerationMode.POSITIVE:
                _plant(case.query, seeds)
                _plant(case.body, seeds)
                if dice > 6 and path == "/v1/bindings" and method == "post":
                    case.body = (
                        BINDING
                        | {"business": seeds["business"]}
                        | {name: case.body[name] for name in LOOSE if name in case.body}
                    )
        answer = served.loop.run_until_complete(served.http.send(_request(served.http, case)))
        case.validate_response(answer, checks=CHECKED)

    ask()


def _plant(body: Any, seeds: Seeds) -> None:
    """Has fields that are given name what there is, in times that there were."""
    for part in body.get("items", [body])[:5] if isinstance(body, dict) else ():
        part |= {name: seeds[name] for name, value in part.items() if value is not None and name in seeds}


def _request(http: httpx.AsyncClient, case: Case) -> httpx.Request:
    sent = case.as_transport_kwargs(base_url="http://relay")
    if isinstance(sent.get("data"), str | bytes):
        sent["content"] = sent.pop("data")
    names = ("method", "url", "params", "json", "data", "content", "headers", "cookies", "files")
    return http.build_request(**{name: sent[name] for name in names if sent.get(name) is not None})
