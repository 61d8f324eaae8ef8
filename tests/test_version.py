"""A source tree that was never installed runs as `python -m relay`, and knows its version."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.addresses import RELAY, free
from tests.support.product import PYTHON
from tests.support.relay_process import RelayProcess, Setup

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FOLDER_OF_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
WITHOUT_SITE = (PYTHON, "-S", "-m", "relay")  # -S: no installed package is seen, but those of PYTHONPATH


@pytest.fixture
def path(tmp_path: Path) -> str:
    """PYTHONPATH of a copy of the source, and of what it needs."""
    found = subprocess.run([PYTHON, "-c", FOLDER_OF_PACKAGES], capture_output=True, text=True, check=True)
    needed = tmp_path / "needed"
    needed.mkdir()
    for each in Path(found.stdout.strip()).iterdir():
        if not each.name.startswith(("relay", "_relay")):
            (needed / each.name).symlink_to(each)
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "relay", tree / "relay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return f"{tree}:{needed}"


def version(path: str) -> str:
    environment = {"PYTHONPATH": path}
    done = subprocess.run(
        [*WITHOUT_SITE, "--version"], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_version_is_that_of_the_tree(path: str, tmp_path: Path) -> None:
    assert version(path) == f"relay700 {VERSION}"
    (tmp_path / "tree" / "pyproject.toml").unlink()
    assert version(path) == "relay700 unknown"


@pytest.mark.outside
def test_a_tree_that_was_not_installed_serves(path: str, tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY), environment={"PYTHONPATH": path}))
    relay.program = WITHOUT_SITE
    relay.start()
    relay.wait_for_event("api.listening")
    relay.stop_and_check()
