"""What all tests share: everything under tests/interop drives real programs and carries the mark `outside`."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

INTEROP = Path(__file__).parent / "interop"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEROP in item.path.parents:
            item.add_marker(pytest.mark.outside)


def pytest_collection_finish() -> None:
    """What is there by now is looked through by no further garbage collection: the tests make hundreds of full ones."""
    gc.collect()
    gc.freeze()
