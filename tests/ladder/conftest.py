"""The ladder of most tests: a binding of mode AXB between two peers."""

from __future__ import annotations

import pytest

from tests.ladder.ladder import Ladder


@pytest.fixture
def ladder() -> Ladder:
    return Ladder()
