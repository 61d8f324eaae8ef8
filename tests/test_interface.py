"""The interface that docs/RELEASES.md promises: nothing of tests/interface.txt is missing today.

What is new comes into the file with a release: `python -m tests.test_interface > tests/interface.txt`. Before 1.0.0,
what was taken away on purpose leaves the file in the same way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from relay import metrics
from relay.api.app import openapi_document
from relay.api.problems import KINDS
from relay.cli import main
from relay.compat import app  # noqa: F401 (it fills ACTIONS)
from relay.compat.actions import ACTIONS
from relay.config.tables import Tables
from relay.privacy.records import FIELDS

PROMISED = Path("tests/interface.txt")
DOCUMENT: dict[str, Any] = json.loads(openapi_document())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def settings(table: type[msgspec.Struct] = Tables, path: str = "") -> Iterator[str]:
    """Each key with its default: another default is another behaviour."""
    for key in msgspec.structs.fields(table):
        inner = _struct_in(key.type)
        if path:
            default = key.default if isinstance(key.default, str | int | float | tuple) else None
            yield f"setting [{path}] {key.name}" + (" (required)" if key.required else f" = {default!r}")
        if inner is not None:
            yield from settings(inner, f"{path}.{key.name}".removeprefix("."))


def _struct_in(annotation: object) -> type[msgspec.Struct] | None:
    """The table in `Annotated[Table, …] | None` or `tuple[Table, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return next(filter(None, map(_struct_in, get_args(annotation))), None)


def commands(group: click.Group = main, path: str = "relay700") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            needed = " (required)" if parameter.required else ""
            yield from (
                f"command {path} {name} {option}{needed}" for option in (*parameter.opts, *parameter.secondary_opts)
            )
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"command {path} {name}"


def operations() -> Iterator[str]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"operation {method.upper()} {path}"
            for each in operation.get("parameters", ()):
                needed = " (required)" if each.get("required") else ""
                yield f"operation {method.upper()} {path} {each['in']} {each['name']}{needed}"
    yield from (f"event {kind}" for kind in DOCUMENT["webhooks"])


def schemas() -> Iterator[str]:
    for name, schema in SCHEMAS.items():
        yield from (f"value {name} {value}" for value in schema.get("enum", ()))
        for field in schema.get("properties", ()):
            yield f"field {name} {field}" + (" (required)" if field in schema.get("required", ()) else "")


def problems() -> Iterator[str]:
    yield from (f"problem {kind} {status}" for kind, (status, _) in KINDS.items())


def actions() -> Iterator[str]:
    """Of Alibaba's interface, with their parameters."""
    for name, action in ACTIONS.items():
        yield f"action {name}"
        for field in msgspec.structs.fields(action.parameters):
            yield f"action {name} {field.encode_name}" + (" (required)" if field.required else "")


def records() -> Iterator[str]:
    yield from (f"record {field}" for field in FIELDS)


def figures() -> Iterator[str]:
    yield from (f"metric relay700_{name}" for table in (metrics._GAUGES, metrics._COUNTERS) for name in table)
    for table in (metrics._LABELLED, metrics._LABELLED_GAUGES, metrics._HISTOGRAMS):
        yield from (f"metric relay700_{name} by {', '.join(labels)}" for name, (labels, _) in table.items())


def interface() -> list[str]:
    parts = (settings(), commands(), operations(), schemas(), problems(), actions(), records(), figures())
    return sorted({line for part in parts for line in part})


def test_nothing_that_is_promised_is_missing() -> None:
    missing = sorted(set(PROMISED.read_text().splitlines()) - set(interface()))
    assert not missing, f"docs/RELEASES.md promises these: {missing}"


_REFERENCE = re.compile(r"#/components/schemas/(\w+)")


def of_requests() -> set[str]:
    """The schemas of requests. In an answer a new field that is always there takes nothing from programs."""
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    found: set[str] = set()
    new = set(_REFERENCE.findall(json.dumps([operation.get("requestBody") for operation in operations])))
    while new:
        found |= new
        new = set(_REFERENCE.findall(json.dumps([SCHEMAS[name] for name in new]))) - found
    return found


def parent(line: str) -> str:
    """The line without its last word: the operation, command, table or schema."""
    return line.removesuffix(" (required)").partition(" = ")[0].rpartition(" ")[0]


def newly_required(promised: set[str], today: list[str]) -> list[str]:
    """What today's programs do not give to an operation, command, table or request that existed."""
    known, asked = {parent(line) for line in promised}, of_requests()
    return [
        line
        for line in today
        if line.endswith(" (required)") and line not in promised and parent(line) in known
        if not line.startswith("field ") or line.split()[1] in asked
    ]


def test_nothing_is_required_that_was_not() -> None:
    found = newly_required(set(PROMISED.read_text().splitlines()), interface())
    assert not found, f"docs/RELEASES.md promises that what worked goes on, and these are required now: {found}"


def test_a_new_required_option_or_field_of_a_request_is_found_and_one_of_an_answer_is_not() -> None:
    lines = interface()
    taken = [
        "command relay700 bind mode (required)",
        "field BindingCreateRequest mode (required)",
        "field BindingResponse id (required)",
    ]
    assert set(taken) <= set(lines)
    assert newly_required(set(lines) - set(taken), lines) == taken[:2]


if __name__ == "__main__":
    print(*interface(), sep="\n")
