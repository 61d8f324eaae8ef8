"""Bindings, filings and carriers' answers from CSV files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.errors import ParseError, Refused
from relay.service import fields
from relay.service.bindings import end
from relay.service.filings import filing_form, remove_filing
from relay.service.groups import make_group
from relay.service.imports import (
    CHUNK,
    ImportResult,
    import_answers,
    import_bindings,
    import_filings,
    import_members,
    import_once,
)
from relay.store.filings import find_filing
from tests.service.conftest import RULES, Backend
from tests.service.test_filings import HOLDER, C, file, filed
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y

HEADER = "mode,x,y,a,b,expires_in,order_id,business\n"
GOOD = f"AXB,{X},,13800000001,13900000002,2h,17,default\n"


def run(backend: Backend, text: str) -> dict[int, str | None]:
    outcomes = import_bindings(text.splitlines(keepends=True), backend.run, RULES)
    return {one.line: one.refused and str(one.refused) for one in outcomes}


def test_each_line_makes_a_binding(backend: Backend) -> None:
    text = HEADER + GOOD + f"axyb,{X},{Y},8001,8002,,,\n" + '\n  \nAXB,,,"8003",8004\n'
    assert run(backend, text) == {2: None, 3: None, 6: None}
    made = {(found.mode, found.a, found.b): found for found in backend.bindings()}
    assert set(made) == {("AXB", "8613800000001", "8613900000002"), ("AXYB", "8001", "8002"), ("AXB", "8003", "8004")}
    first = made["AXB", "8613800000001", "8613900000002"]
    assert (first.x, first.order_id, first.expires_at) == (X, "17", NOW_MS + 7_200_000)
    assert made["AXYB", "8001", "8002"].order_id is None


def test_text_that_no_store_takes_is_refused_by_its_line_only(backend: Backend) -> None:
    """A file that is not UTF-8 has surrogates for its bytes."""
    written = ("\udcff", "a\x00b")
    for column, problem in {
        "pool": "this business user has no such pool",
        "business": "there is no such business user",
        "group": "must be printable text of at most 64 characters",
        "order_id": "must be printable text of at most 128 characters",
    }.items():
        text = f"mode,a,b,{column}\n" + "".join(f"AXB,8001,8002,{each}\n" for each in written)
        field = {"group": "group_id"}.get(column, column)
        assert run(backend, text) == {2: f"{field}: {problem}", 3: f"{field}: {problem}"}
    assert run(backend, "mode,a,b,pool\nAXB,8001,8002,\udcff\nAXB,8003,8004,\n")[3] is None


def test_a_line_may_name_an_industrial_id(backend: Backend) -> None:
    assert run(backend, "mode,a,b,industrial_id\nAXB,8001,8002,88.101.1/7\nAXB,8003,8004,?\n") == {
        2: None,
        3: f"industrial_id: {fields.INDUSTRIAL_ID_WORDS}",
    }
    assert [found.industrial_id for found in backend.bindings()] == ["88.101.1/7"]


def test_the_header_may_be_missing_or_in_another_order(backend: Backend) -> None:
    assert run(backend, GOOD) == {1: None}
    assert run(backend, "\ufeffb,A,mode\n8001,8002,AXB\n") == {2: None}
    assert ("8002", "8001") in {(found.a, found.b) for found in backend.bindings()}


def test_an_unknown_column_is_named(backend: Backend) -> None:
    with pytest.raises(ParseError, match=r"line 1: unknown column 'expires': use mode,x,y"):
        run(backend, "mode,a,b,expires\nAXB,8001,8002,2h\n")


def test_a_repeated_column_is_named(backend: Backend) -> None:
    with pytest.raises(ParseError, match=r"^line 1: the column 'a' is there twice$"):
        run(backend, "mode,a,A,b\nAXB,8001,8002,8003\n")
    assert backend.bindings() == []


def test_invalid_lines_are_named_and_valid_ones_made(backend: Backend) -> None:
    text = (
        HEADER
        + GOOD
        + GOOD
        + "AXX,,,8001,8002\nAXB,,,8001\nAXB,,,8001,8002,2,,\n"
        + "AXB,,,,,,,,,,,,,,,\n"
        + "AXB,,,1,8002\n"
    )
    text += 'AXB,,,8001,8002,,"two\nlines",\n' + "AXB,,,8003,8004\n"
    assert run(backend, text) == {
        2: None,
        3: f"a: 138****0001 is bound on {X} already: unbind it or take another number",
        4: "mode: must be one of: AXB, AXYB, GXB, GXYB, AXN",
        5: "b: required",
        6: "expires_in: not a duration: write a number with its unit, as 90s, 30m, 2h or 7d",
        7: "line: must have at most 8 cells, not 16",
        8: "a: a number has 3 to 15 digits",
        9: "line: a quote in it is open to line 10: none of these lines is read",
        11: None,
    }
    assert len(backend.bindings()) == 2


def test_a_line_that_is_not_csv_is_named(backend: Backend) -> None:
    outcomes = run(backend, HEADER + f"AXB,,,8001,{'8' * 200_000}\n" + GOOD)
    assert "line: must be CSV" in str(outcomes[2])
    assert outcomes[3] is None


def test_a_line_with_an_open_quote_is_named_with_the_lines_that_it_takes(backend: Backend) -> None:
    lines = [f"AXB,,,{8000 + n},{8100 + n}\n" for n in range(20)]
    lines[5] = 'AXB,,,8005,"8105\n'
    assert run(backend, "".join(lines)) == {
        **dict.fromkeys(range(1, 6)),
        6: "line: a quote in it is open to line 20: none of these lines is read",
    }
    lines[7] = 'AXB,,,8007,8107"\n'
    assert run(backend, "".join(lines)) == {
        **dict.fromkeys((*range(1, 6), *range(9, 21))),
        6: "line: a quote in it is open to line 8: none of these lines is read",
    }
    assert run(backend, GOOD + 'AXB,,,8001,"8002') == {1: None, 2: "line: a quote in it is open"}


def test_nothing_is_read_below_a_first_line_that_is_not_csv(backend: Backend) -> None:
    with pytest.raises(ParseError, match=r"^line 1: a quote in it is open to line 2: "):
        run(backend, 'mode,b,"a\nAXB,8001,"\nAXB,,,8003,8004\n')
    assert backend.bindings() == []


def test_an_empty_file_makes_nothing(backend: Backend) -> None:
    assert run(backend, "") == run(backend, HEADER) == {}


def test_each_chunk_is_made_before_the_next_is_read(backend: Backend) -> None:
    made_when_asked = []

    def lines() -> Iterator[str]:
        for n in range(2 * CHUNK):
            if n == CHUNK:
                made_when_asked.append(len(backend.bindings()))
            yield f"AXB,{PREFIX}{n:04d},,8001,8002\n"

    assert sum(1 for _ in import_bindings(lines(), backend.run, RULES)) == 2 * CHUNK
    assert made_when_asked == [CHUNK]


def test_every_column_is_read(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "depot", RULES, numbers=["13700000003"]))
    text = "mode,b,group,pool,direction,max_call_s,ring_timeout_s,consent,user_data\n"
    text += f"GXB,8001,{group.group_id},default,b_to_a,600, 30 ,form 9,{{}}\nGXB,8001,{group.group_id},,,ten,,,\n"
    assert run(backend, text) == {2: None, 3: "max_call_s: must be a number of seconds"}
    (made,) = backend.bindings()
    assert (made.group_id, made.direction, made.max_call_s, made.ring_timeout_s) == (group.group_id, "b_to_a", 600, 30)
    assert (made.consent, made.user_data) == ("form 9", "{}")


def test_a_line_may_leave_a_for_later_and_say_how_its_number_is_chosen(backend: Backend) -> None:
    text = "mode,b,late,area,area_match,idle_ttl_s\nAXB,8002,yes,bj,loose,600\nAXB,8004,,,,\n"
    text += "AXB,8006,yes,bj,,\nAXB,8008,yes,bj,near,\n"
    assert run(backend, text) == {
        2: None,
        3: "a: required",
        4: "area: this business user has no pool of this area: see the list of pools, or set area_match to loose",
        5: "area_match: must be one of: strict, loose",
    }
    [made] = backend.bindings()
    assert (made.a, made.b, made.idle_ttl_s) == (None, "8002", 600)


def test_members_are_imported_from_a_list(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "depot", RULES, numbers=["13700000003"]))
    lines = ["13700000003\n", "\n", *(f"1360000{n:04d}\n" for n in range(CHUNK))]
    assert list(import_members(lines, group.group_id, backend.run, RULES)) == [CHUNK - 1, 1]
    assert backend.one("SELECT size FROM party_group") == (CHUNK + 1,)


def test_a_member_that_cannot_be_added_is_named_by_its_line(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "depot", RULES))
    lines = [f"1360000{n:04d}\n" for n in range(CHUNK + 150)]
    lines[CHUNK + 100] = "\n12\n"
    imported = import_members("".join(lines).splitlines(), group.group_id, backend.run, RULES)
    assert next(imported) == CHUNK
    with pytest.raises(Refused, match=f"^line {CHUNK + 102}: a number has 3 to 15 digits"):
        next(imported)
    assert backend.one("SELECT size FROM party_group") == (CHUNK,)
    with pytest.raises(Refused, match=r"^group: there is no such group"):
        next(import_members(lines, "none", backend.run, RULES))


def test_the_column_record_is_yes_or_no(backend: Backend) -> None:
    text = "mode,a,b,record\nAXB,8001,8002,YES\nAXB,8003,8004,no\nAXB,8005,8006,\nAXB,8007,8008,true\n"
    outcomes = import_bindings(text.splitlines(keepends=True), backend.run, RULES._replace(recording=True))
    refused = [one.refused and str(one.refused) for one in outcomes]
    assert refused == [None] * 3 + ['record: must be "yes" or "no"']
    assert {found.a: found.record for found in backend.bindings()} == {"8001": True, "8003": False, "8005": False}
    assert run(backend, "mode,a,b,record\nAXB,8007,8008,yes\n") == {
        2: "record: must be false: call recording is not configured on this relay"
    }


# -- an import that may be repeated


def once(backend: Backend, *lines: dict[str, str], rehearse: bool = False) -> list[ImportResult]:
    numbered = [(number, {"mode": "AXB", "business": "default"} | line) for number, line in enumerate(lines, 1)]
    return list(import_once(numbered, backend.run, RULES, rehearse=rehearse))


ONE = {"a": "8001", "b": "8002", "order_id": "o1"}
TWO = {"a": "8001", "b": "8003", "order_id": "o1"}


def test_a_line_that_is_imported_again_makes_no_second_binding(backend: Backend) -> None:
    first = once(backend, ONE, TWO)
    second = once(backend, TWO, ONE, {"a": "8004", "b": "8005", "order_id": "o1"})
    assert [one.was_there for one in first + second] == [False, False, True, True, False]
    ids = [one.binding and one.binding.binding_id for one in first]
    assert [one.binding and one.binding.binding_id for one in second[:2]] == ids[::-1]
    backend.run(lambda unit: end(unit, ids[0] or "", RULES))
    assert once(backend, ONE)[0].was_there
    assert len(backend.bindings()) == 3


def test_a_line_that_is_repeated_in_the_file_is_refused(backend: Backend) -> None:
    outcomes = once(backend, ONE, TWO, ONE)
    assert [one.refused and str(one.refused) for one in outcomes] == [None, None, "line: repeats line 1"]


def test_a_rehearsal_says_what_would_be_made_and_makes_nothing(backend: Backend) -> None:
    outcomes = once(backend, ONE, {"a": "8001", "b": "nobody", "order_id": "o2"}, rehearse=True)
    assert [one.refused and one.refused.field for one in outcomes] == [None, "b"]
    assert outcomes[0].binding is not None and outcomes[0].binding.x
    assert backend.bindings() == []
    assert backend.one("SELECT count(*) FROM audit WHERE action = 'binding.make_many'") == (0,)


# -- Filings, and carriers' answers to them


def test_import_files_valid_lines_and_names_invalid_ones(backend: Backend) -> None:
    lines = [
        "number,reference\n",
        "13800000001,CT-1\n",
        "\n",
        "12,CT-2\n",
        "13700000003\n",
        "13700000004,\n",
        '13700000004,"a\n',
        'b"\n',
    ]
    outcomes = import_filings(lines, "default", backend.run)
    assert {each.line: each.refused and each.refused.field for each in outcomes} == {
        2: None, 4: "number", 5: "line", 6: "reference", 7: "line",
    }  # fmt: skip
    assert filed(backend) == [("default", A)]


@pytest.mark.parametrize("header", ["number,holder,remark", "remark,number", "number,holder,holder"])
def test_a_header_with_an_unknown_or_repeated_column_files_nothing(backend: Backend, header: str) -> None:
    for import_ in (import_filings, import_answers):
        with pytest.raises(ParseError, match=r"^line 2: (unknown column '(remark|holder)'|the column 'holder' is)"):
            list(import_(["\n", f"{header}\n", "13800000001,Li Lei,CT-1\n"], "default", backend.run))
    assert filed(backend) == []


def test_answers_of_a_file_are_taken_line_by_line(backend: Backend) -> None:
    file(backend, state="submitted", **HOLDER)
    file(backend, C, state="submitted")
    backend.run(lambda unit: remove_filing(unit, "default", C))
    lines = [
        "number,state,reason,code\n",
        f"{A},rejected,张三 11010519491231002X 13800000001 不符,4003\n",
        f"{A},perhaps,,\n",
        f"{B},approved,,\n",
        f"{C},approved,,\n",
        f"{A},approved\n",
    ]
    outcomes = import_answers(lines, "default", backend.run)
    assert {each.line: each.refused and each.refused.field for each in outcomes} == {
        2: None, 3: "state", 4: "number", 5: "number", 6: "line",
    }  # fmt: skip
    filing = find_filing(backend.connection, backend.sealer, "default", A)
    assert filing is not None
    form = filing_form(filing, NOW_MS, clear=False)
    assert (form["state"], form["code"], form["reason"]) == ("rejected", "4003", "**** **** **** 不符")
