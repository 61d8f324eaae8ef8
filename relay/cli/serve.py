"""`relay700 serve`, `relay700 check` and `relay700 reload`."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.asking import ask
from relay.config import Config, default_path, load_config
from relay.config.files import check_files

RELOAD_PATIENCE_S = 60.0  # for the store, and for DNS


@click.command()
@config_option
@click.pass_context
def serve(context: click.Context, config_path: Path | None) -> None:
    """Run the relay until SIGTERM or Ctrl-C.

    The first signal drains: new calls get 503, live ones go on up to `[sip] drain_s`. A second one ends at once.
    SIGUSR1 logs statistics.
    """
    from relay.app import serve as run  # the event loop and the engine are of no use to `check`

    context.exit(run(load_config(config_path), config_path))


@click.command()
@config_option
def check(config_path: Path | None) -> None:
    """Check the configuration and report every fault at once.

    What is valid and should be thought about, such as a peer that may call in anybody's name, is a warning: the exit
    status is 0.
    """
    config = load_config(config_path)
    check_files(config)
    for warning in config.warnings:
        click.echo(f"{config.name}: warning: {warning}", err=True)
    click.echo(
        f"{config_path or default_path() or 'no config/relay.toml here; what is built in'} is good: {_summary(config)}"
    )


@click.command()
@config_option
def reload(config_path: Path | None) -> None:
    """Have the running relay go by its changed file.

    SIGHUP does the same. The relay reads the file that it was started with. If anything in it is wrong, or needs a
    restart, nothing changes. Calls that are up go on as they are.
    """
    answer = ask(load_config(config_path), "reload", patience_s=RELOAD_PATIENCE_S)
    click.echo(f"reloaded: process {answer['pid']} goes by its configuration as it is now")


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
