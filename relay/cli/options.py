"""The options that many commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from relay.cli.stores import coming

NONE = "none"  # on the command line: no limit, no hours

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, real numbers in clear.")
reveal_option = click.option("--reveal", is_flag=True, help="Show real numbers in full.")
business_option = click.option("--business", default="default", metavar="ID", help="The business user; `default` else.")
needed_reason = click.option(
    "--reason", required=True, envvar="RELAY700_REASON", metavar="TEXT", help="What for; it stands in the audit log."
)
reason_option = click.option(
    "--reason", default="", envvar="RELAY700_REASON", metavar="TEXT", help="What for; it stands in the audit log."
)
expiry_option = click.option(
    "--expires-in",
    "--expires-at",
    "expires_at",
    type=coming,
    metavar="TIME",
    help="90s, 30m, 2h, 7d, or a time as 2026-01-31T08:00:00Z. Without it: until it is ended.",
)


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A click type: what `parse` takes, or "none", which comes out as NONE."""

    def read(text: str) -> Any:
        try:
            return NONE if text.strip().lower() == NONE else parse(text)
        except ValueError:
            raise click.BadParameter(f'not a whole number: write one, or "{NONE}" for no limit') from None

    return read


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; NONE becomes None."""
    return {name: None if value == NONE else value for name, value in options.items() if value not in (None, ())}
