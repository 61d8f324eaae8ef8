"""Each Chinese page has the headings, code, tables and links of its English pair."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

OF_DOCS = {Path("docs", page.name): page for page in sorted(Path("docs/zh").glob("*.md"))}
MADE = {Path("docs/reference/commands.md"): Path("docs/zh/reference/commands.md")}  # by scripts/reference
PAIRS = {
    Path("README.md"): Path("README.zh-CN.md"),
    Path("SECURITY.md"): OF_DOCS.pop(Path("docs/SECURITY.md")),
    **OF_DOCS,
}
REPLACED = (
    "企业用户 未备案 运营商备案 通话记录 遮蔽 运营方 操作员 运营人员".split()
)  # by the words of docs/zh/GLOSSARY.md
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)#]*)#?([^)]*)\)")

each_pair = pytest.mark.parametrize(("english", "chinese"), PAIRS.items(), ids=[str(page) for page in PAIRS])


def text(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def code(part: str) -> set[str]:
    """The inline code of a part of a page, however its lines are broken."""
    return {" ".join(word.split()) for word in _CODE.findall(part)}


def anchors(page: Path) -> list[str]:
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for _, heading in _HEADING.findall(text(page))]


def sections(page: Path) -> list[str]:
    return re.split(r"^#+ .+$", text(page), flags=re.MULTILINE)


def rows(page: Path) -> list[list[set[str]]]:
    """The lines of all tables: the code in each column."""
    lines = re.findall(r"^\|(.*)\|$", text(page), re.MULTILINE)
    return [[code(cell) for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def links(page: Path) -> list[tuple[str, int]]:
    """What a page links to, as (English page or other target, which heading of it), sorted."""
    found = []
    for target, anchor in _LINK.findall(text(page)):
        path = Path(os.path.normpath(page.parent / target)) if target else page
        place = anchors(path).index(anchor) if anchor and "://" not in target else -1
        found.append((target if "://" in target else str(path), place))
    return found


@each_pair
def test_headings_are_the_same(english: Path, chinese: Path) -> None:
    levels = [[len(level) for level, _ in _HEADING.findall(text(page))] for page in (english, chinese)]
    assert levels[0] == levels[1]


@each_pair
def test_code_blocks_are_the_same(english: Path, chinese: Path) -> None:
    assert [block[0] for block in _FENCE.finditer(english.read_text())] == [
        block[0] for block in _FENCE.finditer(chinese.read_text())
    ]


@each_pair
def test_tables_are_the_same(english: Path, chinese: Path) -> None:
    for number, (row, translated) in enumerate(zip(rows(english), rows(chinese), strict=True), 1):
        assert row == translated, f"line {number} of the tables"


@each_pair
def test_sections_name_the_same_code(english: Path, chinese: Path) -> None:
    """A setting, command or field added to one page is missed in the other."""
    headings = ["", *(heading for _, heading in _HEADING.findall(text(english)))]
    for heading, section, translated in zip(headings, sections(english), sections(chinese), strict=True):
        assert code(section) == code(translated), heading


@each_pair
def test_links_lead_to_the_same_places_in_the_pages_language(english: Path, chinese: Path) -> None:
    own = {str(page): str(pair) for page, pair in (PAIRS | MADE).items()}
    there = sorted(link for link in links(english) if link[0] != str(chinese))
    here = sorted(link for link in links(chinese) if link[0] != str(english))
    assert sorted((own.get(path, path), place) for path, place in there) == here


@each_pair
def test_each_page_begins_with_a_link_to_its_pair(english: Path, chinese: Path) -> None:
    assert english.read_text().splitlines()[2] == f"[中文]({os.path.relpath(chinese, english.parent)})"
    assert chinese.read_text().splitlines()[2] == f"[English]({os.path.relpath(english, chinese.parent)})"


@pytest.mark.parametrize("page", [*PAIRS.values(), Path("relay/locale/zh_CN/LC_MESSAGES/relay700.po")], ids=str)
def test_pages_and_console_use_one_word_for_a_concept(page: Path) -> None:
    assert [word for word in REPLACED if word in page.read_text()] == []
