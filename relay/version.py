"""The version of relay700: that of the installed package, else of the source tree that runs without one."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).parents[1] / "pyproject.toml"


def _version() -> str:
    try:
        return version("relay700")
    except PackageNotFoundError:  # `python -m relay` in a source tree that was not installed
        return _of_the_tree()


def _of_the_tree() -> str:
    try:
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):  # relay/ alone was copied
        return "unknown"
    return str(project["version"])


VERSION: Final = _version()
