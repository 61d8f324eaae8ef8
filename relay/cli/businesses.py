"""`relay700 business` and `keys`: business users and API keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, command_of, printed
from relay.cli.options import (
    NONE,
    Opened,
    coming,
    every,
    given,
    in_clear,
    json_option,
    limit_option,
    opened,
    or_none,
    reason_option,
    required,
    said_in_clear,
    showing_options,
    stacked,
)
from relay.cli.output import newest, show_list, show_one
from relay.model.binding import MODES
from relay.model.call import LANGUAGES
from relay.operations import businesses as operations
from relay.operations import keys as key_operations
from relay.policy.rules import NO_LIMIT
from relay.service import businesses as service
from relay.service import keys as key_service
from relay.service.businesses import SCENARIOS
from relay.service.complaints import complaint_rates
from relay.store.businesses import Business, find_business
from relay.store.keys import ApiKey, list_keys
from relay.store.writer import now_ms

_COLUMNS = ("id", "state", "name", "scenario", "live_bindings", "max_bindings", "max_calls", "max_cps")
_HISTORY_COLUMNS = ("at", "state", "by", "version", "reason", "changed")
_KEY_COLUMNS = ("id", "name", "business", "created_at", "created_by", "expires_at", "revoked_at", "scopes")
# Scopes of a key made without --scope: none that shows real numbers or makes further keys.
_USUAL = key_service.BUSINESS_SCOPES - {key_service.PARTIES, "keys", "recordings:read"}
_USUAL_OF_OPERATOR = key_service.OPERATOR_SCOPES - {key_service.PARTIES, "trace"}

CONFIGURED = "default"
_LIMIT = "N|none|default"


def _limit(text: str) -> Any:
    """A click type: a number, "none" for no limit, or "default" for the configured value."""
    if text.strip().lower() == CONFIGURED:
        return NONE
    parsed = or_none(int)(text)
    return NO_LIMIT if parsed == NONE else parsed


_details = stacked(
    click.option("--licence", metavar="TEXT", help="Number of the business licence."),
    click.option("--application", metavar="TEXT", help="Reference of the application for the pilot."),
    click.option("--contact", metavar="TEXT", help="Contact person and phone; sealed in the store."),
    click.option("--scheme", metavar="TEXT", help="Reference of the technical scheme."),
)


def _scenario(**default: Any) -> Callable[[Any], Any]:
    return click.option("--scenario", type=click.Choice(SCENARIOS), help="Purpose of the numbers.", **default)


@click.group()
def business() -> None:
    """Business users: apply, approve, suspend, revoke."""


@business.command("apply")
@click.argument("business_id", metavar="ID")
@click.option("--name", required=True, metavar="TEXT", help="Name of the company.")
@_details
@_scenario(default="other", show_default=True)
@json_option
@config_option
def apply_(config_path: Path | None, business_id: str, as_json: bool, **options: Any) -> None:
    """Enter the application of a business user. It may do nothing until it is approved."""
    with opened(config_path, make=True) as store:
        asked = service.parsed(given(options))
        _show(store.run(lambda unit: service.apply(unit, asked, business_id)), as_json=as_json)


@business.command("show")
@click.argument("business_id", metavar="ID")
@showing_options
@config_option
def show_(config_path: Path | None, business_id: str, as_json: bool, reveal: bool, reason: str) -> None:
    """Show one business user.

    `complaints` counts those of thirty days; `complaint_percent` is their rate per hundred answered calls. Phone
    numbers of its contact are masked without --reveal.
    """
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        shown = _found(store, business_id)
        if clear:
            said_in_clear(store, f"business {business_id}", reason)
        rate = complaint_rates(store.reader, shown.id, now_ms(), store.config.complaint_ppm)[0]
    complaints = {"complaints": rate.complaints, "complaint_percent": rate.percent}
    show_one(printed(operations.shown_business(shown, clear=clear)) | complaints, as_json=as_json)


def _found(store: Opened, business_id: str) -> Business:
    return required(find_business(store.reader, store.sealer, business_id), "business user", "business list")


for _step in (operations.approve, operations.suspend, operations.resume, operations.revoke):
    _name = _step.path.rsplit("/", 1)[-1]
    business.add_command(command_of(_name, Command(_step, says="business user {id} is {state}")))
_listed = Command(operations.list_all, columns=_COLUMNS, newest="created_at")
business.add_command(command_of("list", _listed))
_history = Command(operations.show_history, columns=_HISTORY_COLUMNS, listed_by="business list")
business.add_command(command_of("history", _history))


@business.command("change")
@click.argument("business_id", metavar="ID")
@click.option("--name", metavar="TEXT", help="Name of the company.")
@_details
@_scenario()
@click.option(
    "--language", type=click.Choice([*LANGUAGES, NONE]), help="Language of announcements; none: as configured."
)
@reason_option
@json_option
@config_option
def change(config_path: Path | None, business_id: str, as_json: bool, **options: Any) -> None:
    """Change the details of a business user. Options not given keep their value; "none" clears an optional one.

    Once it is approved, a change of name, licence, application, scenario or scheme needs a reason, and its new calls
    are refused until it is approved again.
    """
    _change(config_path, business_id, options, as_json=as_json)


@business.command("limits")
@click.argument("business_id", metavar="ID")
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Allowed binding mode; repeat for more.")
@click.option("--max-bindings", type=_limit, metavar=_LIMIT, help="Live bindings.")
@click.option("--max-binds-per-s", type=_limit, metavar=_LIMIT, help="Bindings made with its keys per second.")
@click.option("--max-binds-per-day", type=_limit, metavar=_LIMIT, help="Bindings made per day, China time.")
@click.option("--max-calls", type=_limit, metavar=_LIMIT, help="Concurrent calls.")
@click.option("--max-cps", type=_limit, metavar=_LIMIT, help="New calls per second.")
@click.option("--hours", type=or_none(str), metavar="HH:MM-HH:MM|none", help="Service hours, China time.")
@click.option("--white-only/--all-callers", default=None, help="Accept callers on the whitelist only, or all.")
@click.option("--live-events/--end-events", default=None, help="Send webhooks during a call, or only at its end.")
@json_option
@config_option
def limits(config_path: Path | None, business_id: str, as_json: bool, **options: Any) -> None:
    """Change the limits of a business user. Options not given keep their value.

    "none" is no limit; "default" is the value in [quotas].
    """
    _change(config_path, business_id, options, as_json=as_json)


def _change(config_path: Path | None, business_id: str, options: dict[str, Any], *, as_json: bool) -> None:
    with opened(config_path) as store:
        before = find_business(store.reader, store.sealer, business_id)
        found = given(options)
        reason = found.pop("reason", None)
        asked = service.parsed(found)
        changed = store.run(lambda unit: service.change(unit, business_id, reason=reason, **asked))
    _show(changed, as_json=as_json)
    if before is not None and before.state != changed.state:
        say(
            f"{business_id} is {changed.state} again: its new calls are refused until `relay700 business approve"
            f" {business_id} --reason …`",
            err=True,
        )


def _show(business: Business, *, as_json: bool) -> None:
    show_one(printed(operations.shown_business(business)), as_json=as_json)


@click.group()
def keys() -> None:
    """API keys: make, list, rotate, revoke."""


@keys.command("make")
@click.option("--business", metavar="ID", help="Business user that the key is for.")
@click.option("--operator", is_flag=True, help="Key for the operator's own programs, across all business users.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(sorted(key_service.OPERATOR_SCOPES)),
    help="Right of the key; repeat for more.",
)
@click.option(
    "--also",
    multiple=True,
    type=click.Choice(sorted(key_service.OPERATOR_SCOPES)),
    help="Right of the key beside those it gets without --scope; repeat for more.",
)
@click.option("--expires-in", "--expires-at", "expires_at", type=coming, metavar="TIME", help="90d, or a time.")
@click.option("--name", metavar="TEXT", help="Name of the program or person that has the key.")
@json_option
@config_option
def make(
    config_path: Path | None,
    business: str | None,
    operator: bool,
    scopes: tuple[str, ...],
    also: tuple[str, ...],
    expires_at: int | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Make a key. Its secret is shown only once.

    Without --scope it gets all scopes except those that show real numbers: parties:read and trace (tracebacks and
    evidence). A business user's key then also lacks keys (to make more keys) and recordings:read. --also adds one of
    these.
    """
    if operator == (business is not None):
        raise click.UsageError("give either --business ID or --operator")
    wanted = {*(scopes or (_USUAL_OF_OPERATOR if operator else _USUAL)), *also}
    with opened(config_path, make=True) as store:
        key, secret = store.run(lambda unit: key_service.make_key(unit, business, wanted, expires_at, name))
    _show_secret(key, secret, as_json=as_json)


@keys.command("list")
@click.option("--business", metavar="ID", help="Only keys of this business user.")
@limit_option
@json_option
@config_option
def list_keys_(config_path: Path | None, business: str | None, limit: int | None, as_json: bool) -> None:
    """List keys, expired and revoked ones included, newest first."""
    with opened(config_path) as store:
        found = every(partial(list_keys, store.reader, store.sealer, business), "", lambda key: key.id)
        show_list(newest(found, attrgetter("created_at")), _KEY_COLUMNS, as_json=as_json, limit=limit)


def _show_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    show_one(printed(key_operations.shown_secret(key, secret)), as_json=as_json)


keys.add_command(command_of("rotate", Command(key_operations.rotate_key)))
keys.add_command(command_of("revoke", Command(key_operations.revoke_key, says="revoked {id}")))
