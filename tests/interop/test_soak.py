"""The short form of `scripts/soak`: a load of calls of all kinds, and what there must be of them."""

from __future__ import annotations

import importlib
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.product import PYTHON

pytestmark = pytest.mark.outside

SCRIPTS = Path("scripts/bench.d").resolve()


@pytest.mark.timeout(300)
def test_each_call_of_a_mixed_load_goes_as_drawn_and_has_its_record_event_and_packets() -> None:
    load = ["--minutes", "0.1", "--rate", "20", "--hold", "1", "--api", "5", "--anchored", "0", "--seed", "6"]
    command = [PYTHON, str(SCRIPTS / "soak.py"), "--no-shedding", "--most-growth", "100", *load]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no call failed" in done.stdout


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("soak")


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("accounts")


def test_any_call_or_record_too_many_or_too_few_is_told(accounts: ModuleType) -> None:
    good = accounts.Counted(begun=5, good=5)
    called = {kind.name: good for kind in accounts.KINDS}
    answered = {kind.name: good for kind in accounts.KINDS if kind.callee}
    records = Counter(answered=10, no_binding=5, cancelled=5, busy=5)
    assert accounts.differences(called, answered, records) == []

    one_failed = {"plain": accounts.Counted(begun=5, good=4, failed=1)}
    assert len(accounts.differences(called | one_failed, answered, records)) == 3  # the call, its callee, its record
    assert len(accounts.differences(called | {"refused": accounts.Counted(begun=6, good=5)}, answered, records)) == 1
    assert len(accounts.differences(called, answered | {"busy": accounts.Counted(begun=4, good=4)}, records)) == 1
    for outcome in (*records, "failed"):
        assert len(accounts.differences(called, answered, records + Counter([outcome]))) == 1
        assert len(accounts.differences(called, answered, records - Counter([outcome]))) == (outcome in records)


def test_load_that_offers_nothing_of_a_kind_is_told(accounts: ModuleType) -> None:
    nothing = {kind.name: accounts.Counted() for kind in accounts.KINDS}
    assert len(accounts.differences(nothing, {}, Counter())) == len(accounts.KINDS)


def test_any_event_or_packet_too_many_or_too_few_is_told(accounts: ModuleType) -> None:
    with closing(sqlite3.connect(":memory:")) as arrivals:
        arrivals.executescript("""
            create table record(relay, call_id, outcome, business);
            create table event(id, relay, kind, call_id, times);
            create table packets(call_id, sip, rtcp);
            insert into record values ('r', 'a', 'answered', 'default'), ('r', 'n', 'no_binding', null);
            insert into event values ('1', 'r', 'call.ended', 'a', 1), ('2', 'r', 'binding.expired', null, 1);
            insert into packets values ('a', 14, 2), ('n', 3, 0);
        """)
        rules = accounts.EVENTS_MISSING | accounts.EVENTS_REPEATED | accounts.PACKETS_MISSING
        assert accounts.unmatched(arrivals, "r", rules) == []
        for change, told in (
            ("delete from event", "1 records without an event"),
            ("insert into event values ('3', 'r', 'call.ended', 'a', 1)", "1 calls with several events"),
            ("insert into event values ('3', 'r', 'call.ended', 'b', 1)", "1 events without a record"),
            ("update event set times = 2", "2 events that came more than once"),
            ("delete from packets where call_id = 'n'", "1 records with too few HEP packets"),
            ("update packets set sip = 9", "1 records with too few HEP packets"),
        ):
            arrivals.commit()
            arrivals.execute(change)
            assert accounts.unmatched(arrivals, "r", rules) == [told]
            arrivals.rollback()


def test_growth_beyond_the_limit_is_told(soak: ModuleType) -> None:
    def samples(mib: list[int], descriptors: int) -> list[list[object]]:
        return [
            [soak.Sample(60.0 * n, 0, 0, 0, 0, 0, 0.0, {"serve": 1048576 * each}, descriptors + n // 16, 0, 0, 0)]
            for n, each in enumerate(mib)
        ]

    first = [50, 100, 300, 100, *[200] * 12]
    assert soak.grown(samples([*first, 100, 104, 300], 50), 180.0, 5.0) == []
    assert len(soak.grown(samples([*first, 100, 106, 300], 50), 180.0, 5.0)) == 1
    assert len(soak.grown(samples([*first, 100, 104, 300], 3), 180.0, 5.0)) == 1
