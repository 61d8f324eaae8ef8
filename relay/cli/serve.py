"""The relay process: `relay700 serve`, `check`, `reload`; `peers` and `bans`, which ask it over its admin socket.

Also `backend`, the process that `serve` starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, listed, localised, say
from relay.cli.options import Opened, audited_first, duration, json_option, limit_option, opened, reason_option
from relay.cli.output import newest, show_list
from relay.config import Config, default_path, load_config
from relay.config.files import check_files, readable_warnings
from relay.net.control import ANSWER_S, Answer, ControlClient, control_path, read_source
from relay.service.fields import format_moment

RELOAD_PATIENCE_S = 60.0  # a reload waits for the store and DNS


@click.command()
@config_option
@click.pass_context
def serve(context: click.Context, config_path: Path | None) -> None:
    """Run the relay until SIGTERM or Ctrl-C.

    The first signal drains: new calls get 503, live calls go on up to `[sip] drain_s`. A second signal ends the relay
    at once. SIGUSR1 logs statistics.
    """
    from relay.server import serve as run

    context.exit(run(load_config(config_path), config_path))


@click.command()
@config_option
def check(config_path: Path | None) -> None:
    """Check the configuration and report all faults at once.

    A valid but risky setting, such as a peer that may use any caller number, is a warning; the exit status stays 0.
    """
    config = load_config(config_path)
    check_files(config)
    file = config_path or default_path()
    for warning in (*config.warnings, *([] if file is None else readable_warnings(config, file))):
        say(f"{config.name}: warning: {warning}", err=True)
    name = config_path or default_path() or localised("no config/relay.toml; the built-in configuration")
    say(f"{name} is good: {_summary(config)}")


@click.command()
@config_option
def reload(config_path: Path | None) -> None:
    """Apply the changed configuration file to the running relay.

    SIGHUP does the same. The relay reads the file that it was started with. If the file has a fault, or a change that
    needs a restart, nothing changes. Live calls keep their settings.
    """
    answer = ask(load_config(config_path), "reload", patience_s=RELOAD_PATIENCE_S)
    say(f"reloaded: process {answer['pid']} has applied its configuration")


def _summary(config: Config) -> str:
    settings = config.settings
    listeners, peers, routes, prefixes = map(
        len, (settings.listeners, settings.peers, settings.routes, settings.prefixes)
    )
    return listed(
        [
            "1 listener" if listeners == 1 else f"{listeners} listeners",
            "1 peer" if peers == 1 else f"{peers} peers",
            "1 route" if routes == 1 else f"{routes} routes",
            "1 prefix" if prefixes == 1 else f"{prefixes} prefixes",
        ]
    )


# -- `relay700 backend`


@click.command(hidden=True)
@config_option
@click.option("--capture", "memory", type=int, metavar="DESCRIPTOR", help="Shared memory with captured messages.")
@click.option("--bells", type=(int, int), metavar="DESCRIPTOR DESCRIPTOR", help="Rung for captures, and for records.")
@click.pass_context
def backend(
    context: click.Context, config_path: Path | None, memory: int | None, bells: tuple[int, int] | None
) -> None:
    """Serve the HTTP API, deliver events and run the timers of a relay, until standard input ends."""
    from relay.backend import serve as run

    context.exit(run(load_config(config_path), config_path, memory, bells))


# -- Requests of commands to the running relay


def ask(config: Config, name: str, *, patience_s: float = ANSWER_S, **fields: object) -> Answer:
    """Return the answer of the relay that serves the configured store. Raises Refused, also when none answers."""
    return asyncio.run(ControlClient(control_path(config.store.local), patience_s).ask(name, **fields))


def ask_audited(
    store: Opened, name: str, fields: Mapping[str, Any], action: str, object_: str, reason: str, **details: object
) -> Answer:
    """Write the audit line, then send the command. Raises Refused, and StoreError if the line cannot be written.

    A dry run goes first, so that a refused command leaves no line.
    """
    ask(store.config, name, **fields, dry_run=True)
    audited_first(store, action, object_, reason, **details)
    return ask(store.config, name, **fields)


# -- `relay700 peers`

_PEER_COLUMNS = ("peer", "target", "state", "failures", "aside_until", "calls_in", "calls_out", "registered")
_NOWHERE = {"target": None, "failures": 0, "aside_until": None}


@click.group()
def peers() -> None:
    """SIP peers: trunks and PBXs."""


@peers.command("list")
@limit_option
@json_option
@config_option
def list_peers(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List the targets of each peer.

    A target is up, down or aside. Aside: it sent Retry-After or does not answer; calls try it last.
    """
    answer = ask(load_config(config_path), "peers")
    show_list(_target_lines(answer["peers"]), _PEER_COLUMNS, as_json=as_json, limit=limit)


def _target_lines(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line per target; calls and registration are those of the whole peer."""
    for peer in found:
        of_peer = {name: peer[name] for name in ("calls_in", "calls_out", "registered")}
        why_nowhere = "not registered" if peer["registered"] is False else "no address"
        for target in peer["targets"] or [_NOWHERE | {"state": why_nowhere}]:
            until = target["aside_until"]
            yield {"peer": peer["peer"], **target, "aside_until": until and format_moment(until), **of_peer}


# -- `relay700 bans`

ALL_BANS = "all"  # object of the audit line when all bans are lifted
_BAN_COLUMNS = ("address", "reason", "since", "until")


@click.group()
def bans() -> None:
    """Temporary bans of source addresses.

    The relay bans an address that floods it, guesses passwords or exceeds its limits, and reads nothing from it.
    """


@bans.command("list")
@limit_option
@json_option
@config_option
def list_bans(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List bans in force, newest first. A restart of the relay clears them."""
    answer = ask(load_config(config_path), "bans")
    show_list(map(_shown_ban, newest(answer["bans"], itemgetter("since"))), _BAN_COLUMNS, as_json=as_json, limit=limit)


@bans.command("add")
@click.argument("address")
@click.option(
    "--for", "for_ms", type=duration, required=True, metavar="DURATION", help="Length of the ban, such as 1h."
)
@reason_option
@config_option
def add_ban(config_path: Path | None, address: str, for_ms: int, reason: str) -> None:
    """Ban ADDRESS, or a network such as 2001:db8::/64. An existing ban gets the new end.

    Addresses of peers and of live calls are refused.
    """
    source, for_s = read_source(address), for_ms / 1000
    with opened(config_path) as store:
        asked = {"address": source, "for_s": for_s, "reason": reason}
        answer = ask_audited(store, "ban", asked, "ban.add", source, reason, for_s=for_s)
    say(f"banned {source} until {format_moment(answer['until'])}")


@bans.command("lift")
@click.argument("address", required=False)
@click.option("--all", "all_", is_flag=True, help="Lift all bans.")
@reason_option
@config_option
def lift_ban(config_path: Path | None, address: str | None, all_: bool, reason: str) -> None:
    """Lift the ban of ADDRESS, or all bans with --all."""
    if (address is None) is not all_:
        raise click.UsageError("give either ADDRESS or --all")
    source = None if address is None else read_source(address)
    with opened(config_path) as store:
        answer = ask_audited(store, "unban", {"address": source}, "ban.lift", source or ALL_BANS, reason)
    for each in answer["lifted"]:
        say(f"lifted {each}")


def _shown_ban(ban: dict[str, Any]) -> dict[str, Any]:
    return ban | {"since": format_moment(ban["since"]), "until": format_moment(ban["until"])}
