"""The command `peers`; and requests of commands to the running relay, over its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.options import json_option, limit_option
from relay.cli.output import show_list
from relay.cli.stores import Opened, audited_first
from relay.config import Config, load_config
from relay.net.control import ANSWER_S, Answer, ControlClient, control_path
from relay.service.fields import format_moment


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

_COLUMNS = ("peer", "target", "state", "failures", "aside_until", "calls_in", "calls_out", "registered")
_NOWHERE = {"target": None, "failures": 0, "aside_until": None}


@click.group()
def peers() -> None:
    """SIP peers: trunks and PBXs."""


@peers.command("list")
@limit_option
@json_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List the targets of each peer.

    A target is up, down or aside. Aside: it sent Retry-After or does not answer; calls try it last.
    """
    answer = ask(load_config(config_path), "peers")
    show_list(_lines(answer["peers"]), _COLUMNS, as_json=as_json, limit=limit)


def _lines(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line per target; calls and registration are those of the whole peer."""
    for peer in found:
        of_peer = {name: peer[name] for name in ("calls_in", "calls_out", "registered")}
        why_nowhere = "not registered" if peer["registered"] is False else "no address"
        for target in peer["targets"] or [_NOWHERE | {"state": why_nowhere}]:
            until = target["aside_until"]
            yield {"peer": peer["peer"], **target, "aside_until": until and format_moment(until), **of_peer}
