"""A relay of a later version: the one at hand, with further scripts for its store."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.product import PYTHON, RELAY700

FILE, SERVER = "schema", "schema/postgresql"  # whose scripts


class Newer:
    """Runs as the relay at hand does, by links to its files."""

    def __init__(self, folder: Path, kind: str, scripts: Sequence[str]) -> None:
        """`folder` is made. The scripts are run behind those that there are, in their order."""
        asked = [PYTHON, "-P", "-c", "import relay; print(relay.__path__[0])"]
        here = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        there = folder / "relay"
        for part in ("", "store", "store/schema", "store/schema/postgresql"):
            _link_all(here / part, there / part)
        for number, script in enumerate(scripts, 900):
            (there / "store" / kind / f"{number}_later.sql").write_text(script)
        self.environment = {"PYTHONPATH": str(folder)}

    def begin(self, config: Path, *arguments: str) -> subprocess.Popen[str]:
        """A command, which is left to itself."""
        return subprocess.Popen(
            [*RELAY700, *arguments, "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=config.parent,
            env={**os.environ, **self.environment},
        )

    def migrate(self, config: Path) -> None:
        """By a command that opens the store."""
        command = self.begin(config, "pools", "list")
        _, said = command.communicate(timeout=120)
        assert command.returncode == 0, said


def _link_all(here: Path, there: Path) -> None:
    there.unlink(missing_ok=True)  # the link that its parent has got
    there.mkdir(parents=True)
    for file in here.iterdir():
        if file.name != "__pycache__":
            (there / file.name).symlink_to(file)
