"""Frequency caps over all nodes of a server: counted by the statement of the look-ups.

If the statement finds a binding in force, it counts the call at once under two keys, (number, caller) and number,
unless a cap is reached. A look-up that finds a row locked waits for the other to commit, and uses the new count (ON
CONFLICT DO UPDATE, at READ COMMITTED). So concurrent look-ups of several nodes never exceed a cap. All times are
those of the server, so the clocks of nodes may differ.

If the call is refused for another reason before it is routed, by the call policy, a hook or a limit, its count is
given back. After any other failure it stays.

If a cap allows few calls, each is counted with its time in milliseconds. If it allows many, the calls of a time slice
are counted together until the whole slice has left the window, so that a row stays small for any call rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from relay.model.call import Refusal
from relay.model.numbers import NO_CALLS
from relay.model.outcomes import FREQUENCY_CALLER, FREQUENCY_NUMBER, STORE_FAILED
from relay.policy.evaluate import CapCount
from relay.policy.rules import MEMORY_S, Cap, Rules
from relay.store.record_index import number_key, pair_key
from relay.store.sealing.sealer import Sealer

FEW: Final = 100  # calls; caps above that count in slices
SLICES: Final = 32  # per shortest window
MOST_SLICES: Final = 512  # per key
# How far a node's clock may be behind the server's. Older calls are counted in record_index, by the clocks of nodes.
_CLOCKS_MS: Final = 5_000
_MEMORY_MS: Final = 1_000 * MEMORY_S
_KEPT_MS: Final = 2 * _MEMORY_MS  # how long an idle row is kept
# The statement found no binding in force. If the call policy finds one nevertheless, the call must be refused.
_NOT_COUNTED: Final = CapCount((), STORE_FAILED)
SWEPT: Final = 256  # parts of the table, by the first byte of a hash

# The calls of `found` that may be counted, at most one row for each. `asked_at`: as in `Asked`.
_CANDIDATE: Final = """
candidate AS MATERIALIZED (
    SELECT place{keys}, CAST(extract(epoch FROM now()) * 1000 AS bigint) AS at{left}
    FROM found
    WHERE has_route AND free_at IS NULL AND locked & {no_calls} = 0 AND state = 'approved'
        AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > asked_at)
)"""
# The least number of calls that a cap with a window longer than the memory still allows within the memory's time.
_LEFT: Final = """,
        least({caps}) AS {name}_left"""
_LEFT_BY: Final = """{most} - (
            SELECT count(*) FROM record_index
            WHERE key = {name}_index AND at > asked_at - {window_ms} AND at <= asked_at - {memory_ms})"""
# Only the differences of `granted` and `before` matter, so a row may start at any number: it starts at `left`. In the
# order of keys: statements that lock the same rows cannot deadlock.
_COUNTED: Final = """
{name} AS (
    INSERT INTO frequency AS was (key, granted, begun, before)
    SELECT {name}_key, {left} + 1, ARRAY[at], ARRAY[CAST({left} AS bigint)] FROM candidate{first} ORDER BY {name}_key
    ON CONFLICT (key) DO UPDATE SET
        granted = was.granted + 1,
        begun = CASE WHEN {same} THEN was.begun ELSE (was.begun || excluded.begun){kept} END,
        before = CASE WHEN {same} THEN was.before ELSE (was.before || was.granted){kept} END
    WHERE {room}
    RETURNING key, begun[cardinality(begun)] AS slice
)"""
_SAME_SLICE: Final = "excluded.begun[1] - was.begun[cardinality(was.begun)] < {slice_ms}"
_KEPT: Final = "[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1:]"
# The calls since a time: all except those before the first slice that reaches past it.
_SINCE: Final = "was.granted - coalesce(was.before[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1], was.granted)"

# $1: the key; $2: the time of the call by the node's clock; $3, with long caps: the key in the index. One column for
# each cap.
_PEEK: Final = """
SELECT {counts} FROM (SELECT CAST(extract(epoch FROM now()) * 1000 AS bigint) AS at) AS clock
LEFT JOIN frequency AS was ON was.key = $1 AND $2::bigint > 0
"""
_EARLIER: Final = """
(SELECT count(*) FROM record_index
    WHERE key = $3::bigint AND at > $2::bigint - {window_ms} AND at <= $2::bigint - {memory_ms})
"""
# $1: the key; $2: the slice of the count.
GIVE_BACK: Final = """
UPDATE frequency SET
    granted = granted - 1,
    before = ARRAY(
        SELECT calls - CAST(at > $2 AS integer)
        FROM unnest(begun, before) WITH ORDINALITY AS slice (at, calls, place) ORDER BY place)
WHERE key = $1
"""
# $1 and $2: the first key, and the end of the range. Waits for no look-up, and blocks none for long.
SWEEP: Final = f"""
DELETE FROM frequency WHERE key IN (
    SELECT key FROM frequency
    WHERE key >= $1 AND key < $2
        AND begun[cardinality(begun)] < CAST(extract(epoch FROM now()) * 1000 AS bigint) - {_KEPT_MS}
    FOR UPDATE SKIP LOCKED)
