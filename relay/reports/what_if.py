"""Replays recorded attempts against other rules: how many would have been refused, and how many no longer.

A real `CallPolicy` with the other rules decides, in the order of time; look-ups come from history. It knows no
media, hook, target or load. Memory grows with the calls of one day (the longest window of a cap), and by 8 bytes for
each attempt.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from relay.call.admission import is_ours as is_of_platform
from relay.call.admission import refusal_of_number
from relay.model.actions import LookUp
from relay.model.call import CallRecord, Refusal, Route
from relay.model.outcomes import (
    CALLER_NOT_OF_PEER,
    MEDIA_FAILED,
    OF_POLICY,
    OVER_LIMIT,
    REFUSALS,
    REFUSED_TOO_OFTEN,
    STORE_FAILED,
    STRANGER,
    VERIFICATION_FAILED,
    VERIFICATION_REFUSED,
)
from relay.peers.limits import CallCounts
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import LookupResult
from relay.policy.rules import MEMORY_S
from relay.reports.explain import PolicyConfiguration
from relay.store.connection import Connection
from relay.store.lookup_at import Moment, PastLookUps
from relay.store.records import read_received
from relay.store.sealing.sealer import Sealer

LIMITS: Final = (
    "bindings are those of the time; locks of numbers, lists and limits of business users are those of now",
    "hooks, media, targets, overload and restarts are not replayed",
    "a call that was refused and would not have been counts as ended at once",
    "calls that are up now, and attempts without a record, are left out",
)
_DAY_S: Final = 86_400
_SWEEP_EACH: Final = 50_000  # attempts between two deletions of old counts
# Refusals that the replay can decide; for two of them only by the reason.
_DECIDED: Final = frozenset(each.outcome for each in OF_POLICY) - {
    STORE_FAILED.outcome,
    VERIFICATION_FAILED.outcome,
    VERIFICATION_REFUSED.outcome,
} | {"number_unknown"}
_REASONS: Final = frozenset((CALLER_NOT_OF_PEER.end_reason, REFUSED_TOO_OFTEN.end_reason))
_BEHIND: Final = MEDIA_FAILED.outcome  # a refusal behind the policy: the call was routed, and counts


class WhatIf(NamedTuple):
    """The result. Counts are of attempts, by outcome; `otherwise` by both outcomes, "was -> would be"."""

    attempts: int
    unchanged: int
    newly_refused: dict[str, int]
    no_longer_refused: dict[str, int]
    otherwise_refused: dict[str, int]
    not_replayed: dict[str, int]


def what_if(
    connection: Connection, sealer: Sealer, other: PolicyConfiguration, since_ms: int, until_ms: int
) -> Iterator[WhatIf]:
    """Replay the attempts of a span of time. Yields the result so far for each page, the last one being the result.

    Raises StoreError for an altered record.
    """
    replay = _Replay(connection, sealer, other)
    yield replay.result()
    for page in read_received(connection, sealer, since_ms, until_ms):
        for record in page:
            replay.take(record)
        yield replay.result()


class _Replay:
    def __init__(self, connection: Connection, sealer: Sealer, other: PolicyConfiguration) -> None:
        self._rules, self._settings, self._cool_down_ms, _ = other
        self._peers = {peer.name: peer for peer in self._settings.peers}
        self._past = PastLookUps(connection, sealer, self._rules.parties)
        self._older = _Older()
        self._calls = CallCounts()
        self._up: list[tuple[int, str, tuple[str, ...]]] = []  # end, peer and keys of counted calls
        self._policy = CallPolicy(self._fetch, self._rules, lambda _: None)
        self._attempts = self._unchanged = 0
        self._newly: Counter[str] = Counter()
        self._no_longer: Counter[str] = Counter()
        self._otherwise: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def result(self) -> WhatIf:
        counts = (self._newly, self._no_longer, self._otherwise, self._left_out)
        return WhatIf(self._attempts, self._unchanged, *map(_by_count, counts))

    def take(self, record: CallRecord) -> None:
        self._attempts += 1
        if self._attempts % _SWEEP_EACH == 0:
            self._older.sweep(record.received_at / 1000)
        outcome = record.outcome or ""
        was_refused = outcome in REFUSALS and (outcome in _DECIDED or record.end_reason in _REASONS)
        if outcome in REFUSALS and not was_refused and outcome != _BEHIND:
            self._left_out[outcome] += 1
            return
        answer = self._decide(record)
        if outcome == _BEHIND:
            self._left_out[outcome] += 1
        else:
            self._compare(outcome if was_refused else None, answer.outcome if isinstance(answer, Refusal) else None)

    def _compare(self, was: str | None, would_be: str | None) -> None:
        if was == would_be:
            self._unchanged += 1
        elif was is None:
            self._newly[would_be or ""] += 1
        elif would_be is None:
            self._no_longer[was] += 1
        else:
            self._otherwise[f"{was} -> {would_be}"] += 1

    def _decide(self, record: CallRecord) -> Route | Refusal | None:
        """The answer of the other rules to the attempt; None: it is forwarded."""
        at_s, dialled = record.received_at / 1000, record.number_dialled
        self._end_calls(record.received_at)
        peer = self._peers.get(record.peer_in)
        if peer is None:
            return STRANGER
        if not self._calls.quotas_in.admits_call(peer.name, peer.quota_in, at_s):
            return OVER_LIMIT
        if (refusal := refusal_of_number(self._settings, dialled)) is not None:
            return refusal
        if not is_of_platform(self._settings, dialled):
            return None
        asked = LookUp(0, dialled, record.caller, "call", peer)
        answer = self._policy.look_up(dialled, record.caller, at_s, peer, asked)
        if isinstance(answer, Refusal):
            return answer
        if (busy := self._calls.over_concurrency_cap(answer)) is not None:
            self._policy.give_back(asked)
            return busy
        self._older.note((dialled, record.caller), at_s)
        self._older.note((dialled, ""), at_s)
        self._begin_call(record, peer.name, answer)
        return answer

    def _begin_call(self, record: CallRecord, peer: str, route: Route) -> None:
        if record.routed_at is None or record.ended_at is None or record.kind != "call":
            return  # it did not last
        keys = tuple(key for key, _, _ in route.caps)
        self._calls.quotas_in.calls.begin(peer)
        for key in keys:
            self._calls.calls_by_key.begin(key)
        heapq.heappush(self._up, (record.ended_at, peer, keys))

    def _end_calls(self, at_ms: int) -> None:
        while self._up and self._up[0][0] <= at_ms:
            _, peer, keys = heapq.heappop(self._up)
            self._calls.quotas_in.calls.end(peer)
            for key in keys:
                self._calls.calls_by_key.end(key)

    def _fetch(self, number: str, caller: str, unix_s: float) -> LookupResult:
        rules = self._rules
        asked = Moment(number, caller, round(unix_s * 1000))
        found = self._past.found_at(asked, filing=rules.filing_required, cool_down_ms=self._cool_down_ms)
        return found._replace(
            earlier_by_caller=self._older.counts((number, caller), rules.caller_windows_s, unix_s),
            earlier_by_number=self._older.counts((number, ""), rules.number_windows_s, unix_s),
        )


class _Older:
    """The times of granted calls of the last day, for caps with windows longer than the memory of the policy."""

    def __init__(self) -> None:
        self._times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def note(self, key: tuple[str, str], at_s: float) -> None:
        self._times[key].append(at_s)

    def counts(self, key: tuple[str, str], windows_s: tuple[int, ...], at_s: float) -> list[int]:
        """The calls of each window that are older than the memory."""
        times = self._times.get(key, [])
        until = bisect_right(times, at_s - MEMORY_S)
        return [until - bisect_right(times, at_s - window_s) for window_s in windows_s]

    def sweep(self, at_s: float) -> None:
        kept = {key: [each for each in times if each > at_s - _DAY_S] for key, times in self._times.items()}
        self._times = defaultdict(list, {key: times for key, times in kept.items() if times})


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common())
