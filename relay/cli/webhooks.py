"""`relay700 webhooks`: URLs that receive a business user's events, and their dead letters."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, command_of
from relay.cli.options import opened
from relay.events import webhooks as service
from relay.operations import webhooks as operations

_COLUMNS = (
    "id",
    "business",
    "url",
    "parties",
    "format",
    "disabled_at",
    "failures",
    "next_at",
    "last_error",
    "kinds",
)
_DEAD_COLUMNS = ("event_id", "kind", "at", "dead_at", "tries", "last_error")
_command = partial(Command, listed_by="webhooks list")


@click.group()
def webhooks() -> None:
    """Webhooks: URLs that receive events, and their dead letters."""


webhooks.add_command(command_of("make", _command(operations.make_webhook, makes=True), arguments=["url"]))
webhooks.add_command(command_of("list", _command(operations.list_webhooks, columns=_COLUMNS, newest="created_at")))
webhooks.add_command(command_of("show", _command(operations.show_webhook)))
webhooks.add_command(command_of("change", _command(operations.change_webhook)))
webhooks.add_command(
    command_of("enable", _command(operations.change_webhook, says="enabled {id}", fixed={"enabled": True}))
)
webhooks.add_command(command_of("dead", _command(operations.list_dead, columns=_DEAD_COLUMNS, newest="at_ms")))
webhooks.add_command(command_of("test", _command(operations.test_webhook, says="event {event_id} is to be sent")))
webhooks.add_command(command_of("remove", _command(operations.remove_webhook, says="removed {id}")))


@webhooks.command("resend")
@click.argument("webhook_id", metavar="ID")
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@config_option
def resend(config_path: Path | None, webhook_id: str, event_ids: tuple[str, ...]) -> None:
    """Send dead letters again, all or the given events."""
    with opened(config_path) as store:
        count = 0
        after: int | None = 0
        while after is not None:
            resent = store.run(partial(service.resend, webhook_id=webhook_id, event_ids=event_ids or None, after=after))
            count, after = count + resent.events, resent.after
    say(f"{count} to be sent again")
