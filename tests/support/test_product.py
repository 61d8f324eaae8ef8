from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.product import RELAY700

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("named", "chosen"), [("/product/python", "/product/python"), (None, sys.executable)])
def test_the_relay_runs_on_the_named_python_else_on_that_of_the_tests(named: str | None, chosen: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RELAY700_PYTHON"}
    if named:
        environment["RELAY700_PYTHON"] = named
    ask = [sys.executable, "-c", "from tests.support.product import RELAY700; print(RELAY700[0])"]
    done = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert done.stdout == f"{chosen}\n"


def test_a_relay_package_in_the_working_directory_is_not_used(tmp_path: Path) -> None:
    other = tmp_path / "relay"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "__main__.py").write_text("print('another relay')\n")
    done = subprocess.run([*RELAY700, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("relay700 ")
