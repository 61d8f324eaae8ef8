"""Counts of ended calls by time, for charts: of all, of each business user, of each peer by direction.

Answered calls are also counted by day, business user and prefix, for rates of complaints.

Owns the table `call_count`. The follower adds a batch of records in the transaction that moves its cursor, so none is
counted twice. Minutes are kept for hours, hours for weeks: however many calls there were, a chart reads few rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from relay.model.call import PROBE_BUSINESS, CallRecord
from relay.model.histogram import CALL_BOUNDS_S
from relay.model.numbers import is_700
from relay.model.outcomes import ANSWERED
from relay.store.connection import Connection

SPANS: Final = {60: 2 * 3_600, 600: 2 * 86_400, 3_600: 35 * 86_400}  # length of a span: how long it is kept, in seconds
DAY_S: Final = 86_400  # a span of answered calls by business user and prefix alone; a day in China
_CHINA_S: Final = 8 * 3_600
_PREFIX_DIGITS: Final = 11
_KEPT: Final = SPANS | {DAY_S: 35 * DAY_S}
ALL: Final = ""
_RINGING: Final = "ringing "
_RANGES: Final = tuple(f"{_RINGING}{bound:g}" for bound in (*CALL_BOUNDS_S, float("inf")))
_BOUNDS_MS: Final = [1000 * bound for bound in CALL_BOUNDS_S]

_ADD: Final = """
INSERT INTO call_count (owner, span, at, name, count) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (owner, span, at, name) DO UPDATE SET count = call_count.count + ?5
"""
_DROP: Final = "DELETE FROM call_count WHERE owner = ? AND span = ? AND at < ?"
_READ: Final = "SELECT at, name, count FROM call_count WHERE owner = ? AND span = ? AND at >= ? AND at < ?"
_LEGACY: Final = "legacy "  # the owner of calls to old middle numbers, followed by the business user
_CALLS: Final = "calls"
_LEGACY_CALLS: Final = """
SELECT owner, at, count FROM call_count WHERE owner >= 'legacy ' AND owner < 'legacy!' AND span = ? AND at > ?
"""
_ANSWERED: Final = """
SELECT owner, CAST(sum(count) AS bigint) FROM call_count
WHERE owner >= ? AND owner < ? AND span = ? AND at >= ? GROUP BY owner
"""
# One step to the next owner instead of a look at each of its rows.
_BUSINESSES: Final = """
WITH RECURSIVE owners (id) AS (
    SELECT min(owner) FROM call_count WHERE owner > 'business ' AND owner < 'business!'
    UNION ALL
    SELECT (SELECT min(owner) FROM call_count WHERE owner > id AND owner < 'business!') FROM owners WHERE id IS NOT NULL
)
SELECT id, name, CAST(sum(count) AS bigint) FROM owners JOIN call_count ON owner = id
WHERE span = 3600 AND at >= ? GROUP BY id, name
"""


class PeriodCounts(NamedTuple):
    """Counts of some time. `ringing`: per range of `CALL_BOUNDS_S`, and above."""

    outcomes: Mapping[str, int]
    ringing: Sequence[int]

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    def ringing_s(self, share: float) -> float | None:
        """The time within which this share of the calls that rang did so, interpolated; None if none rang."""
        wanted = share * sum(self.ringing)
        if not wanted:
            return None
        low = 0.0
        for bound, count in zip(CALL_BOUNDS_S, self.ringing, strict=False):
            if count >= wanted:
                return low + (bound - low) * wanted / count
            wanted -= count
            low = bound
        return low


def owner_of_business(business: str | None) -> str:
    """The owner of a business user's counts; None: of all."""
    return ALL if business is None else f"business {business}"


def owner_of_peer(peer: str) -> str:
    """The owner of the counts of a peer that calls went to."""
    return f"peer {peer}"


def owner_of_sender(peer: str) -> str:
    """The owner of the counts of a peer that calls came from: their outcomes alone."""
    return f"from {peer}"


def count_calls(connection: Connection, records: Iterable[CallRecord], now_ms: int) -> None:
    """Add records, inside a unit of work, and drop what is too old of the same owners at `now_ms`, in Unix time.

    A record of a clock that is ahead drops nothing else: what is dropped cannot be counted again.
    """
    counts: Counter[_Key] = Counter()
    for kind, count in Counter([_kind(record) for record in records]).items():
        if kind is not None:
            for key in _keys(kind):
                counts[key] += count
    connection.executemany(_ADD, [(*key, count) for key, count in counts.items()])
    newest: dict[tuple[str, int], int] = {}
    for owner, span, at, _ in counts:
        newest[owner, span] = max(at, newest.get((owner, span), 0))
    now_s = now_ms // 1000
    connection.executemany(_DROP, [(*key, min(at, now_s) - _KEPT[key[1]]) for key, at in newest.items()])


