"""`relay700 hooks`: endpoints of business users that decide about their calls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.operations import Command, command_of, printed
from relay.cli.options import business_option, json_option, opened
from relay.cli.output import show_one
from relay.operations import hooks as operations
from relay.service import hooks as service
from relay.service.hooks import PARTIES


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
    shown = printed(operations.shown_hook(hook)) | ({} if secret is None else {"secret": secret})
    show_one(shown, as_json=as_json)


_command = partial(Command, options=("business_id",))
hooks.add_command(command_of("show", _command(operations.show_hook)))
hooks.add_command(command_of("remove", _command(operations.remove_hook, says="removed the hook of {business}")))
