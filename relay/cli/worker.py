"""`relay700 worker`: a process that `serve --workers` starts. Not for people: it needs a relay as its parent."""

from __future__ import annotations

import click


@click.command(hidden=True)
@click.argument("descriptor", type=int)
@click.pass_context
def worker(context: click.Context, descriptor: int) -> None:
    """Carry calls for the relay at the other end of the inherited DESCRIPTOR."""
    from relay.worker import serve

    context.exit(serve(descriptor))
