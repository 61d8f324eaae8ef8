"""The words of docs/GLOSSARY.md: none of those that they replaced comes back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPLACED = {
    "bury": "dead_letter",
    "crew": "node",
    "desk": "backend",
    "glance": "prescan",
    "mates": "node",
    "revive": "requeue",
    "spill": "overflow log",
    "steering": "node",
    "tripwire": "leak check",
    "visit": "RequestContext, context",
    "SentRequest": "ClientRequest",
}
HEADER = "p-visited-network-id"  # RFC 7315
OLD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(REPLACED)})(?:s|ed)?(?![A-Za-z])", re.IGNORECASE)
ROOTS = ("relay", "docs", "config", "scripts", "tests")
LEFT_OUT = ("tests/data/", "tests/test_words.py")  # messages of RFCs; the words themselves
TEXTS = sorted(
    path
    for path in [*Path().glob("*.md"), *(path for root in ROOTS for path in Path(root).rglob("*"))]
    if path.is_file()
    and not str(path).startswith(LEFT_OUT)
    and path.suffix in {"", ".md", ".py", ".sh", ".toml", ".service", ".cfg", ".conf"}
)


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_no_replaced_word_comes_back(path: Path) -> None:
    text = re.sub(HEADER, "", path.read_text(), flags=re.IGNORECASE)
    found = sorted({match.group().lower() for match in OLD.finditer(text)})
    assert not found, f"{path} says {found}: see docs/GLOSSARY.md"


def test_no_file_has_a_replaced_word_in_its_name() -> None:
    paths = [path for root in ROOTS for path in Path(root).rglob("*") if path.suffix != ".pyc"]
    assert [path for path in paths if OLD.search(path.name)] == []


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_no_page_outside_the_tree_is_cited(path: Path) -> None:
    assert not re.findall(r"DESIGN [0-9]", path.read_text())