"""


_BY_CALLER: Final = "by_caller"


class CapGroup(NamedTuple):
    """The caps on one kind of key."""

    name: str  # of the part of the statement that counts
    caps: Sequence[Cap]
    over: Refusal  # for a call beyond a cap

    @property
    def long(self) -> list[Cap]:
        """The caps with windows longer than the memory."""
        return [cap for cap in self.caps if cap.window_s > MEMORY_S]

    def key(self, sealer: Sealer, number: str, caller: str) -> bytes:
        """The key of the count of these calls, in the table `frequency`."""
        return sealer.lookup_hash(f"{number} {caller}" if self.name == _BY_CALLER else number)

    def index_key(self, sealer: Sealer, number: str, caller_hash: bytes) -> int:
        """The key of the records of these calls, in the table `record_index`."""
        key = number_key(sealer, number)
        return pair_key(key, caller_hash) if self.name == _BY_CALLER else key


class Counting:
    """The counting part of the look-up statement for the caps of some rules, and the decoding of its columns.

    A statement counts calls to different numbers: it cannot change a row twice.
    """

    def __init__(self, rules: Rules) -> None:
        self._capped = [capped for capped in capped_by(rules) if capped.caps]
        self._long = [capped for capped in self._capped if capped.long]
        self.width = 1 + len(self._capped)
        names = [capped.name for capped in self._capped]
        # The columns of each call, with their types; `values` has them.
        self.given = [(f"{name}_key", "bytea") for name in names]
        self.given += [(f"{capped.name}_index", "bigint") for capped in self._long]
        self.columns = ", ".join(["candidate.at", *(f"{name}.slice" for name in names)])
        self.joins = "LEFT JOIN candidate ON candidate.place = found.place" + "".join(
            f" LEFT JOIN {name} ON {name}.key = found.{name}_key" for name in names
        )
        keys, left = "".join(f", {name}_key" for name in names), "".join(map(_left, self._long))
        parts = (counting_part(capped, *names[:place]) for place, capped in enumerate(self._capped))
        self.tables = ",".join((_CANDIDATE.format(keys=keys, left=left, no_calls=NO_CALLS), *parts))

    def values(self, sealer: Sealer, number: str, caller: str, caller_hash: bytes) -> list[bytes | int]:
        """The keys under which a call is counted, and those under which the index has earlier calls."""
        keys: list[bytes | int] = [capped.key(sealer, number, caller) for capped in self._capped]
        return keys + [capped.index_key(sealer, number, caller_hash) for capped in self._long]

    def read(self, columns: Sequence[int | None], keys: Sequence[bytes]) -> CapCount:
        """Decode the columns. `keys`: the first of `values`."""
        if columns[0] is None:
            return _NOT_COUNTED
        under: list[tuple[bytes, int]] = []
        for capped, key, slice_ms in zip(self._capped, keys, columns[1:], strict=True):
            if slice_ms is None:
                return CapCount(under, capped.over)
            under.append((key, slice_ms))
        return CapCount(under, None)


def capped_by(rules: Rules) -> tuple[CapGroup, CapGroup]:
    """The caps by kind of key. All look-ups lock their rows in this order: numbers are counted after callers."""
    return (
        CapGroup(_BY_CALLER, rules.caller_caps, FREQUENCY_CALLER),
        CapGroup("by_number", rules.number_caps, FREQUENCY_NUMBER),
    )


def _left(capped: CapGroup) -> str:
    """The column with the calls that the long caps still allow."""
    caps = [
        _LEFT_BY.format(most=most, name=capped.name, window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
        for most, window_s in capped.long
    ]
    return _LEFT.format(caps=", ".join(caps), name=capped.name)


def counting_part(capped: CapGroup, after: str = "") -> str:
    """The part of the statement that counts under one kind of key. `after`: a part that must have counted first."""
    slice_ms = slice_ms_of(capped.caps)
    short = [(most, 1000 * window_s) for most, window_s in capped.caps if window_s <= MEMORY_S]
    room = [f"{_SINCE.format(ms=window_ms + slice_ms - 1)} < {most}" for most, window_ms in short]
    first = f" JOIN {after} ON {after}.key = {after}_key" if after else ""
    longest_ms = max((window_ms for _, window_ms in short), default=0)
    left = "0"
    if capped.long:
        longest_ms = _MEMORY_MS + _CLOCKS_MS
        left = f"{capped.name}_left"
        first += f" WHERE {left} > 0"
        room.append(f"{_SINCE.format(ms=longest_ms + slice_ms - 1)} < excluded.before[1]")
    return _COUNTED.format(
        name=capped.name,
        left=left,
        first=first,
        same=_SAME_SLICE.format(slice_ms=slice_ms),
        kept=_KEPT.format(ms=longest_ms + slice_ms - 1),
        room=" AND ".join(room),
    )


def peek_statement(caps: Sequence[Cap]) -> str:
    """The statement that reads the counts of caps as the look-up would compare them, and counts nothing."""
    slice_ms = slice_ms_of(caps)
    since = _SINCE.replace("excluded.begun[1]", "clock.at")
    counts = []
    for _, window_s in caps:
        if window_s <= MEMORY_S:
            counts.append(f"coalesce({since.format(ms=1000 * window_s + slice_ms - 1)}, 0)")
        else:
            recent = since.format(ms=_MEMORY_MS + _CLOCKS_MS + slice_ms - 1)
            earlier = _EARLIER.format(window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
            counts.append(f"coalesce({recent}, 0) + {earlier}")
    return _PEEK.format(counts=", ".join(counts))


def slice_ms_of(caps: Sequence[Cap]) -> int:
    """The length of a slice; 1: each call is counted by itself."""
    if max(cap.most for cap in caps) <= FEW:
        return 1
    shortest_s = min(min(cap.window_s for cap in caps), MEMORY_S)
    return max(1000 * shortest_s // SLICES, _MEMORY_MS // MOST_SLICES)


def sweep_parts() -> Iterator[tuple[bytes, bytes]]:
    """The key ranges for `SWEEP`, through the whole table again and again."""
    while True:
        for part in range(SWEPT):
            yield bytes([1, part]), bytes([1, part + 1]) if part + 1 < SWEPT else bytes([2])
