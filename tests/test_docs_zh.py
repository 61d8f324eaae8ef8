"""Each Chinese page has the headings, code, tables and links of its English pair."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

PAIRS = {
    Path("README.md"): Path("README.zh-CN.md"),
}
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]*)#?([^)]*)\)")

pytestmark = pytest.mark.parametrize(("english", "chinese"), PAIRS.items(), ids=[str(page) for page in PAIRS])


def text(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> list[str]:
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for _, heading in _HEADING.findall(text(page))]


def sections(page: Path) -> list[str]:
    return re.split(r"^#+ .+$", text(page), flags=re.MULTILINE)


def rows(page: Path) -> list[list[set[str]]]:
    """The lines of all tables: the code in each column."""
    lines = re.findall(r"^\|(.*)\|$", text(page), re.MULTILINE)
    return [[set(_CODE.findall(cell)) for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def links(page: Path) -> list[tuple[str, int]]:
    """What a page links to, as (English page or other target, which heading of it), sorted."""
    found = []
    for target, anchor in _LINK.findall(text(page)):
        path = Path(os.path.normpath(page.parent / target)) if target else page
        place = anchors(path).index(anchor) if anchor and "://" not in target else -1
        found.append((target if "://" in target else str(path), place))
    return found


def test_headings_are_the_same(english: Path, chinese: Path) -> None:
    levels = [[len(level) for level, _ in _HEADING.findall(text(page))] for page in (english, chinese)]
    assert levels[0] == levels[1]


def test_code_blocks_are_the_same(english: Path, chinese: Path) -> None:
    assert [block[0] for block in _FENCE.finditer(english.read_text())] == [
        block[0] for block in _FENCE.finditer(chinese.read_text())
    ]


def test_tables_are_the_same(english: Path, chinese: Path) -> None:
    for number, (row, translated) in enumerate(zip(rows(english), rows(chinese), strict=True), 1):
        assert row == translated, f"line {number} of the tables"


def test_sections_name_the_same_code(english: Path, chinese: Path) -> None:
    """A setting, command or field added to one page is missed in the other."""
    headings = ["", *(heading for _, heading in _HEADING.findall(text(english)))]
    for heading, section, translated in zip(headings, sections(english), sections(chinese), strict=True):
        assert set(_CODE.findall(section)) == set(_CODE.findall(translated)), heading


def test_links_lead_to_the_same_places_in_the_pages_language(english: Path, chinese: Path) -> None:
    own = {str(page): str(pair) for page, pair in PAIRS.items()}
    there = sorted(link for link in links(english) if link[0] != str(chinese))
    here = sorted(link for link in links(chinese) if link[0] != str(english))
    assert sorted((own.get(path, path), place) for path, place in there) == here


def test_each_page_begins_with_a_link_to_its_pair(english: Path, chinese: Path) -> None:
    assert english.read_text().splitlines()[2] == f"[中文]({os.path.relpath(chinese, english.parent)})"
    assert chinese.read_text().splitlines()[2] == f"[English]({os.path.relpath(english, chinese.parent)})"
