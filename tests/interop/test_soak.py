"""The short form of `scripts/soak`: a load of calls of all kinds, and the records that there must be of them."""

from __future__ import annotations

import importlib
import subprocess
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.product import PYTHON

pytestmark = pytest.mark.outside

SCRIPTS = Path("scripts/bench.d").resolve()


def test_each_call_of_a_mixed_load_goes_as_drawn_and_has_its_record() -> None:
    command = [PYTHON, str(SCRIPTS / "soak.py"), "--minutes", "0.1", "--rate", "60", "--hold", "1", "--seed", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no call failed" in done.stdout


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("soak")


def test_any_call_or_record_too_many_or_too_few_is_told(soak: ModuleType) -> None:
    good = soak.Counted(begun=5, good=5)
    called = {kind.name: good for kind in soak.KINDS}
    answered = {kind.name: good for kind in soak.KINDS if kind.callee}
    records = Counter(answered=10, no_binding=5, cancelled=5, busy=5)
    assert soak.differences(called, answered, records) == []

    one_failed = {"plain": soak.Counted(begun=5, good=4, failed=1)}
    assert len(soak.differences(called | one_failed, answered, records)) == 3  # the call, its callee, its record
    assert len(soak.differences(called | {"refused": soak.Counted(begun=6, good=5)}, answered, records)) == 1
    assert len(soak.differences(called, answered | {"busy": soak.Counted(begun=4, good=4)}, records)) == 1
    for outcome in (*records, "failed"):
        assert len(soak.differences(called, answered, records + Counter([outcome]))) == 1
        assert len(soak.differences(called, answered, records - Counter([outcome]))) == (outcome in records)


def test_load_that_offers_nothing_of_a_kind_is_told(soak: ModuleType) -> None:
    nothing = {kind.name: soak.Counted() for kind in soak.KINDS}
    assert len(soak.differences(nothing, {}, Counter())) == len(soak.KINDS)
