"""Live bindings on old middle numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.service.bindings import end
from relay.service.numbers import ensure_numbers
from relay.store.legacy_use import LegacyBindings, legacy_bindings
from tests.service.conftest import RULES, Backend
from tests.service.test_phase import OLD
from tests.support.stored import NOW_MS, X


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with closing(Backend(tmp_path)) as backend:
        yield backend


def test_bindings_on_either_number_count_until_they_end(backend: Backend) -> None:
    backend.run(lambda unit: ensure_numbers(unit, (), [OLD]))
    rules = RULES._replace(phase="transition")
    made = backend.bind("AXYB", x=X, y=OLD, rules=rules)
    backend.bind("AXB", "8001", "8002", x=OLD, rules=rules, expires_in="1h")
    hour_ms = 3_600_000
    assert legacy_bindings(backend.connection, NOW_MS, NOW_MS + hour_ms) == {"default": LegacyBindings(2, 1)}
    assert legacy_bindings(backend.connection, NOW_MS, NOW_MS + hour_ms - 1) == {"default": LegacyBindings(2, 2)}
    assert legacy_bindings(backend.connection, NOW_MS + hour_ms, NOW_MS) == {"default": LegacyBindings(1, 1)}
    backend.run(lambda unit: end(unit, made.binding_id, rules))
    assert legacy_bindings(backend.connection, NOW_MS + hour_ms, NOW_MS) == {}
