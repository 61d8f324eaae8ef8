"""A relay of a later version: the current one, with further schema scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.product import PYTHON, RELAY700

FILE, SERVER = "schema", "schema/postgresql"  # folders of schema scripts


class Newer:
    """Runs the current relay by links to its files."""

    def __init__(self, folder: Path, kind: str, scripts: Sequence[str]) -> None:
        """Creates `folder`. The scripts run after the existing ones, in order."""
        asked = [PYTHON, "-P", "-c", "import relay; print(relay.__path__[0])"]
        here = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        there = folder / "relay"
        for part in ("", "store", "store/schema", "store/schema/postgresql"):
            _link_all(here / part, there / part)
        for number, script in enumerate(scripts, 900):
            (there / "store" / kind / f"{number}_later.sql").write_text(script)
        self.environment = {"PYTHONPATH": str(folder)}

    def begin(self, config: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            [*RELAY700, *arguments, "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=config.parent,
            env={**os.environ, **self.environment},
        )

    def migrate(self, config: Path) -> None:
        """Upgrade the store by a command that opens it."""
        command = self.begin(config, "pools", "list")
        _, said = command.communicate(timeout=120)
        assert command.returncode == 0, said


def _link_all(here: Path, there: Path) -> None:
    there.unlink(missing_ok=True)  # the link to the current relay's file
    there.mkdir(parents=True)
    for file in here.iterdir():
        if file.name != "__pycache__":
            (there / file.name).symlink_to(file)
