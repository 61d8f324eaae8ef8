"""Papers: what is refused, the steps of the review, and what stays unchanged by a refusal."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import date
from typing import Any

import pytest

from relay.errors import Refused
from relay.service.businesses import set_state
from relay.service.papers import (
    LARGEST_FILE,
    PaperFields,
    answer_paper,
    credit_code,
    is_credit_code,
    shown_day,
    submit_paper,
    suspend_expired,
    tell_ending,
    withdraw_paper,
)
from relay.store.businesses import state_changes
from relay.store.papers import PLATFORM, PaperRow, find_paper, papers_of, read_file
from relay.store.unit_of_work import Actor
from tests.service.conftest import Backend
from tests.support.papers import CREDIT_CODE, PDF, permit

JPEG, PNG = b"\xff\xd8\xff\xe0picture", b"\x89PNG\r\n\x1a\npicture"
DAY_MS = 86_400_000
DEFAULT = "business default"


def submit(backend: Backend, given: PaperFields | None = None, owner: str = DEFAULT) -> PaperRow:
    return backend.run(lambda unit: submit_paper(unit, owner, permit() if given is None else given))


def answer(backend: Backend, paper: PaperRow, step: Any, reason: str = "page 2", due: date | None = None) -> PaperRow:
    return backend.run(lambda unit: answer_paper(unit, paper.id, step, reason, due))


def accepted(backend: Backend, **more: Any) -> PaperRow:
    return answer(backend, submit(backend, permit(**more)), "accept")


def refusal(backend: Backend, given: PaperFields) -> tuple[str, str]:
    """The field and the problem; nothing was kept of what was refused."""
    before = papers_of(backend.reader, backend.sealer, DEFAULT)
    with pytest.raises(Refused) as refused:
        submit(backend, given)
    assert papers_of(backend.reader, backend.sealer, DEFAULT) == before
    return refused.value.field, refused.value.problem


def test_a_paper_is_kept_with_its_file_sealed(backend: Backend) -> None:
    file = PDF + bytes(600_000)  # of several parts
    paper = submit(backend, permit(file, issuer="State Post", scope="Beijing", valid_until=date(2026, 12, 31)))
    assert find_paper(backend.reader, backend.sealer, paper.id) == paper
    assert (paper.version, paper.state, paper.size) == (1, "submitted", len(file))
    assert paper.sha256 == hashlib.sha256(file).hexdigest()
    assert read_file(backend.reader, backend.sealer, paper) == file
    parts = backend.reader.execute("SELECT sealed FROM paper_part WHERE paper_id = ?", (paper.id,)).fetchall()
    assert len(parts) == 3
    assert not any(b"Catalog" in sealed for (sealed,) in parts)


@pytest.mark.parametrize(("file", "media_type"), [(PDF, "application/pdf"), (PNG, "image/png"), (JPEG, "image/jpeg")])
def test_a_file_is_a_pdf_or_a_picture(backend: Backend, file: bytes, media_type: str) -> None:
    assert submit(backend, permit(file)).media_type == media_type


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        (permit(b"<html>"), "file", "PDF, PNG or JPEG"),
        (permit(b""), "file", "PDF, PNG or JPEG"),
        (permit()._replace(file="%%%"), "file", "Base64"),
        (permit(PDF.replace(b"/Root", b"/Encrypt 5 0 R /Root")), "file", "without password"),
        (permit(PDF.replace(b"/Root", b"/Encrypt<</V 1>> /Root")), "file", "without password"),
        (permit(PDF + bytes(LARGEST_FILE)), "file", "at most 20 MB"),
        (permit(sha256="0" * 64), "sha256", hashlib.sha256(PDF).hexdigest()),
        (permit(reference=" "), "reference", "required"),
        (permit(valid_from=date(2026, 2, 1), valid_until=date(2026, 1, 1)), "valid_until", "before valid_from"),
        (permit(kind="business_licence", reference="91350100M000100Y44"), "reference", "GB 32100-2015"),
    ],
)
def test_a_bad_paper_is_refused_with_field_and_fix(backend: Backend, given: PaperFields, field: str, says: str) -> None:
    named, problem = refusal(backend, given)
    assert named == field and says in problem


def test_a_paper_of_its_own_hash_and_of_a_day_is_good(backend: Backend) -> None:
    """The last day is included."""
    day = date(2026, 3, 1)
    paper = submit(backend, permit(sha256=hashlib.sha256(PDF).hexdigest().upper(), valid_from=day, valid_until=day))
    assert paper.valid_from is not None and paper.valid_until == paper.valid_from + DAY_MS
    assert (shown_day(paper.valid_from), shown_day(paper.valid_until, last=True)) == ("2026-03-01", "2026-03-01")


def test_the_check_character_of_a_credit_code(backend: Backend) -> None:
    assert is_credit_code(CREDIT_CODE)
    assert credit_code("reference", f" {CREDIT_CODE.lower()} ") == CREDIT_CODE
    others = [CREDIT_CODE[:place] + "7" + CREDIT_CODE[place + 1 :] for place in range(18)]
    assert not any(map(is_credit_code, others))
    assert not any(map(is_credit_code, ("", CREDIT_CODE[:17], "I" + CREDIT_CODE[1:], CREDIT_CODE + "0")))
    licence = submit(backend, permit(kind="business_licence", reference=CREDIT_CODE.lower()))
    assert licence.reference == CREDIT_CODE


def test_an_accepted_paper_is_in_force_until_its_end(backend: Backend) -> None:
    paper = accepted(backend, valid_from=date(2026, 1, 3), valid_until=date(2026, 1, 4))
    assert paper.valid_from is not None and paper.valid_until is not None
    moments = (paper.valid_from - 1, paper.valid_from, paper.valid_until - 1, paper.valid_until)
    assert [paper.is_in_force(at_ms) for at_ms in moments] == [False, True, True, False]
    assert [paper.state_at(at_ms) for at_ms in moments] == ["accepted", "accepted", "accepted", "expired"]


def test_papers_of_one_kind_and_scope_do_not_overlap(backend: Backend) -> None:
    first = accepted(backend, valid_from=date(2026, 1, 1), valid_until=date(2026, 6, 30))
    field, problem = refusal(backend, permit(valid_from=date(2026, 6, 30)))
    assert field == "valid_from" and first.id in problem and "2026-06-30" in problem
    accepted(backend, valid_from=date(2026, 7, 1))
    assert refusal(backend, permit(valid_from=date(2027, 1, 1)))[0] == "valid_from"
    accepted(backend, valid_from=date(2026, 1, 1), scope="Hebei")
    accepted(backend, kind="commitment")


def test_of_two_that_overlap_one_is_accepted(backend: Backend) -> None:
    one, two = submit(backend), submit(backend)
    answer(backend, one, "accept")
    with pytest.raises(Refused, match=one.id):
        answer(backend, two, "accept")
    backend.run(lambda unit: withdraw_paper(unit, one.id, "replaced"))
    assert answer(backend, two, "accept").state == "accepted"


def test_a_supplement_is_a_new_version(backend: Backend) -> None:
    asked = answer(backend, submit(backend), "supplement", due=date(2026, 1, 31))
    assert (asked.state, asked.note, shown_day(asked.due_at, last=True)) == ("supplement_asked", "page 2", "2026-01-31")
    supplied = submit(backend, permit(PNG))
    assert (supplied.version, supplied.state) == (2, "submitted")
    old = find_paper(backend.reader, backend.sealer, asked.id)
    assert old is not None
    assert (old.state, old.due_at, old.sha256) == ("withdrawn", None, asked.sha256)


@pytest.mark.parametrize("due", [None, date(2025, 12, 30)])
def test_a_supplement_is_due_on_a_day_to_come(backend: Backend, due: date | None) -> None:
    paper = submit(backend)
    with pytest.raises(Refused) as refused:
        answer(backend, paper, "supplement", due=due)
    assert refused.value.field == "due"
    assert find_paper(backend.reader, backend.sealer, paper.id) == paper


def test_steps_out_of_order_are_refused(backend: Backend) -> None:
    due = date(2026, 1, 31)
    asked = answer(backend, submit(backend), "supplement", due=due)
    with pytest.raises(Refused, match="a supplement was asked: submit it first"):
        answer(backend, asked, "accept")
    rejected = answer(backend, asked, "reject")
    for step in ("accept", "reject", "supplement"):
        with pytest.raises(Refused, match="the paper is rejected") as refused:
            answer(backend, rejected, step, due=due)
        assert refused.value.kind == "state_conflict"
    with pytest.raises(Refused, match="the paper is rejected"):
        backend.run(lambda unit: withdraw_paper(unit, rejected.id, "not needed"))


def test_a_paper_that_has_ended_is_not_accepted(backend: Backend) -> None:
    ended = submit(backend, permit(valid_until=date(2025, 12, 1)))
    with pytest.raises(Refused, match="has ended"):
        answer(backend, ended, "accept")


def test_papers_of_others_are_not_found(backend: Backend) -> None:
    backend.business("acme")
    backend.business("bolt")
    paper = submit(backend, owner="business acme")
    own = submit(backend, owner=PLATFORM)
    bolt = Actor("key:1", "bolt", frozenset(["papers"]))
    for other in (paper, own):
        with pytest.raises(Refused, match="no such paper"):
            backend.run(lambda unit, other=other: withdraw_paper(unit, other.id, "not ours"), bolt)
    with pytest.raises(Refused, match="no such business user"):
        backend.run(lambda unit: submit_paper(unit, "business acme", permit()), bolt)
    backend.run(lambda unit: set_state(unit, "bolt", "revoke", "fraud"))
    with pytest.raises(Refused, match="revoked"):
        backend.run(lambda unit: submit_paper(unit, "business bolt", permit()))


def test_each_step_is_audited(backend: Backend) -> None:
    paper = accepted(backend)
    backend.run(lambda unit: withdraw_paper(unit, paper.id, "replaced"))
    actions = [action for (action,) in backend.reader.execute("SELECT action FROM audit ORDER BY seq").fetchall()]
    assert actions[-3:] == ["paper.add", "paper.accept", "paper.withdraw"]


def test_a_paper_sent_in_base64_is_no_larger_than_its_file(backend: Backend) -> None:
    largest = PDF + bytes(LARGEST_FILE - len(PDF))
    assert submit(backend, permit(largest)).size == LARGEST_FILE
    assert len(b64encode(largest)) <= 27 << 20


def approve(backend: Backend, *required: str, business: str = "acme") -> Any:
    return backend.run(lambda unit: set_state(unit, business, "approve", "checked", required))


def test_an_approval_needs_each_required_paper_in_force(backend: Backend) -> None:
    backend.business("acme", approved=False, scenario="express")
    required = ("business_licence", "express:scenario_permit", "takeaway:commitment")
    with pytest.raises(Refused, match="business_licence, scenario_permit") as refused:
        approve(backend, *required)
    assert (refused.value.kind, refused.value.field) == ("unqualified", "papers")
    licence = submit(backend, permit(kind="business_licence", reference=CREDIT_CODE), "business acme")
    answer(backend, licence, "accept")
    ended = submit(backend, permit(valid_until=date(2026, 1, 31)), "business acme")
    answer(backend, ended, "accept")
    backend.now_ms = ended.valid_until or 0
    with pytest.raises(Refused, match="not in force: scenario_permit"):
        approve(backend, *required)
    permit_ = submit(backend, permit(valid_from=date(2026, 2, 1)), "business acme")
    with pytest.raises(Refused, match="not in force: scenario_permit"):
        approve(backend, *required)
    answer(backend, permit_, "accept")
    approve(backend, *required)
    approval = state_changes(backend.reader, backend.sealer, "acme")[-1]
    assert approval.papers == [
        f"business_licence version 1, sha256 {licence.sha256}",
        f"scenario_permit version 2, sha256 {permit_.sha256}",
    ]


def test_the_operators_own_business_user_needs_no_papers(backend: Backend) -> None:
    backend.run(lambda unit: set_state(unit, "default", "suspend", "test"))
    backend.run(lambda unit: set_state(unit, "default", "resume", "test", ("commitment",)))


def test_a_paper_warns_before_its_end_once_each(backend: Backend) -> None:
    backend.run(tell_ending)
    paper = accepted(backend, valid_until=date(2026, 3, 31))
    own = submit(backend, permit(valid_until=date(2026, 3, 31)), PLATFORM)
    answer(backend, own, "accept")
    end = paper.valid_until or 0
    told = []
    for days_left in (40, 30, 29, 10, 7, 2, 1, 0, -1):
        backend.now_ms = end - days_left * DAY_MS
        told += [(one.id, days) for one, days in backend.run(tell_ending)]
    assert told == [(each.id, days) for days in (30, 7, 1, 0) for each in (paper, own)]


def test_a_paper_that_was_replaced_does_not_warn(backend: Backend) -> None:
    backend.run(tell_ending)
    old = accepted(backend, valid_until=date(2026, 3, 31))
    accepted(backend, valid_from=date(2026, 4, 1))
    backend.now_ms = old.valid_until or 0
    assert backend.run(tell_ending) == []


def test_a_business_user_whose_required_paper_has_ended_is_suspended(backend: Backend) -> None:
    backend.business("acme")
    backend.business("bolt")
    for firm, kind in (("acme", "scenario_permit"), ("bolt", "commitment")):
        paper = submit(backend, permit(kind=kind, valid_until=date(2026, 3, 31)), f"business {firm}")
        answer(backend, paper, "accept")
    backend.now_ms = (paper.valid_until or 0) - 1
    assert backend.run(lambda unit: suspend_expired(unit, ["scenario_permit"])) == []
    backend.now_ms += 1
    assert backend.run(lambda unit: suspend_expired(unit, ["scenario_permit"])) == ["acme"]
    assert backend.run(lambda unit: suspend_expired(unit, ["scenario_permit"])) == []
    with pytest.raises(Refused, match="not in force: scenario_permit"):
        backend.run(lambda unit: set_state(unit, "acme", "resume", "again", ("scenario_permit",)))
