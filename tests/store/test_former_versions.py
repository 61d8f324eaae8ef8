"""Calls that went as a binding was before a change are named, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.service.bindings import change
from relay.store.history import CALL_GRACE_MS
from relay.store.rights_check import check_rights
from tests.service.conftest import RULES, Backend
from tests.support.shelf import Shelf
from tests.support.stored import A, B, X, ended_record

C = "8613700000003"
LATER_MS = 100 * CALL_GRACE_MS


class Calls:
    """A binding of A and B, and the records of its calls."""

    def __init__(self, backend: Backend, mode: str = "AXB", **more: Any) -> None:
        self.backend = backend
        self.binding_id = backend.bind(mode, x=X, order_id="1", **more).binding_id
        self._shelf = Shelf(backend.path, backend.sealer)

    def change(self, **fields: Any) -> None:
        """A minute later."""
        self.backend.now_ms += 60_000
        self.backend.run(lambda unit: change(unit, self.binding_id, fields, RULES))  # type: ignore[arg-type]

    def add(self, call_id: str, callee: str, after_ms: int = 0, number: str = X) -> None:
        at = self.backend.now_ms + after_ms
        times = {"received_at": at, "routed_at": at + 1, "ended_at": at + 9}
        what = {"binding_id": self.binding_id, "callee": callee, "number_dialled": number}
        self._shelf.add(ended_record(call_id, **what, **times))

    def named(self) -> list[str]:
        """The calls that the check names."""
        self.backend.now_ms += LATER_MS
        found = check_rights(self.backend.reader, self.backend.sealer, lambda: self.backend.now_ms).named()
        assert all(f"binding {self.binding_id}: was used as it was before line " in fault for fault in found), found
        return [fault.rpartition(" ")[2] for fault in found]

    def close(self) -> None:
        self._shelf.connection.close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with closing(Backend(tmp_path)) as backend:
        yield backend


def test_call_to_a_former_party_is_named(backend: Backend) -> None:
    with closing(Calls(backend)) as calls:
        calls.add("to b", B)
        calls.add("ahead", B, LATER_MS)  # its clock was wrong
        calls.change(b=C)
        calls.add("while the routes changed", B, CALL_GRACE_MS)
        calls.add("to the new b", C, LATER_MS)
        calls.add("to a", A, LATER_MS)
        assert calls.named() == []
        calls.add("c1", B, CALL_GRACE_MS + 1)
        assert calls.named() == ["c1"]


def test_party_that_came_back_is_no_former_one(backend: Backend) -> None:
    with closing(Calls(backend)) as calls:
        calls.change(b=C)
        calls.change(b=B)
        calls.add("c1", B, LATER_MS)
        calls.add("c2", C, LATER_MS)
        assert calls.named() == ["c2"]


def test_direction_that_was_barred_is_named(backend: Backend) -> None:
    with closing(Calls(backend)) as calls:
        calls.change(direction="a_to_b")
        calls.add("c1", B, LATER_MS)
        calls.add("c2", A, LATER_MS)
        assert calls.named() == ["c2"]


def test_default_party_of_axn_may_be_the_last_caller(backend: Backend) -> None:
    with closing(Calls(backend, "AXN")) as calls:
        calls.change(b=C)
        calls.add("c1", B, LATER_MS)
        calls.change(a="8613700000009")
        calls.add("c2", A, LATER_MS)
        assert calls.named() == ["c2"]


def test_party_that_no_version_has_was_named_by_a_hook(backend: Backend) -> None:
    with closing(Calls(backend)) as calls:
        calls.change(b=C)
        calls.add("c1", "8613700000009", LATER_MS)
        assert calls.named() == []


def test_use_that_an_operator_has_accepted_is_not_named_again(backend: Backend) -> None:
    with closing(Calls(backend)) as calls:
        calls.change(b=C)
        calls.add("c1", B, LATER_MS)
        backend.now_ms += LATER_MS
        backend.run(lambda unit: unit.audit("ledger.accept", "store", reason="looked", details={"rights": []}))
        assert calls.named() == []
