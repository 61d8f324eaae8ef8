"""The manual page of the package: every command and option, in roff without faults."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from relay.cli import main
from tests.support.product import PYTHON

pytestmark = pytest.mark.outside

SCRIPT = Path(__file__).parents[2] / "scripts" / "dist.d" / "manual.py"


@pytest.fixture(scope="module")
def page() -> str:
    command = [PYTHON, SCRIPT, "1.0", "1580601600"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def options(command: click.Command, path: tuple[str, ...], parent: click.Context | None) -> list[tuple[str, ...]]:
    """The path of each command with those of its options that the help shows."""
    context = click.Context(command, parent=parent, info_name=path[-1])
    if isinstance(command, click.Group):
        names = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        return [
            found for name, each in names if each and not each.hidden for found in options(each, (*path, name), context)
        ]
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return [(" ".join(path), *(name for option in shown for name in option.opts))]


def test_each_command_and_option_is_in_it(page: str) -> None:
    sections = {part.partition('"')[0]: part for part in page.replace("\\-", "-").split('\n.SS "')[1:]}
    commands = options(main, ("relay700",), None)
    assert sections.keys() == {path for path, *_ in commands} and len(sections) > 80
    for path, *names in commands:
        assert [name for name in names if name not in sections[path]] == [], path


def test_it_is_in_english_and_of_the_given_date_whatever_the_locale(page: str) -> None:
    command = ["env", "LC_ALL=zh_CN.UTF-8", PYTHON, SCRIPT, "1.0", "1580601600"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == page
    assert page.startswith('.TH RELAY700 1 "2020-02-02" "relay700 1.0"')


def test_roff_finds_no_fault(page: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-wall", "-z"], input=page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
