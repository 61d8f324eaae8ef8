"""docs/ALIBABA.md names what the code has, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.compat import app  # noqa: F401  (its actions fill the table)
from relay.compat.actions import ACTIONS
from relay.events.alibaba import MESSAGES, report
from relay.events.webhooks import call_data
from tests.support.stored import ended_record, live_record

PAGE = Path("docs/ALIBABA.md").read_text()
SOURCES = [path.read_text() for path in Path("relay/compat").glob("*.py")]


def column(heading: str, place: int = 0) -> list[str]:
    """The cells of a column of the first table under a heading, or with this first column."""
    _, _, rest = PAGE.partition(heading)
    rows = [line for line in rest.partition("\n\n")[0].splitlines() if line.startswith("|")]
    return [row.split("|")[1 + place].strip() for row in rows if not row.startswith("|---")]


def listed(after: str) -> set[str]:
    """The names that the lines of the first list after a text begin with."""
    lines = re.search(r"(?:^- .*\n)+", PAGE.partition(after)[2], re.MULTILINE)
    assert lines
    return words([line.removeprefix("- ").partition(": ")[0] for line in lines.group().splitlines()])


def words(cells: list[str]) -> set[str]:
    return {word.strip("` ") for cell in cells for word in cell.split(",")}


def test_every_action_is_on_the_page() -> None:
    assert words(column("| action | here | differs |")) == set(ACTIONS)


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_parameter_is_on_the_page(name: str) -> None:
    asked = {field.encode_name for field in msgspec.structs.fields(ACTIONS[name].parameters)}
    assert asked <= set(re.findall(r"\w+", PAGE))


def test_every_error_is_on_the_page() -> None:
    found = {code for source in SOURCES for code in re.findall(r'"(is[vp]\.[A-Z_]+)"', source)}
    found |= {code for source in SOURCES for code in re.findall(r'GatewayError\(\s*"([\w.]+)"', source)}
    assert listed("### Errors") - {"Missing<Field>", "Invalid<Field>"} == found


def test_every_message_and_its_events_are_on_the_page() -> None:
    messages = dict(zip(column("| message | kinds of event | when |"), column("| message | kinds", 1), strict=True))
    assert {name.strip("`"): words([kinds]) for name, kinds in messages.items()} == {
        name: set(kinds) for name, kinds in MESSAGES.items()
    }


def test_every_field_of_a_push_is_on_the_page() -> None:
    other: dict[str, Any] = {"user_data": "u", "pool_id": "p", "received_at": 1}
    sent = {
        field
        for kind in (kind for kinds in MESSAGES.values() for kind in kinds)
        for record in (live_record(ended_at=1), ended_record(outcome="no_binding"))
        for field in report("c1", kind, call_data(kind.partition(".")[2], record) | other)
    }
    assert listed("queues (MNS)") == sent
