"""`relay700 completion`, and completion by its script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.cli.options import SHELLS
from tests.support.product import PYTHON


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_calls_relay700(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_RELAY700_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("relay700 bus", {"business"}),
        ("relay700 business app", {"apply", "approve"}),
        ("relay700 trace", {"traceback"}),
        ("relay700 des", set()),
    ],
)
def test_commands_are_completed(words: str, found: set[str]) -> None:
    asked = {"_RELAY700_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from relay.cli import main; main(prog_name='relay700')"],
        env=os.environ | asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.split()} == found


LOADED = {
    # Commands by which each shell loads the script in the file $1 and completes `relay700 bus`.
    "bash": 'source "$1"; COMP_WORDS=(relay700 bus) COMP_CWORD=1; _relay700_completion relay700; echo $COMPREPLY',
    "zsh": 'autoload -Uz compinit && compinit -u -D && source "$1" && print -r -- ${_comps[relay700]}',
    "fish": 'source $argv[1]; complete -C "relay700 bus"',
}
ANSWERS = {"bash": "business", "zsh": "_relay700_completion", "fish": "business"}


@pytest.mark.outside
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_with_its_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    assert program, f"{shell} is not installed: scripts/test does it"
    script = tmp_path / "completion"
    script.write_text(CliRunner().invoke(main, ["completion", shell]).stdout)
    path = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
    interactive = ["-f", "-i"] if shell == "zsh" else []
    name = [] if shell == "fish" else ["-"]
    done = subprocess.run(
        [program, *interactive, "-c", LOADED[shell], *name, str(script)],
        env=os.environ | {"PATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == ANSWERS[shell], done.stderr
