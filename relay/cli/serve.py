"""`relay700 serve`, `check` and `reload`; and `backend`, the process that `serve` starts."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.peers import ask
from relay.config import Config, default_path, load_config
from relay.config.files import check_files

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
    for warning in config.warnings:
        click.echo(f"{config.name}: warning: {warning}", err=True)
    click.echo(
        f"{config_path or default_path() or 'no config/relay.toml; the built-in configuration'} is good:"
        f" {_summary(config)}"
    )


@click.command()
@config_option
def reload(config_path: Path | None) -> None:
    """Apply the changed configuration file to the running relay.

    SIGHUP does the same. The relay reads the file that it was started with. If the file has a fault, or a change that
    needs a restart, nothing changes. Live calls keep their settings.
    """
    answer = ask(load_config(config_path), "reload", patience_s=RELOAD_PATIENCE_S)
    click.echo(f"reloaded: process {answer['pid']} has applied its configuration")


def _summary(config: Config) -> str:
    settings = config.settings
    parts = {
        "listener": len(settings.listeners),
        "peer": len(settings.peers),
        "route": len(settings.routes),
        "prefix": len(settings.prefixes),
    }
    return ", ".join(
        f"{count} {name}{'es' * (name == 'prefix') or 's' if count != 1 else ''}" for name, count in parts.items()
    )


# -- `relay700 backend`


@click.command(hidden=True)
@config_option
@click.pass_context
def backend(context: click.Context, config_path: Path | None) -> None:
    """Serve the HTTP API, deliver events and run the timers of a relay, until standard input ends."""
    from relay.backend import serve as run

    context.exit(run(load_config(config_path), config_path))
