"""Recorded attempts replayed against other rules: what changes is what the real policy makes of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.model.call import CallRecord, Refusal
from relay.model.settings import CallerNumbers, Quota, Settings
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Cap, Hours, RefusalCaps, Rules
from relay.reports.explain import PolicyConfiguration
from relay.reports.what_if import WhatIf, what_if
from relay.store.database import connect_reader
from relay.store.records import read_received
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.lookup import RouteReader
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, peer, settings_for
from tests.support.places import new_store
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y, binding, put

C = "8613700000003"
LAST_MS = NOW_MS + 10_000_000_000
SETTINGS = settings_for()


class Store(NamedTuple):
    path: Path
    sealer: Sealer
    shelf: Shelf


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "relay.db"
    sealer = new_store(path, tmp_path / "relay.key")
    put(path, sealer, binding("000000000001"), binding("000000000002", x=Y, a=A, b=C, hours="07:00-09:30"))
    store = Store(path, sealer, Shelf(path, sealer))
    yield store
    store.shelf.connection.close()


def result(store: Store, rules: Rules, settings: Settings = SETTINGS, since_ms: int = 0) -> WhatIf:
    with closing(connect_reader(store.path)) as connection:
        *_, last = what_if(connection, store.sealer, PolicyConfiguration(rules, settings, 0), since_ms, LAST_MS)
    return last


def attempts(seed: int, count: int = 200) -> list[tuple[float, str, str]]:
    """Time in seconds, number dialled, caller."""
    source = random.Random(seed)
    at_s, made = 0.0, []
    for _ in range(count):
        at_s += source.choice((0.1, 0.1, 5.0, 60.0, 600.0))
        made.append((at_s, source.choice((X, X, Y)), source.choice((A, A, B, C, ""))))
    return made


def outcomes(store: Store, rules: Rules, made: list[tuple[float, str, str]]) -> list[str | None]:
    """What the real policy over the real look-up makes of the attempts; None: granted."""
    by = SETTINGS.peers[0]
    with closing(RouteReader(store.path, store.sealer, rules, lambda *_: None)) as reader:
        policy = CallPolicy(reader.fetch, rules, lambda _: None)
        found = [policy.look_up(number, caller, NOW_MS / 1000 + at_s, by) for at_s, number, caller in made]
    return [answer.outcome if isinstance(answer, Refusal) else None for answer in found]


def record(place: int, attempt: tuple[float, str, str], outcome: str | None, **changes: object) -> CallRecord:
    at_s, number, caller = attempt
    at_ms = NOW_MS + round(1000 * at_s)
    fields: dict[str, object] = {"received_at": at_ms, "ended_at": at_ms + 1, "number_dialled": number}
    if outcome is not None:
        fields |= {**REFUSED, "outcome": outcome, "end_reason": outcome}
    return call(place, **{**fields, "caller": caller, **changes})


RULES = (
    Rules(),
    Rules(caller_caps=(Cap(2, 300),), number_caps=(Cap(5, 600),)),
    Rules(hours=Hours(480, 540), anonymous_allowed=True, refusal_caps=RefusalCaps(of_number=2)),
)


@pytest.mark.parametrize("before", RULES)
@pytest.mark.parametrize("after", RULES)
def test_the_changes_are_those_of_the_real_policy(store: Store, before: Rules, after: Rules) -> None:
    made = attempts(7)
    was, would_be = outcomes(store, before, made), outcomes(store, after, made)
    pauses = [one == "over_limit" for one in was]
    records = [record(place, attempt, outcome) for place, (attempt, outcome) in enumerate(zip(made, was, strict=True))]
    records = [
        each._replace(end_reason="refused_too_often") if paused else each
        for each, paused in zip(records, pauses, strict=True)
    ]
    store.shelf.add(*sorted(records, key=lambda each: -each.received_at))  # the order of the chain is that of ends
    found = result(store, after)
    pairs = list(zip(was, would_be, strict=True))
    assert found.newly_refused == Counter(after for before, after in pairs if before is None and after)
    assert found.no_longer_refused == Counter(before for before, after in pairs if before and after is None)
    both = Counter(f"{before} -> {after}" for before, after in pairs if before and after and before != after)
    assert found.otherwise_refused == both
    assert (found.attempts, found.unchanged) == (len(made), sum(before == after for before, after in pairs))
    assert found.not_replayed == {}


def test_caps_of_a_day_count_the_calls_that_the_other_rules_grant(store: Store) -> None:
    for n in range(6):
        store.shelf.add(record(n, (3_600.0 * n, X, A), None))
    found = result(store, Rules(caller_caps=(Cap(2, 4 * 3_600),)))
    assert found.newly_refused == {"frequency_caller": 2}  # of six hours the third and fourth


def test_calls_at_once_and_quotas_of_peers_are_those_of_the_records(store: Store) -> None:
    for n in range(4):
        store.shelf.add(record(n, (float(n), X, A), None, ended_at=NOW_MS + 2_500 + n, peer_in="pbx"))
    assert result(store, Rules(max_calls_per_number=2)).newly_refused == {"number_busy": 1}
    limited = settings_for(peers=(peer("pbx", CALLER_HOST, quota_in=Quota(max_calls=1)), peer("carrier", CALLEE_HOST)))
    assert result(store, Rules(), limited).newly_refused == {"over_limit": 2}


def test_peers_that_are_gone_or_may_not_call_as_the_caller_refuse(store: Store) -> None:
    store.shelf.add(record(1, (1.0, X, A), None), record(2, (2.0, X, A), None, peer_in="gone"))
    own = settings_for(peers=(peer("pbx", CALLER_HOST, numbers=CallerNumbers(frozenset((B,)))),), routes=())
    assert result(store, Rules(), own).newly_refused == {"caller_not_allowed": 2}


def test_refusals_of_the_moment_are_not_replayed_and_calls_that_were_routed_count(store: Store) -> None:
    caps = Rules(caller_caps=(Cap(2, 300),))
    left_out = ("draining", "store_failed", "over_limit", "verification_refused", "media_failed")
    for n, outcome in enumerate(left_out):
        store.shelf.add(record(n, (float(n), X, A), outcome))
    store.shelf.add(record(6, (6.0, X, A), None), record(7, (7.0, X, A), None))
    found = result(store, caps)
    assert found.not_replayed == dict.fromkeys(left_out, 1)
    assert found.newly_refused == {"frequency_caller": 1}


def test_calls_that_find_a_number_busy_count_towards_no_cap_on_frequency(store: Store) -> None:
    for n in range(4):
        store.shelf.add(record(n, (float(n), X, A), None, ended_at=NOW_MS + 3_000 + n))
    found = result(store, Rules(max_calls_per_number=1, caller_caps=(Cap(2, 300), Cap(2, 4 * 3_600))))
    assert found.newly_refused == {"number_busy": 2}


def test_only_the_span_is_read_in_pages_by_arrival(store: Store) -> None:
    store.shelf.add(*(record(n, (float(n), X, A), None) for n in (3, 1, 2, 0)))
    with closing(connect_reader(store.path)) as connection:
        pages = list(read_received(connection, store.sealer, NOW_MS + 1_000, NOW_MS + 4_000, page=2))
    assert [[each.call_id for each in page] for page in pages] == [["c1", "c2"], ["c3"]]
    assert result(store, Rules(), since_ms=NOW_MS + 2_000).attempts == 2
    assert result(store, Rules(), since_ms=NOW_MS + 9_000) == WhatIf(0, 0, {}, {}, {}, {})
