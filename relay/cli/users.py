"""`relay700 users`: people who log in to the console."""

from __future__ import annotations

import click

from relay.cli.operations import Command, command_of
from relay.operations import users as operations

_COLUMNS = ("name", "role", "business", "must_change", "disabled_at", "locked_until", "created_at", "created_by")


@click.group()
def users() -> None:
    """People who log in to the console."""


for made in (
    command_of("add", Command(operations.add_user, makes=True), arguments=["name"]),
    command_of("list", Command(operations.list_all_users, columns=_COLUMNS, newest="created_at")),
    command_of("disable", Command(operations.disable_user, says="disabled {name}", listed_by="users list")),
    command_of("reset", Command(operations.reset_user, listed_by="users list")),
    command_of(
        "role",
        Command(operations.set_role, says="{name} has the role {role}", listed_by="users list"),
        arguments=["role"],
    ),
):
    users.add_command(made)