_Key = tuple[str, int, int, str]  # owner, span, at, name
# business, peer from, peer to, outcome, ringing, minute, prefix, whether to an old middle number
_Kind = tuple[str | None, str, str | None, str, str | None, int, str, bool]


def _kind(record: CallRecord) -> _Kind | None:
    """The fields that decide where a record is counted: equal for many of a batch. None: it is not counted."""
    ended_at, outcome, business = record.ended_at, record.outcome, record.business
    if ended_at is None or outcome is None or business == PROBE_BUSINESS or record.kind == "message":
        return None
    rang_at = record.ringing_at or record.answered_at
    rang = None if rang_at is None else _RANGES[bisect_left(_BOUNDS_MS, rang_at - record.received_at)]
    prefix = prefix_of(record.number_dialled) if business is not None and outcome == ANSWERED else ""
    is_legacy = business is not None and not is_700(record.number_dialled)
    return business, record.peer_in, record.peer_out, outcome, rang, ended_at // 60_000, prefix, is_legacy


def _keys(kind: _Kind) -> Iterator[_Key]:
    business, sender, peer, outcome, rang, minute, prefix, is_legacy = kind
    owners = [ALL]
    if business is not None:
        owners.append(owner_of_business(business))
    if peer is not None:
        owners.append(owner_of_peer(peer))
    names = [outcome] if rang is None else [outcome, rang]
    ended_s = 60 * minute
    for span in SPANS:
        for owner in owners:
            for name in names:
                yield owner, span, ended_s - ended_s % span, name
        if sender:
            yield owner_of_sender(sender), span, ended_s - ended_s % span, outcome
    day_s = ended_s - (ended_s + _CHINA_S) % DAY_S
    if is_legacy:
        yield f"{_LEGACY}{business}", DAY_S, day_s, _CALLS
    if business is not None and outcome == ANSWERED:
        yield f"{_owner_of_answered(business)}{prefix}", DAY_S, day_s, ANSWERED


def _owner_of_answered(business: str) -> str:
    """The beginning of the owners of a business user's answered calls; a prefix of numbers follows."""
    return f"answered {business} "


def prefix_of(number: str) -> str:
    """The prefix of a 700 number; "" for any other."""
    return number[:_PREFIX_DIGITS] if is_700(number) else ""


def answered_calls(connection: Connection, business: str, since_s: int) -> dict[str, int]:
    """The answered calls of a business user by prefix, of the days in China from `since_s` on, at most 35."""
    owner = _owner_of_answered(business)
    rows = connection.execute(_ANSWERED, (owner, f"{owner[:-1]}!", DAY_S, since_s)).fetchall()
    return {of.removeprefix(owner): count for of, count in rows}


def legacy_calls(connection: Connection, now_s: int, days: int) -> dict[str, list[int]]:
    """The calls to old middle numbers by business user: of each of the last `days` days in China, today last."""
    today_s = now_s - (now_s + _CHINA_S) % DAY_S
    found: dict[str, list[int]] = {}
    for owner, at, count in connection.execute(_LEGACY_CALLS, (DAY_S, today_s - days * DAY_S)).fetchall():
        if at <= today_s:
            found.setdefault(owner.removeprefix(_LEGACY), [0] * days)[(at - today_s) // DAY_S - 1] += count
    return found


def read_counts(connection: Connection, owner: str, span: int, since_s: int, until_s: int) -> dict[int, PeriodCounts]:
    """The counts of an owner by the begin of each span that has some, from `since_s` to before `until_s`."""
    rows = connection.execute(_READ, (owner, span, since_s, until_s)).fetchall()
    by_time: dict[int, dict[str, int]] = {}
    for at, name, count in rows:
        by_time.setdefault(at, {})[name] = count
    return {at: _counts(names) for at, names in sorted(by_time.items())}


def sum_counts(parts: Iterable[PeriodCounts]) -> PeriodCounts:
    """The sum of counts."""
    outcomes: Counter[str] = Counter()
    ringing = [0] * len(_RANGES)
    for part in parts:
        outcomes.update(part.outcomes)
        ringing = [one + more for one, more in zip(ringing, part.ringing, strict=True)]
    return PeriodCounts(dict(outcomes), ringing)


def counts_of_businesses(connection: Connection, since_s: int) -> dict[str, PeriodCounts]:
    """The counts of each business user in whole hours from `since_s` on."""
    by_owner: dict[str, dict[str, int]] = {}
    for owner, name, count in connection.execute(_BUSINESSES, (since_s,)).fetchall():
        by_owner.setdefault(owner.removeprefix("business "), {})[name] = count
    return {owner: _counts(names) for owner, names in by_owner.items()}


def _counts(names: Mapping[str, int]) -> PeriodCounts:
    outcomes = {name: count for name, count in names.items() if not name.startswith(_RINGING)}
    return PeriodCounts(outcomes, [names.get(name, 0) for name in _RANGES])
