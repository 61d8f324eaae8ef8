"""docs/COMPLIANCE.md names tests that exist for each section, and tests/data for each test purpose of ETSI."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

SECTIONS = re.findall(r"^- (.*)$", Path("docs/COMPLIANCE.md").read_text(), re.MULTILINE)
_SECTION = re.compile(
    r"\*\*(.+?)\*\* (.+?)(?: → (.+?))?: ((?:`tests/|no test: ).+)"
)  # number, demand, what we do, tests
ETSI = Path("tests/data/etsi_ts_102_027_2.md").read_text()
ROWS = [" | ".join(found.groups("done")) for line in SECTIONS if (found := _SECTION.fullmatch(line))]
ROWS += re.findall(r"^\| (SIP_.*) \|$", ETSI, re.MULTILINE)
MOST_WORDS = 25  # of a cell
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
# The last number of each group of purposes in TS 102 027-2 V4.1.1.
PURPOSES = {
    **{"CC_OE_CE_V": 53, "CC_OE_CE_TI": 12, "CC_OE_CR_V": 15, "CC_OE_CR_I": 1, "CC_OE_CR_TI": 8, "CC_OE_SM_V": 2},
    **{"CC_TE_CE_V": 36, "CC_TE_CE_I": 2, "CC_TE_CE_TI": 12, "CC_TE_CR_V": 22, "CC_TE_CR_I": 5, "CC_TE_CR_TI": 1},
    **{"CC_TE_SM_V": 3, "CC_TE_SM_I": 1, "MG_OE_V": 15, "MG_OE_I": 10, "MG_TE_V": 15, "MG_TE_I": 8, "MG_RT_V": 8},
    **{"MG_RT_I": 5, "MG_RR_V": 13, "MG_RR_I": 6, "QC_OE_V": 15, "QC_OE_TI": 7, "QC_TE_V": 10, "RG_RT_V": 20},
    **{"RG_RT_TI": 7, "RG_RR_V": 22, "RG_RR_I": 4, "RG_RR_O": 3},
}
MISSING = {("QC_OE_V", 6)}  # in the document too


@cache
def names_in(path: str) -> frozenset[str]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    tree = ast.parse(Path(path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def test_each_line_has_a_section_its_demand_and_what_is_done() -> None:
    assert [line for line in SECTIONS if not _SECTION.fullmatch(line)] == []


@pytest.mark.parametrize("row", ROWS)
def test_each_section_has_a_test_or_a_reason(row: str) -> None:
    shown = row.split(" | ")[-1]
    assert _TEST.search(shown) or re.match(r"no test: \w+.*", shown), row
    for path, name in _TEST.findall(shown):
        assert Path(path).is_file(), path
        assert name in names_in(path), f"{path} has no {name}"


@pytest.mark.parametrize("row", ROWS)
def test_no_cell_is_a_paragraph(row: str) -> None:
    assert all(len(cell.split()) <= MOST_WORDS for cell in row.split(" | ")), row


def test_each_test_purpose_that_applies_is_there_once() -> None:
    named = [purpose for row in ROWS if row.startswith("SIP_") for purpose in purposes_of(row.split(" | ")[0])]
    wanted = {(group, number) for group, last in PURPOSES.items() for number in range(1, last + 1)} - MISSING
    assert sorted(named) == sorted(wanted)


def purposes_of(cell: str) -> list[tuple[str, int]]:
    """`SIP_CC_OE_CE_V_013-014, 016` as group and number of each."""
    group, _, numbers = cell.removeprefix("SIP_").rpartition("_")
    found = []
    for part in numbers.split(", "):
        first, _, last = part.partition("-")
        found += [(group, number) for number in range(int(first), int(last or first) + 1)]
    return found
