"""Options shared by several commands, and the command `completion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import get_completion_class

from relay.service.fields import says_something

NONE = "none"  # on the command line: clears a limit or hours
SINCE = "From this time on: 2026-01-31T08:00:00Z, or 2h (ago)."
UNTIL = "Before this time, in the same form."

REASON = "RELAY700_REASON"
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
reveal_option = click.option("--reveal", is_flag=True, help="Show real numbers in full; needs --reason.")
business_option = click.option("--business", default="default", metavar="ID", show_default=True, help="Business user.")


def _said(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    if not says_something(reason):
        raise click.BadParameter("it is empty: the audit log needs a reason", context, parameter)
    return reason


needed_reason = click.option(
    "--reason", required=True, envvar=REASON, callback=_said, metavar="TEXT", help="Reason, for the audit log."
)
reason_option = click.option("--reason", default="", envvar=REASON, metavar="TEXT", help="Reason, for the audit log.")


def stacked(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several; --help lists the options in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A click type: what `parse` accepts, or "none" for NONE."""

    def read(text: str) -> Any:
        try:
            return NONE if text.strip().lower() == NONE else parse(text)
        except ValueError:
            raise click.BadParameter(f'not a whole number: write one, or "{NONE}" for no limit') from None

    return read


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; NONE becomes None."""
    return {name: None if value == NONE else value for name, value in options.items() if value not in (None, ())}


limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Maximum number of rows. Default: 50 on a terminal, else all."
)
showing_options = stacked(
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line; numbers in clear with --reason."),
    reveal_option,
    reason_option,
)

shown_object_options = stacked(  # for an object just made or changed
    click.option("--json", "as_json", is_flag=True, help="One JSON object; numbers in clear with --reason."),
    reason_option,
)


def in_clear(*, reveal: bool, reason: str, as_json: bool = False) -> bool:
    """Return whether real numbers are shown: with --reveal or --json, and only with a reason. Raises UsageError."""
    has_reason = says_something(reason)
    if reveal and not has_reason:
        raise click.UsageError(f"Missing option '--reason': --reveal needs one (the variable {REASON} sets it, too).")
    return reveal or (as_json and has_reason)


# -- `relay700 completion`

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    relay700 completion bash > /etc/bash_completion.d/relay700
    relay700 completion zsh > "${fpath[1]}/_relay700"
    relay700 completion fish > ~/.config/fish/completions/relay700.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "relay700", "_RELAY700_COMPLETE").source())
