"""The options that many commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from relay.service.fields import says_something

NONE = "none"  # on the command line: no limit, no hours

REASON = "RELAY700_REASON"
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
reveal_option = click.option("--reveal", is_flag=True, help="Show real numbers in full; takes a reason.")
business_option = click.option(
    "--business", default="default", metavar="ID", help="The business user; if not given, `default`."
)


def _said(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    if not says_something(reason):
        raise click.BadParameter("it is empty: say what for, the audit log keeps it", context, parameter)
    return reason


needed_reason = click.option(
    "--reason", required=True, envvar=REASON, callback=_said, metavar="TEXT", help="Why; the audit log keeps it."
)
reason_option = click.option("--reason", default="", envvar=REASON, metavar="TEXT", help="Why; the audit log keeps it.")


def stacked(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several, which stand in this order in --help."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


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


limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="The first so many; if not given, 50 on a terminal, else all."
)
showing_options = stacked(
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line; with a reason numbers are in clear."),
    reveal_option,
    reason_option,
)

shown_object_options = stacked(  # of what was just made or changed
    click.option("--json", "as_json", is_flag=True, help="One JSON object; with a reason numbers are in clear."),
    reason_option,
)


def in_clear(*, reveal: bool, reason: str, as_json: bool = False) -> bool:
    """Whether real numbers are shown: with --reveal, and to programs. Nobody sees one without saying what for."""
    is_said = says_something(reason)
    if reveal and not is_said:
        raise click.UsageError(
            f"Missing option '--reason': --reveal shows real numbers; say what for ({REASON} does, too)."
        )
    return reveal or (as_json and is_said)
