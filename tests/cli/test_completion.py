"""`relay700 completion`, and what its script asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.cli.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_that_asks_relay700(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_RELAY700_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [("relay700 bus", {"business"}), ("relay700 business app", {"apply", "approve"}), ("relay700 des", set())],
)
def test_words_are_completed(words: str, found: set[str]) -> None:
    asked = {"_RELAY700_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from relay.cli import main; main(prog_name='relay700')"],
        env=os.environ | asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.split()} == found
