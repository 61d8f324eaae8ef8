"""`relay700 hooks`: endpoints of business users that decide about their calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.options import business_option, json_option, opened
from relay.cli.output import plain, show_one
from relay.service import hooks as service
from relay.service.hooks import PARTIES
from relay.store.hooks import Hook, find_hook


@click.group()
def hooks() -> None:
    """Hooks: endpoints that decide about calls.

    A business user has one for its own calls. They are allowed by [hooks] in the configuration.
    """


@hooks.command("set")
@click.argument("url", required=False)
@business_option
@click.option("--parties", type=click.Choice(PARTIES), help="Form of the caller in questions; masked unless set.")
@click.option("--unknown/--no-unknown", "unknown", default=None, help="Ask about callers without a binding, too.")
@click.option("--enabled/--disabled", "enabled", default=None, help="Ask it, or let the bindings alone decide.")
@json_option
@config_option
def set_(
    config_path: Path | None,
    url: str | None,
    business: str,
    parties: str | None,
    unknown: bool | None,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Ask URL about the calls of a business user. What is not given keeps its value.

    The secret of a new hook, which signs questions and answers, is shown only once.
    """
    with opened(config_path, make=True) as store:
        rules = store.config.numbers
        hook, secret = store.run(
            lambda unit: service.set_hook(
                unit, business, rules, url=url, parties=parties, unknown_callers=unknown, enabled=enabled
            )
        )
    show_one(_plain(hook) | ({} if secret is None else {"secret": secret}), as_json=as_json)


@hooks.command("show")
@business_option
@json_option
@config_option
def show_(config_path: Path | None, business: str, as_json: bool) -> None:
    """Show the hook of a business user."""
    with opened(config_path) as store:
        hook = find_hook(store.reader, store.sealer, business)
        if hook is None:
            raise service.no_hook()
        show_one(_plain(hook), as_json=as_json)


@hooks.command("remove")
@business_option
@config_option
def remove(config_path: Path | None, business: str) -> None:
    """Remove the hook of a business user. From the next call on the bindings alone decide."""
    with opened(config_path) as store:
        store.run(lambda unit: service.drop_hook(unit, business))
    say(f"removed the hook of {business}")


def _plain(hook: Hook) -> dict[str, Any]:
    """A hook as it is printed: without the secret."""
    values = plain(hook)
    del values["secret"]
    return values
