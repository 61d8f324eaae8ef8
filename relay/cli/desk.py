"""`relay700 desk`: the process that `serve` starts beside the calls. Not for people: it needs a relay as its parent."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import config_option
from relay.config import load_config


@click.command(hidden=True)
@config_option
@click.pass_context
def desk(context: click.Context, config_path: Path | None) -> None:
    """Serve the HTTP API, deliver events and keep the timers of a relay, until its end of standard input."""
    from relay.desk import serve as run

    context.exit(run(load_config(config_path), config_path))
