"""Each operation of the API has a command, and each command an operation; exceptions are listed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import click
import pytest
from fastapi.routing import APIRoute

from relay.api.app import make_app
from relay.api.backend import Backend
from relay.cli import main
from tests.api.conftest import FAST

# Each operation of the API, and the commands that do the same.
SAME: dict[str, str] = {
    "POST /v1/businesses": "business apply",
    "GET /v1/businesses": "business list",
    "GET /v1/businesses/{business_id}": "business show",
    "PATCH /v1/businesses/{business_id}": "business change, business limits",
    "GET /v1/businesses/{business_id}/history": "business history",
    "POST /v1/businesses/{business_id}/approve": "business approve",
    "POST /v1/businesses/{business_id}/suspend": "business suspend",
    "POST /v1/businesses/{business_id}/resume": "business resume",
    "POST /v1/businesses/{business_id}/revoke": "business revoke",
    "POST /v1/businesses/{business_id}/keys": "keys make",
    "GET /v1/businesses/{business_id}/keys": "keys list",
    "POST /v1/keys/{key_id}/rotate": "keys rotate",
    "DELETE /v1/keys/{key_id}": "keys revoke",
    "POST /v1/users": "users add",
    "GET /v1/users": "users list",
    "POST /v1/users/{name}/role": "users role",
    "POST /v1/users/{name}/reset": "users reset",
    "DELETE /v1/users/{name}": "users disable",
    "POST /v1/prefixes": "numbers load",
    "GET /v1/prefixes": "numbers prefixes",
    "GET /v1/prefixes/{prefix}": "numbers prefixes",
    "PATCH /v1/prefixes/{prefix}": "numbers prefix",
    "GET /v1/numbers": "numbers list",
    "GET /v1/numbers/{number}": "numbers show",
    "POST /v1/numbers/{number}/lock": "numbers lock",
    "POST /v1/numbers/{number}/unlock": "numbers unlock",
    "POST /v1/numbers/{number}/hold": "numbers hold",
    "POST /v1/numbers/{number}/unhold": "numbers unhold",
    "POST /v1/numbers/move": "numbers move",
    "POST /v1/numbers/end-rest": "numbers end-rest",
    "POST /v1/pools": "pools make",
    "GET /v1/pools": "pools list",
    "GET /v1/pools/{pool_id}": "pools show",
    "PATCH /v1/pools/{pool_id}": "pools change",
    "GET /v1/pools/{pool_id}/usage": "pools usage",
    "POST /v1/bindings": "bind",
    "POST /v1/bindings/batch": "bindings import, import",
    "GET /v1/bindings": "bindings list",
    "POST /v1/bindings/hand-over": "bindings hand-over",
    "POST /v1/bindings/search": "bindings list",
    "GET /v1/bindings/{binding_id}": "bindings show",
    "GET /v1/bindings/{binding_id}/history": "bindings history",
    "PATCH /v1/bindings/{binding_id}": "bindings change",
    "POST /v1/bindings/{binding_id}/renew": "bindings renew",
    "DELETE /v1/bindings/{binding_id}": "unbind",
    "POST /v1/groups": "groups make",
    "GET /v1/groups": "groups list",
    "GET /v1/groups/{group_id}": "groups show",
    "DELETE /v1/groups/{group_id}": "groups delete",
    "GET /v1/groups/{group_id}/members": "groups show",
    "POST /v1/groups/{group_id}/members": "groups add, groups import",
    "POST /v1/groups/{group_id}/members/remove": "groups remove",
    "GET /v1/lists/{whose}/{owner_id}/entries": "lists show",
    "PUT /v1/lists/{whose}/{owner_id}/entries": "lists black, lists white",
    "DELETE /v1/lists/{whose}/{owner_id}/entries": "lists remove",
    "GET /v1/phase": "phase",
    "GET /v1/filings": "filings list",
    "POST /v1/filings": "filings add, filings import",
    "DELETE /v1/filings": "filings remove",
    "POST /v1/filings/search": "filings show",
    "POST /v1/filings/answers": "filings answers",
    "POST /v1/filings/forget": "filings forget",
    "POST /v1/papers": "papers add",
    "GET /v1/papers": "papers list",
    "GET /v1/papers/{paper_id}": "papers show",
    "GET /v1/papers/{paper_id}/file": "papers file",
    "POST /v1/papers/{paper_id}/accept": "papers accept",
    "POST /v1/papers/{paper_id}/supplement": "papers supplement",
    "POST /v1/papers/{paper_id}/reject": "papers reject",
    "POST /v1/papers/{paper_id}/withdraw": "papers withdraw",
    "GET /v1/calls": "calls list",
    "POST /v1/calls/search": "calls list",
    "GET /v1/calls/{call_id}": "calls show",
    "GET /v1/calls/{call_id}/ladder": "calls ladder",
    "GET /v1/calls/live": "calls live",
    "DELETE /v1/calls/live/{call_id}": "calls hang-up",
    "GET /v1/calls/export": "calls export",
    "GET /v1/calls/{call_id}/recording": "recordings get",
    "DELETE /v1/calls/{call_id}/recording": "recordings delete",
    "POST /v1/calls/{call_id}/recording/url": "recordings url",
    "GET /v1/recordings": "recordings list",
    "POST /v1/explain": "explain",
    "GET /v1/capture/arms": "capture list",
    "POST /v1/capture/arms": "capture arm",
    "DELETE /v1/capture/arms/{arm_id}": "capture disarm",
    "GET /v1/peers": "peers list",
    "GET /v1/bans": "bans list",
    "POST /v1/bans": "bans add",
    "DELETE /v1/bans": "bans lift",
    "DELETE /v1/bans/{address}": "bans lift",
    "POST /v1/trace": "traceback",
    "POST /v1/evidence": "evidence make",
    "GET /v1/reports/daily": "report daily",
    "PUT /v1/reports/daily/complaints": "report complaints",
    "GET /v1/reports/complaints": "report complaints",
    "GET /v1/businesses/{business_id}/hook": "hooks show",
    "PUT /v1/businesses/{business_id}/hook": "hooks set",
    "DELETE /v1/businesses/{business_id}/hook": "hooks remove",
    "POST /v1/webhooks": "webhooks make",
    "GET /v1/webhooks": "webhooks list",
    "GET /v1/webhooks/{webhook_id}": "webhooks show",
    "PATCH /v1/webhooks/{webhook_id}": "webhooks change, webhooks enable",
    "DELETE /v1/webhooks/{webhook_id}": "webhooks remove",
    "GET /v1/webhooks/{webhook_id}/dead": "webhooks dead",
    "POST /v1/webhooks/{webhook_id}/dead/resend": "webhooks resend",
    "POST /v1/webhooks/{webhook_id}/test": "webhooks test",
    "GET /v1/audit": "audit list, audit export",
    "GET /v1/audit/verify": "audit verify",
}
# The reasons stand in ARCHITECTURE.md, "Decisions".
COMMANDS_ALONE = {
    *("serve", "check", "reload", "verify", "purge", "migrate", "evidence check", "replay", "completion"),
    *("report batch", "probe", "compare", "demo"),
    *("seal-key status", "seal-key add", "seal-key use", "seal-key reseal", "seal-key drop"),
}
# Options of a list that the API has under another name, or in the body of a search.
FILTERS = {
    **{name: name.removesuffix("_id") for name in ("order_id", "group_id", "business_id", "pool_id", "binding_id")},
    "party": "number",
}
PAGING = {"limit", "cursor", "fields", "reveal", "reason"}


class _Bare(NamedTuple):
    """A backend with what the routes need."""

    settings: Any = FAST
    requests: Any = None
    spans: Any = None


def routes() -> dict[str, APIRoute]:
    app = make_app(cast(Backend, _Bare()))
    found = [route for route in app.routes if isinstance(route, APIRoute) and route.path.startswith("/v1/")]
    return {f"{method} {route.path}": route for route in found for method in route.methods or ()}


def commands(group: click.Group = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        elif command is not None:
            yield f"{path}{name}", command


def test_each_operation_has_its_command_and_each_command_its_operation() -> None:
    assert set(SAME) == set(routes())
    named = {command for several in SAME.values() for command in several.split(", ")}
    assert named.isdisjoint(COMMANDS_ALONE)
    assert named | COMMANDS_ALONE == {name for name, _ in commands()}


@pytest.mark.parametrize(
    "operation", [name for name in SAME if name.startswith("GET ") and SAME[name].endswith(("list", "export"))]
)
def test_lists_of_api_and_command_have_the_same_filters(operation: str) -> None:
    asked = {field.alias for field in routes()[operation].dependant.query_params} - PAGING
    command = dict(commands())[SAME[operation].partition(", ")[0]]
    options = {option.removeprefix("--") for parameter in command.params for option in parameter.opts}
    assert {FILTERS.get(name, name) for name in asked} <= options


def test_commands_that_show_or_make_something_take_json() -> None:
    """Others report success by their exit status alone."""
    silent = {name for name, command in commands() if not any("--json" in each.opts for each in command.params)}
    assert not [name for name in silent if name.endswith((" list", " show", " make", "history", "traceback"))]
