"""Requests for real numbers: the audit line with actor and reason comes first."""

from __future__ import annotations

import pytest

from relay.errors import Refused
from relay.reports.disclosure import DisclosureRequest, ask
from relay.store.unit_of_work import SELECT, Actor, open_entry
from relay.store.writer import Writer
from tests.support.shelf import Shelf
from tests.support.stored import NOW_MS, A, X

INSPECTOR = Actor("key:ab12", None, frozenset(["operator"]))


def test_a_request_is_in_the_audit_log(shelf: Shelf, writer: Writer) -> None:
    asked = writer.run(INSPECTOR, lambda act: ask(act, "traceback", X, 5, 6, "  case 42/2026 "))
    assert asked == DisclosureRequest(X, 5, 6, "case 42/2026", "key:ab12", NOW_MS)
    (row,) = shelf.connection.execute(SELECT).fetchall()
    entry = open_entry(shelf.sealer, row)
    assert (entry.actor, entry.action, entry.object_, entry.reason) == ("key:ab12", "traceback", X, "case 42/2026")
    assert entry.details == {"number": X, "since_ms": 5, "until_ms": 6}


def test_a_partys_number_is_sealed_in_the_audit_log(shelf: Shelf, writer: Writer) -> None:
    writer.run(INSPECTOR, lambda act: ask(act, "traceback", A, 5, 6, "case"))
    (row,) = shelf.connection.execute(SELECT).fetchall()
    assert open_entry(shelf.sealer, row).details["number"] == A
    assert A[2:].encode() not in b"".join(str(value).encode() for value in row)


@pytest.mark.parametrize("reason", ["", "  ", "a" * 501, "a\nb", "a\x1b[2J"])
def test_a_request_without_a_reason_is_refused(shelf: Shelf, writer: Writer, reason: str) -> None:
    with pytest.raises(Refused, match="reason"):
        writer.run(INSPECTOR, lambda act: ask(act, "traceback", X, 5, 6, reason))
    assert shelf.connection.execute(SELECT).fetchall() == []


def test_a_span_that_does_not_go_forward_is_refused(writer: Writer) -> None:
    with pytest.raises(Refused, match="until"):
        writer.run(INSPECTOR, lambda act: ask(act, "evidence", X, 5, 5, "case"))
