"""`relay700 webhooks`: URLs that receive a business user's events, and their dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.options import Opened, business_option, every, json_option, limit_option, opened, required
from relay.cli.output import newest, plain, show_list, show_one
from relay.events import webhooks as service
from relay.events.webhooks import FORMATS, KINDS
from relay.service.fields import format_moment
from relay.service.hooks import PARTIES
from relay.store.webhooks import Webhook, dead_letters, find_webhook, webhooks_of

_COLUMNS = ("id", "business", "url", "parties", "format", "disabled_at", "failures", "next_at", "last_error", "kinds")
_DEAD_COLUMNS = ("seq", "event_id", "kind", "at", "dead_at", "tries", "last_error")

_kind = click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Kind of event to send; repeat for more."
)
_parties = click.option(
    "--parties",
    type=click.Choice(PARTIES),
    default="masked",
    show_default=True,
    help="Form of real numbers in its events.",
)


@click.group()
def webhooks() -> None:
    """Webhooks: URLs that receive events, and their dead letters."""


@webhooks.command("make")
@click.argument("url")
@business_option
@_kind
@_parties
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="relay700",
    show_default=True,
    help="Form of its requests; alibaba: the push of Alibaba Cloud that --kind names, SecretReport by default.",
)
@json_option
@config_option
def make(
    config_path: Path | None, url: str, business: str, kinds: tuple[str, ...], parties: str, form: str, as_json: bool
) -> None:
    """Send a business user's events to URL; without --kind all of them.

    The secret that signs them is shown only once.
    """
    with opened(config_path, make=True) as store:
        webhook, secret = store.run(lambda unit: service.make(unit, business, url, kinds or None, parties, form))
    show_one(_plain(webhook) | {"secret": secret}, as_json=as_json)


@webhooks.command("list")
@click.option("--business", metavar="ID", help="Only webhooks of this business user.")
@limit_option
@json_option
@config_option
def list_(config_path: Path | None, business: str | None, limit: int | None, as_json: bool) -> None:
    """List webhooks and the state of their deliveries, newest first."""
    with opened(config_path) as store:
        found = every(partial(webhooks_of, store.reader, store.sealer, business), "", lambda one: one.id)
        show_list(map(_plain, newest(found, attrgetter("created_at"))), _COLUMNS, as_json=as_json, limit=limit)


@webhooks.command("show")
@click.argument("webhook_id", metavar="ID")
@json_option
@config_option
def show_(config_path: Path | None, webhook_id: str, as_json: bool) -> None:
    """Show one webhook and the state of its deliveries."""
    with opened(config_path) as store:
        show_one(_plain(_found(store, webhook_id)), as_json=as_json)


@webhooks.command("change")
@click.argument("webhook_id", metavar="ID")
@click.option("--url", metavar="URL", help="New URL.")
@_kind
@click.option("--parties", type=click.Choice(PARTIES), help="Form of real numbers in its events.")
@click.option("--enabled/--disabled", "enabled", default=None, help="Send events to it, or none.")
@json_option
@config_option
def change(
    config_path: Path | None,
    webhook_id: str,
    url: str | None,
    kinds: tuple[str, ...],
    parties: str | None,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change a webhook and retry its deliveries at once. Options not given keep their value."""
    disabled = None if enabled is None else not enabled
    with opened(config_path) as store:
        changed = store.run(
            lambda unit: service.change(
                unit, webhook_id, url=url, kinds=kinds or None, parties=parties, disabled=disabled
            )
        )
    show_one(_plain(changed), as_json=as_json)


@webhooks.command("dead")
@click.argument("webhook_id", metavar="ID")
@limit_option
@json_option
@config_option
def dead_(config_path: Path | None, webhook_id: str, limit: int | None, as_json: bool) -> None:
    """List dead letters, newest first. These are events that could not be delivered."""
    with opened(config_path) as store:
        _found(store, webhook_id)
        show_list(_dead_events(store, webhook_id), _DEAD_COLUMNS, as_json=as_json, limit=limit)


def _found(store: Opened, webhook_id: str) -> Webhook:
    return required(find_webhook(store.reader, store.sealer, webhook_id), "webhook", "webhooks list")


def _dead_events(store: Opened, webhook_id: str) -> Iterator[dict[str, Any]]:
    found = every(partial(dead_letters, store.reader, store.sealer, webhook_id), 0, lambda event: event.seq)
    for event in newest(found, attrgetter("seq")):
        values = plain(event) | {"at": format_moment(event.at_ms)}
        yield {name: values[name] for name in _DEAD_COLUMNS}


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


@webhooks.command("test")
@click.argument("webhook_id", metavar="ID")
@config_option
def test(config_path: Path | None, webhook_id: str) -> None:
    """Queue an event of the kind webhook.test."""
    with opened(config_path) as store:
        event_id = store.run(lambda unit: service.test(unit, webhook_id))
    say(f"event {event_id} is to be sent")


@webhooks.command("enable")
@click.argument("webhook_id", metavar="ID")
@config_option
def enable(config_path: Path | None, webhook_id: str) -> None:
    """Enable a disabled webhook."""
    with opened(config_path) as store:
        store.run(lambda unit: service.change(unit, webhook_id, disabled=False))
    say(f"enabled {webhook_id}")


@webhooks.command("remove")
@click.argument("webhook_id", metavar="ID")
@config_option
def remove(config_path: Path | None, webhook_id: str) -> None:
    """Remove a webhook and its queued events."""
    with opened(config_path) as store:
        store.run(lambda unit: service.remove(unit, webhook_id))
    say(f"removed {webhook_id}")


def _plain(webhook: Webhook) -> dict[str, Any]:
    """A webhook as it is printed: without the secret; `next_at` is null where no retry is due."""
    values = plain(webhook)
    del values["secret"]
    return values | {"next_at": values["next_at"] if webhook.next_at else None}
