"""`relay700 backend`: the backend process, started by `serve`. Internal: it needs a relay as its parent."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import config_option
from relay.config import load_config


@click.command(hidden=True)
@config_option
@click.pass_context
def backend(context: click.Context, config_path: Path | None) -> None:
    """Serve the HTTP API, deliver events and run the timers of a relay, until standard input ends."""
    from relay.backend import serve as run

    context.exit(run(load_config(config_path), config_path))
