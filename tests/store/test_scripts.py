"""What the scripts of a store may do, and that all statements bear what a later version adds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# A statement that gives values without saying of which columns.
_UNNAMED = re.compile(r"INSERT (?:OR \w+ )?INTO\s+[\w{.}]+\s+(?:AS \w+\s+)?(?:VALUES|SELECT)|SELECT \*(?! FROM unnest)")


def test_every_statement_names_its_columns() -> None:
    """A table may have one more by then, which the relay that goes on does not know."""
    for file in Path("relay").rglob("*.py"):
        found = _UNNAMED.search(file.read_text())
        assert not found, f"{file}: {found[0] if found else ''}"


@pytest.mark.parametrize(
    "statement",
    [
        'f"INSERT INTO {chain.head_table} VALUES (1, ?1)"',
        "INSERT OR REPLACE INTO last_caller VALUES",
        "\nINSERT INTO audit\nSELECT ?",
        "SELECT * FROM binding",
    ],
)
def test_one_that_does_not_is_found(statement: str) -> None:
    assert _UNNAMED.search(statement)
