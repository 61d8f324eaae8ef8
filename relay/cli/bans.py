"""`relay700 bans`: which addresses the running relay does not hear, and changing that."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.asking import ask, ask_audited
from relay.cli.options import json_option, limit_option, reason_option
from relay.cli.output import newest, show_list
from relay.cli.stores import duration, opened
from relay.config import load_config
from relay.net.bans import read_source
from relay.service.times import format_moment

ALL = "all"  # what the audit log calls them together
_COLUMNS = ("address", "reason", "since", "until")


@click.group()
def bans() -> None:
    """Addresses that the relay does not hear for a while.

    They flooded the relay, guessed passwords or broke its bounds.
    """


@bans.command("list")
@limit_option
@json_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List the bans in force, the newest first. They end with the relay."""
    answer = ask(load_config(config_path), "bans")
    show_list(map(_shown, newest(answer["bans"], itemgetter("since"))), _COLUMNS, as_json=as_json, limit=limit)


@bans.command("add")
@click.argument("address")
@click.option("--for", "for_ms", type=duration, required=True, metavar="DURATION", help="For how long, such as 1h.")
@reason_option
@config_option
def add(config_path: Path | None, address: str, for_ms: int, reason: str) -> None:
    """Ban ADDRESS, or a network such as 2001:db8::/64. A ban that is there already ends then, too.

    An address of a peer, or of a call that is up, is refused.
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
    """Lift the ban on ADDRESS."""
    if (address is None) is not all_:
        raise click.UsageError("name one address, or --all")
    source = None if address is None else read_source(address)
    with opened(config_path) as store:
        answer = ask_audited(store, "unban", {"address": source}, "ban.lift", source or ALL, reason)
    for each in answer["lifted"]:
        click.echo(f"lifted {each}")


def _shown(ban: dict[str, Any]) -> dict[str, Any]:
    return ban | {"since": format_moment(ban["since"]), "until": format_moment(ban["until"])}
