"""`relay700 peers`: state and calls of the SIP peers, from the running relay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.asking import ask
from relay.cli.options import json_option, limit_option
from relay.cli.output import show_list
from relay.config import load_config
from relay.service.times import format_moment

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
