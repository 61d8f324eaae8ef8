"""The lock files in requirements/ agree with pyproject.toml, from which scripts/lock makes them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
WANTED: dict[str, list[str]] = {
    "run": PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"],
    **PROJECT["project"]["optional-dependencies"],
    "compile": PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["dependencies"],
}
NAMES = tuple(WANTED)
_PIN = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def text(name: str) -> str:
    return Path(f"requirements/{name}.txt").read_text()


def pins(name: str) -> dict[str, str]:
    """Package -> version."""
    return {package: version for package, version, _ in _PIN.findall(text(name))}


def test_there_is_a_lock_file_for_runtime_each_extra_and_the_compiler() -> None:
    assert {path.name for path in Path("requirements").iterdir()} == {f"{name}.txt" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_each_lock_file_matches_pyproject(name: str) -> None:
    made_of = re.findall(r"^#   (.+)$", text(name), re.MULTILINE)
    assert made_of == WANTED[name], "run scripts/lock"


@pytest.mark.parametrize("name", NAMES)
def test_pins_are_within_the_bounds_of_pyproject(name: str) -> None:
    pinned = pins(name)
    for wanted in map(Requirement, WANTED[name]):
        assert wanted.specifier.contains(pinned[wanted.name]), f"{wanted}: run scripts/lock"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_a_pin_with_hashes_and_names_no_index(name: str) -> None:
    lines = "".join(line for line in text(name).splitlines(keepends=True) if not line.startswith("#"))
    assert _PIN.sub("", lines) == ""


def test_all_lock_files_pin_the_same_version_of_a_package() -> None:
    pinned = {pin for name in NAMES for pin in pins(name).items()}
    assert len(pinned) == len({package for package, _ in pinned})


@pytest.mark.parametrize("wanted", sorted({wanted for each in WANTED.values() for wanted in each}))
def test_every_requirement_has_an_upper_bound(wanted: str) -> None:
    assert any(specifier.operator in ("<", "==") for specifier in Requirement(wanted).specifier)
