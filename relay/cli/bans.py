"""`relay700 bans`: temporary bans of source addresses."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.options import json_option, limit_option, reason_option
from relay.cli.output import newest, show_list
from relay.cli.peers import ask, ask_audited
from relay.cli.stores import duration, opened
from relay.config import load_config
from relay.net.control import read_source
from relay.service.fields import format_moment

ALL = "all"  # object of the audit line when all bans are lifted
_COLUMNS = ("address", "reason", "since", "until")


@click.group()
def bans() -> None:
    """Temporary bans of source addresses.

    The relay bans an address that floods it, guesses passwords or exceeds its limits, and reads nothing from it.
    """


@bans.command("list")
@limit_option
@json_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List bans in force, newest first. A restart of the relay clears them."""
    answer = ask(load_config(config_path), "bans")
    show_list(map(_shown, newest(answer["bans"], itemgetter("since"))), _COLUMNS, as_json=as_json, limit=limit)


@bans.command("add")
@click.argument("address")
@click.option(
    "--for", "for_ms", type=duration, required=True, metavar="DURATION", help="Length of the ban, such as 1h."
)
@reason_option
@config_option
def add(config_path: Path | None, address: str, for_ms: int, reason: str) -> None:
    """Ban ADDRESS, or a network such as 2001:db8::/64. An existing ban gets the new end.

    Addresses of peers and of live calls are refused.
    """
    source, for_s = read_source(address), for_ms / 1000
    with opened(config_path) as store:
        asked = {"address": source, "for_s": for_s}
        answer = ask_audited(store, "ban", asked, "ban.add", source, reason, for_s=for_s)
    click.echo(f"banned {source} until {format_moment(answer['until'])}")


@bans.command("lift")
@click.argument("address", required=False)
@click.option("--all", "all_", is_flag=True, help="Lift all bans.")
@reason_option
@config_option
def lift(config_path: Path | None, address: str | None, all_: bool, reason: str) -> None:
    """Lift the ban of ADDRESS, or all bans with --all."""
    if (address is None) is not all_:
        raise click.UsageError("give either ADDRESS or --all")
    source = None if address is None else read_source(address)
    with opened(config_path) as store:
        answer = ask_audited(store, "unban", {"address": source}, "ban.lift", source or ALL, reason)
    for each in answer["lifted"]:
        click.echo(f"lifted {each}")


def _shown(ban: dict[str, Any]) -> dict[str, Any]:
    return ban | {"since": format_moment(ban["since"]), "until": format_moment(ban["until"])}
