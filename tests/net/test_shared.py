"""What several workers count together, in memory that they share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.call.rates import Rates
from relay.net.shared import CELLS, PER_S, STAGES, WIDTH, SharedCounts, SharedRates, SharedTally, _key, make_region

WORKERS = 3
OURS, THEIRS, NOBODYS = "0123456789abcdef", "1123456789abcdef", "f123456789abcdef"


def crew(workers: int = WORKERS) -> list[SharedCounts]:
    region = make_region(workers)
    try:
        return [SharedCounts(region, index, workers) for index in range(workers)]
    finally:
        os.close(region)


@pytest.fixture
def region() -> Iterator[int]:
    descriptor = make_region(WORKERS)
    yield descriptor
    os.close(descriptor)


# -- how many there are


def test_what_one_worker_counts_all_count() -> None:
    first, second, third = (counts.calls_in for counts in crew())
    for tally in (first, first, second):
        tally.begin("pbx")
    third.begin("carrier")
    assert [tally.count("pbx") for tally in (first, second, third)] == [3, 3, 3]
    assert [tally.own("pbx") for tally in (first, second, third)] == [2, 1, 0]
    assert (list(first), len(third), first.count("carrier"), first.count("none")) == (["pbx"], 1, 1, 0)
    first.end("pbx")
    assert [tally.count("pbx") for tally in (first, second, third)] == [2, 2, 2]
    first.end("pbx")
    assert (list(first), second.count("pbx")) == ([], 1)


def test_each_kind_has_names_of_its_own() -> None:
    ours, theirs, _ = crew()
    kinds = ("stages", "calls_in", "calls_out", "calls_by_key", "failures")
    for kind in kinds:
        tally: SharedTally = getattr(ours, kind)
        tally.begin("x")
        assert [getattr(theirs, other).count("x") for other in kinds] == [int(other == kind) for other in kinds]
        tally.clear()
        assert not any(getattr(theirs, other).count("x") for other in kinds)
        assert (len(tally), tally.count("x")) == (0, 0)


def test_there_is_no_end_without_a_beginning() -> None:
    first, second, _ = (counts.calls_in for counts in crew())
    second.begin("x")
    with pytest.raises(KeyError):
        first.end("x")
    assert first.count("x") == 1


def test_a_name_without_room_is_counted_by_its_own_worker_alone() -> None:
    assert STAGES == WIDTH  # one bucket
    ours, theirs, _ = (counts.stages for counts in crew())
    names = [f"name {number}" for number in range(WIDTH + 1)]
    for name in names:
        ours.begin(name)
        ours.begin(name)
    assert [ours.count(name) for name in names] == [2] * (WIDTH + 1)
    assert [theirs.count(name) for name in names] == [2] * WIDTH + [0]
    ours.end(names[-1])
    ours.begin(names[-1])
    assert theirs.count(names[-1]) == 0
    for _ in range(2):
        ours.end(names[3])
    ours.begin(names[-1])  # now there is room
    assert [theirs.count(name) for name in (names[3], names[-1])] == [0, 3]
    for _ in range(3):
        ours.end(names[-1])
    assert (theirs.count(names[-1]), len(ours)) == (0, WIDTH - 1)


STEPS = st.lists(
    st.tuples(st.integers(0, WORKERS - 1), st.sampled_from("abcdefghijklmnopqrst"), st.booleans()), max_size=200
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whatever_begins_and_ends_where_all_agree_on_the_sum(steps: list[tuple[int, str, bool]]) -> None:
    tallies = [counts.calls_by_key for counts in crew()]
    expected: list[Counter[str]] = [Counter() for _ in tallies]
    for worker, name, begins in steps:
        if begins:
            tallies[worker].begin(name)
            expected[worker][name] += 1
        elif expected[worker][name]:
            tallies[worker].end(name)
            expected[worker][name] -= 1
        total = sum(counter[name] for counter in expected)
        assert [tally.count(name) for tally in tallies] == [total] * WORKERS
    for tally, counter in zip(tallies, expected, strict=True):
        assert {name: tally.own(name) for name in tally} == +counter


# -- whose tag it is


def test_a_tag_of_one_worker_is_known_to_all_while_it_is_used() -> None:
    first, second, _ = (counts.calling_tags for counts in crew())
    for tags, tag in ((first, OURS), (first, OURS), (second, THEIRS)):
        tags.add(tag)
    assert all(tags.knows(tag) for tags in (first, second) for tag in (OURS, THEIRS))
    assert (len(first), len(second)) == (1, 1)
    for _ in range(2):
        first.discard(OURS)
    assert not any(tags.knows(OURS) for tags in (first, second))
    assert first.knows(THEIRS)


@pytest.mark.parametrize(
    "tag", [None, "", "alice", NOBODYS, THEIRS[:15], THEIRS + "0", "1" * 16, "x" * 16, "00 11 22 33 44 5", "号" * 16]
)
def test_what_else_is_no_tag_of_ours(tag: str | None) -> None:
    first, second, _ = (counts.calling_tags for counts in crew())
    second.add(THEIRS)
    assert not first.knows(tag)
    assert not first.knows(f"2{THEIRS[1:]}")


def test_a_tag_without_room_is_known_to_its_own_worker() -> None:
    first, second, _ = (counts.calling_tags for counts in crew())
    tags = [f"{number:012x}abcd" for number in range(WIDTH + 1)]  # the same last bits: one bucket
    for tag in tags:
        first.add(tag)
    assert all(first.knows(tag) for tag in tags)
    assert [second.knows(tag) for tag in tags] == [True] * WIDTH + [False]
    for tag in tags:
        first.discard(tag)
    assert not any(found.knows(tag) for found in (first, second) for tag in tags)


# -- how often


def test_all_workers_grant_so_many_in_any_second() -> None:
    first, second, third = (counts.granted for counts in crew())
    assert [rates.admit("firm", 3, 10.0) for rates in (first, second, third, first)] == [True, True, True, False]
    assert second.admit("other", 1, 10.0)
    assert second.admit("firm", None, 10.0)
    assert not third.admit("shut", 0, 10.0)
    assert not third.admit("firm", 3, 10.999)
    assert [rates.admit("firm", 3, 11.05) for rates in (third, third, third, first)] == [True, True, True, False]


def test_a_limit_that_was_raised_works_at_once() -> None:
    first, second, _ = (counts.granted for counts in crew())
    assert first.admit("firm", 1, 1.0)
    assert second.admit("firm", 2, 1.0)


def test_a_clock_that_was_set_back_keeps_nobody_out() -> None:
    first, second, _ = (counts.granted for counts in crew())
    assert first.admit("firm", 1, 1_800_000_000.0)
    assert second.admit("firm", 1, 1_799_999_990.0)


def test_a_mate_that_has_read_the_clock_a_moment_later_counts() -> None:
    first, second, _ = (counts.granted for counts in crew())
    assert first.admit("firm", 1, 10.051)
    assert not second.admit("firm", 1, 10.049)


CALLS = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.integers(0, 400)), max_size=100)  # milliseconds in between


@settings(max_examples=100, deadline=None)
@given(CALLS, st.integers(1, 5))
def test_no_second_has_more_and_what_is_a_slice_older_counts_no_more(calls: list[tuple[int, int]], most: int) -> None:
    workers = [counts.granted for counts in crew()]
    granted: list[float] = []
    now = 50_000.0
    for worker, after_ms in calls:
        now += after_ms / 1000
        admitted = workers[worker].admit("firm", most, now)
        if admitted:
            granted.append(now)
        assert len([at for at in granted if now - at < 1]) <= most
        if not admitted:
            assert len([at for at in granted if now - at < (PER_S + 1) / PER_S]) >= most


def test_names_that_are_quiet_make_room_and_busy_ones_are_counted_alone() -> None:
    ours, theirs, _ = (counts.granted for counts in crew())
    names = in_one_bucket(ours, WIDTH + 1)
    assert [ours.admit(name, 1, 10.0) for name in names] == [True] * (WIDTH + 1)
    assert not any(ours.admit(name, 1, 10.0) for name in names)
    assert [theirs.admit(name, 1, 10.0) for name in names] == [False] * WIDTH + [True]
    assert ours.admit(names[-1], 1, 12.0)
    assert not theirs.admit(names[-1], 1, 12.0)
    assert ours.admit(names[0], 1, 12.0)  # whose slot that was
    assert not theirs.admit(names[0], 1, 12.0)


def in_one_bucket(rates: SharedRates, number: int) -> list[str]:
    """Names that want the same slots."""
    table = rates._table
    found: dict[range, list[str]] = {}
    for each in range(100_000):
        name = f"firm {each}"
        names = found.setdefault(table.bucket(_key(name)), [])
        names.append(name)
        if len(names) == number:
            return names
    raise AssertionError("too many buckets")


def test_a_lone_relay_counts_to_the_moment() -> None:
    lone, shared = Rates(), crew()[0].granted
    assert lone.admit("firm", 1, 10.0)
    assert shared.admit("firm", 1, 10.0)
    assert lone.admit("firm", 1, 11.0)
    assert not shared.admit("firm", 1, 11.0)
    assert CELLS > PER_S


# -- workers that die


def test_who_takes_the_place_of_a_worker_that_died_begins_with_nothing(region: int) -> None:
    first, dead, third = (SharedCounts(region, index, WORKERS) for index in range(WORKERS))
    for counts in (first, dead):
        counts.calls_by_key.begin("number x")
    dead.calling_tags.add(THEIRS)
    dead.granted.admit("firm", 2, 10.0)
    assert third.calls_by_key.count("number x") == 2
    assert third.calling_tags.knows(THEIRS)
    anew = SharedCounts(region, 1, WORKERS)
    assert [counts.calls_by_key.count("number x") for counts in (first, anew, third)] == [1, 1, 1]
    assert not third.calling_tags.knows(THEIRS)
    assert [third.granted.admit("firm", 2, 10.0) for _ in range(3)] == [True, True, False]


WRITER = """
import sys
from itertools import count
from relay.net.shared import SharedCounts
counts = SharedCounts(int(sys.argv[1]), 1, 3)
print("ready", flush=True)
for number in count():
    for _ in range(3):
        counts.calls_in.begin("pbx")
        counts.calls_by_key.begin(f"number {number % 50}")
        counts.calling_tags.add(f"1{number:015x}")
        counts.granted.admit("firm", 1_000_000, number / 1000)
    for _ in range(3):
        counts.calls_in.end("pbx")
        counts.calls_by_key.end(f"number {number % 50}")
        counts.calling_tags.discard(f"1{number:015x}")
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_what_can_be_read(region: int) -> None:
    reader = SharedCounts(region, 0, WORKERS)
    seen: set[int] = set()
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(region)], pass_fds=[region], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == "ready\n"
            for _ in while_it_writes(reader):
                seen |= {reader.calls_by_key.count(f"number {number}") for number in range(50)}
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        left = [reader.calls_in.count("pbx"), *(reader.calls_by_key.count(f"number {number}") for number in range(50))]
        assert set(left) <= {0, 1, 2, 3}
        assert sum(left[1:]) <= 3
    assert seen <= {0, 1, 2, 3}
    SharedCounts(region, 1, WORKERS)
    assert reader.calls_in.count("pbx") == 0


def while_it_writes(reader: SharedCounts) -> Iterator[None]:
    """Until it has been seen at two moments at least."""
    moments: set[int] = set()
    while len(moments) < 2:
        moments.add(reader.calls_in.count("pbx"))
        yield
