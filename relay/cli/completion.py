"""`relay700 completion`: shell completion of commands, options and values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    relay700 completion bash > /etc/bash_completion.d/relay700
    relay700 completion zsh > "${fpath[1]}/_relay700"
    relay700 completion fish > ~/.config/fish/completions/relay700.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "relay700", "_RELAY700_COMPLETE").source())
