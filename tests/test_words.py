"""The words of docs/GLOSSARY.md: none of those that they replaced comes back."""

from __future__ import annotations

import re
from pathlib import Path

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
HEADER = re.compile("p-visited-network-id", re.IGNORECASE)  # RFC 7315
OLD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(REPLACED)})(?:s|ed)?(?![A-Za-z])", re.IGNORECASE)
ROOTS = ("relay", "docs", "config", "scripts", "tests")
LEFT_OUT = ("tests/data/", "tests/test_words.py")  # messages of RFCs; the words themselves
TEXTS = [
    path
    for path in [*Path().glob("*.md"), *(path for root in ROOTS for path in Path(root).rglob("*"))]
    if path.is_file()
    and not str(path).startswith(LEFT_OUT)
    and path.suffix in {"", ".md", ".py", ".sh", ".toml", ".service", ".cfg", ".conf"}
]


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Each match in the texts, with file and line."""
    return [
        f"{path}:{number}: {match.group()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for match in pattern.finditer(HEADER.sub("", line))
    ]


def test_no_replaced_word_comes_back() -> None:
    assert matches(OLD) == [], "see docs/GLOSSARY.md"


def test_no_file_has_a_replaced_word_in_its_name() -> None:
    paths = [path for root in ROOTS for path in Path(root).rglob("*") if path.suffix != ".pyc"]
    assert [path for path in paths if OLD.search(path.name)] == []


def test_no_page_outside_the_tree_is_cited() -> None:
    assert matches(re.compile(r"DESIGN [0-9]")) == []
