"""Imports point one way, the pure core reads no clock, random source or socket, and each module has its tests."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

from tests.conftest import COMPILED

IMPURE = {"asyncio", "logging", "os", "random", "secrets", "socket", "sqlite3", "structlog", "time"}
PURE = ("model", "sip", "privacy", "defence", "peers", "call", "policy")
FOLDERS = sorted(path for path in Path("relay").rglob("__init__.py") if path.parts[1] != "sounds")
CORE = sorted(path for room in PURE for path in Path("relay", room).rglob("*.py"))


def test_imports_point_one_way() -> None:
    """In a separate process: lint-imports silences all loggers."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_core_is_pure() -> None:
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not {name.partition(".")[0] for name in names} & IMPURE, f"{path}:{getattr(node, 'lineno', 0)}"


def test_a_folder_says_in_five_lines_what_belongs_there() -> None:
    for path in FOLDERS:
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
        assert 3 <= len(said) <= 5, f"{path}: a first line; an empty one; what belongs there, and what must not"


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Imports for type checking included; `lint-imports` sees only those between rooms."""
    counts = runpy.run_path("scripts/counts")
    modules = {counts["module_of"](path): path.read_text() for path in Path("relay").rglob("*.py")}
    graph = {name: counts["imported"](text, modules) - {name, "relay"} for name, text in modules.items()}
    assert counts["circles"](graph) == []


def test_each_module_has_a_test_file_of_its_name() -> None:
    """So that who changes a module knows which tests to read and to run."""
    untested = runpy.run_path("scripts/counts")["untested"]
    assert untested(Path(), sorted(Path("relay").rglob("*.py"))) == []


def test_ci_runs_the_rooms_that_are_marked_compiled_on_the_compiled_code() -> None:
    """What is drawn in the others runs beside them; in a room that only one of the two lists had, nowhere or twice."""
    (rooms,) = re.findall(r"^compiled=\(tests/\{(.+?)\}\)", Path(".ci/run").read_text(), re.MULTILINE)
    assert rooms.split(",") == COMPILED
