"""The interface that docs/RELEASES.md promises: nothing of tests/interface.txt is missing today.

What is new comes into the file with a release: `python -m tests.test_interface > tests/interface.txt`. Before 1.0.0,
what was taken away on purpose leaves the file in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from relay import metrics
from relay.api.app import openapi_document
from relay.cli import main
from relay.config.tables import Tables
from relay.privacy.records import FIELDS
from tests.config.test_tables import msgspec_struct

PROMISED = Path("tests/interface.txt")
DOCUMENT: dict[str, Any] = json.loads(openapi_document())


def settings() -> Iterator[str]:
    """Each key with its default: another default is another behaviour."""
    for table in msgspec.structs.fields(Tables):
        for key in msgspec.structs.fields(msgspec_struct(table.type)):
            default = key.default if isinstance(key.default, str | int | float | tuple) else None
            yield f"setting [{table.name}] {key.name}" + (" (required)" if key.required else f" = {default!r}")


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
    for name, schema in DOCUMENT["components"]["schemas"].items():
        yield from (f"value {name} {value}" for value in schema.get("enum", ()))
        for field in schema.get("properties", ()):
            yield f"field {name} {field}" + (" (required)" if field in schema.get("required", ()) else "")


def records() -> Iterator[str]:
    yield from (f"record {field}" for field in FIELDS)


def figures() -> Iterator[str]:
    yield from (f"metric relay700_{name}" for table in (metrics._GAUGES, metrics._COUNTERS) for name in table)
    for table in (metrics._LABELLED, metrics._LABELLED_GAUGES, metrics._HISTOGRAMS):
        yield from (f"metric relay700_{name} by {', '.join(labels)}" for name, (labels, _) in table.items())


def interface() -> list[str]:
    parts = (settings(), commands(), operations(), schemas(), records(), figures())
    return sorted({line for part in parts for line in part})


def test_nothing_that_is_promised_is_missing() -> None:
    missing = sorted(set(PROMISED.read_text().splitlines()) - set(interface()))
    assert not missing, f"docs/RELEASES.md promises these: {missing}"


if __name__ == "__main__":
    print(*interface(), sep="\n")
