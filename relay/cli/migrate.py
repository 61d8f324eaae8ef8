"""`relay700 migrate`: SQLite to PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import click

from relay.cli import config_option
from relay.config import load_config
from relay.store.server import Server


@click.command()
@click.argument("source", metavar="sqlite:PATH")
@click.argument("target", metavar="postgresql://…")
@config_option
def migrate(config_path: Path | None, source: str, target: str) -> None:
    """Copy a store from SQLite to PostgreSQL.

    The database must be empty, the relay stopped, and no call live. The key file stays the configured one, and the
    SQLite file is left as it is. Afterwards set `url` and `node` under [store] and start the relay.
    """
    from relay.store.migrate import migrate as move  # imported here: loads a driver that other commands do not need

    if not source.startswith("sqlite:"):
        raise click.BadParameter('write it as "sqlite:PATH"', param_hint="SOURCE")
    if not target.startswith("postgresql://"):
        raise click.BadParameter('write it as "postgresql://USER@HOST/DATABASE"', param_hint="TARGET")
    key_file = load_config(config_path).store.key_file
    server = Server(target, "", key_file.with_name("migrate"))
    moved = move(Path(source.removeprefix("sqlite:")), server, key_file)
    click.echo(
        f"{sum(moved.rows.values())} rows copied to {server}, among them {moved.records} call records, all intact"
    )
