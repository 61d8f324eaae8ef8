"""The served OpenAPI document against what is answered: right and wrong requests of each operation, from schemathesis.

No answer is a fault of the service, and none is undocumented in status, content type, headers or form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
from tests.api.conftest import FAST, Api, TestDesk
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


DOCUMENT: dict[str, Any] = make_app(cast(Desk, _Bare())).state.document
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
}


class Served(NamedTuple):
    """The application with something of each kind in it, an event loop for it, and an operator's key."""

    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient
    seeds: Seeds


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    desk = TestDesk(tmp_path_factory.mktemp("schema"), RELAY)
    shelf = Shelf(desk.path, desk.sealer)
    shelf.add(ended_record(CALL_ID, business="acme"))
    shelf.follow()

    async def start() -> Served:
        await desk.server.open()
        api = Api(desk)
        return Served(loop, (await api.operator()).http, await api.act(sow))

    yield loop.run_until_complete(start())
    loop.run_until_complete(desk.close())
    loop.close()


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_answers_as_documented(served: Served, method: str, path: str, mode: GenerationMode) -> None:
    @settings(
        max_examples=RIGHT if mode is GenerationMode.POSITIVE else WRONG,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMA[path][method].as_strategy(generation_mode=mode), st.booleans())
    def ask(case: Case, seeded: bool) -> None:
        if seeded:
            case.path_parameters |= {name: served.seeds[name] for name in case.path_parameters}
        request = _request(served.http, case)
        answer = served.loop.run_until_complete(served.http.send(request))
        case.validate_response(answer, checks=CHECKED)

    ask()


def _request(http: httpx.AsyncClient, case: Case) -> httpx.Request:
    sent = case.as_transport_kwargs(base_url="http://relay")
    names = ("method", "url", "params", "json", "data", "headers", "cookies", "files")
    return http.build_request(**{name: sent[name] for name in names if sent.get(name) is not None})
