"""Frequency caps in a shared store, counted on the server by the look-up statement.

If the statement finds a binding in force, it counts the call at once under two keys, (number, caller) and number,
unless a cap is reached. A look-up that finds a row locked waits for the other to commit, and uses the new count (ON
CONFLICT DO UPDATE, at READ COMMITTED). So concurrent look-ups of several nodes never exceed a cap. All times are those
of the server, so the clocks of nodes may differ.

If the call policy refuses the call for another reason, its count is given back. After any other failure it stays.

If a cap allows few calls, each is counted with its time in milliseconds. If it allows many, the calls of a time slice
are counted together until the whole slice has left the window, so that a row stays small for any call rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from relay.model.call import Refusal
from relay.policy.evaluate import Counted
from relay.policy.rules import FREQUENCY_CALLER, FREQUENCY_NUMBER, MEMORY_S, STORE_FAILED, Cap, Rules
from relay.store.call_index import number_key, pair_key
from relay.store.sealing import Sealer

FEW: Final = 100  # calls; caps above that count in slices
SLICES: Final = 32  # per shortest window
MOST_SLICES: Final = 512  # per key
# How far a node's clock may be behind the server's. Older calls are counted in call_index, by the clocks of nodes.
_CLOCKS_MS: Final = 5_000
_MEMORY_MS: Final = 1_000 * MEMORY_S
_KEPT_MS: Final = 2 * _MEMORY_MS  # how long an idle row is kept
# The statement found no binding in force: if the call policy found one all the same, the call must be refused.
_NOT_COUNTED: Final = Counted((), STORE_FAILED)
SWEPT: Final = 256  # parts of the table, by the first byte of a hash

# $3 is the time of the call by the node's clock, against which bindings expire. At most one row.
_CANDIDATE: Final = """
candidate AS MATERIALIZED (
    SELECT CAST(extract(epoch FROM now()) * 1000 AS bigint) AS at{left}
    FROM found
    WHERE has_route AND free_at IS NULL AND locked = 0 AND state = 'approved'
        AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $3::bigint)
        AND (place = 1 OR NOT EXISTS (
            SELECT FROM found AS own
            WHERE own.place = 1 AND own.has_route AND (own.free_at IS NULL OR own.free_at > $3::bigint)))
)"""
# The least number of calls that a cap with a window longer than the memory still allows within the memory's time.
_LEFT: Final = """,
        least({caps}) AS {name}_left"""
_LEFT_BY: Final = """{most} - (
            SELECT count(*) FROM call_index
            WHERE key = {key} AND at > $3::bigint - {window_ms} AND at <= $3::bigint - {memory_ms})"""
# Only the differences of `granted` and `before` matter, so a row may start at any number: it starts at `left`.
_COUNTED: Final = """
{name} AS (
    INSERT INTO frequency AS was (key, granted, begun, before)
    SELECT {key}, {left} + 1, ARRAY[at], ARRAY[CAST({left} AS bigint)] FROM candidate WHERE {first}
    ON CONFLICT (key) DO UPDATE SET
        granted = was.granted + 1,
        begun = CASE WHEN {same} THEN was.begun ELSE (was.begun || excluded.begun){kept} END,
        before = CASE WHEN {same} THEN was.before ELSE (was.before || was.granted){kept} END
    WHERE {room}
    RETURNING begun[cardinality(begun)] AS slice
)"""
_SAME_SLICE: Final = "excluded.begun[1] - was.begun[cardinality(was.begun)] < {slice_ms}"
_KEPT: Final = "[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1:]"
# The calls since a time: all except those before the first slice that reaches past it.
_SINCE: Final = "was.granted - coalesce(was.before[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1], was.granted)"

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


class Capped(NamedTuple):
    """The caps on one kind of key."""

    name: str  # of the part of the statement that counts
    caps: Sequence[Cap]
    over: Refusal  # for a call beyond a cap

    @property
    def long(self) -> list[Cap]:
        """The caps with windows longer than the memory."""
        return [cap for cap in self.caps if cap.window_s > MEMORY_S]


class Counting:
    """The counting part of the look-up statement for the caps of some rules, and the decoding of its columns."""

    def __init__(self, rules: Rules) -> None:
        """The statement takes the time of the call as $3, followed by the result of `keys`."""
        # All look-ups lock their rows in this order, since the number is counted after the caller.
        both = (
            Capped("by_caller", rules.caller_caps, FREQUENCY_CALLER),
            Capped("by_number", rules.number_caps, FREQUENCY_NUMBER),
        )
        self._capped = [capped for capped in both if capped.caps]
        self.width = 1 + len(self._capped)
        names = [capped.name for capped in self._capped]
        self.columns = ", ".join(["(SELECT at FROM candidate)", *(f"(SELECT slice FROM {name})" for name in names)])
        left, tables = "", ""
        for place, capped in enumerate(self._capped):
            key = f"${4 + place}"
            left += _left(capped, key)
            tables += f",{counting_part(capped, key, *names[:place])}"
        self.tables = _CANDIDATE.format(left=left) + tables

    def keys(self, sealer: Sealer, number: str, caller: str) -> list[bytes]:
        """The keys under which a call is counted."""
        return [_KEYS[capped.name](sealer, number, caller) for capped in self._capped]

    def read(self, columns: Sequence[int | None], keys: Sequence[bytes]) -> Counted:
        """Decode the columns."""
        if columns[0] is None:
            return _NOT_COUNTED
        under: list[tuple[bytes, int]] = []
        for capped, key, slice_ms in zip(self._capped, keys, columns[1:], strict=True):
            if slice_ms is None:
                return Counted(under, capped.over)
            under.append((key, slice_ms))
        return Counted(under, None)


_KEYS: Final[dict[str, Callable[[Sealer, str, str], bytes]]] = {
    "by_caller": pair_key,
    "by_number": lambda sealer, number, caller: number_key(sealer, number),
}


def _left(capped: Capped, key: str) -> str:
    """The column with the calls that the long caps still allow; empty without long caps."""
    caps = [
        _LEFT_BY.format(most=most, key=key, window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
        for most, window_s in capped.long
    ]
    return _LEFT.format(caps=", ".join(caps), name=capped.name) if caps else ""


def counting_part(capped: Capped, key: str, after: str = "") -> str:
    """The part of the statement that counts under a key. `after`: a part that must have counted first."""
    slice_ms = slice_ms_of(capped.caps)
    short = [(most, 1000 * window_s) for most, window_s in capped.caps if window_s <= MEMORY_S]
    room = [f"{_SINCE.format(ms=window_ms + slice_ms - 1)} < {most}" for most, window_ms in short]
    first = [f"EXISTS (SELECT FROM {after})"] if after else []
    longest_ms = max((window_ms for _, window_ms in short), default=0)
    left = "0"
    if capped.long:
        longest_ms = _MEMORY_MS + _CLOCKS_MS
        left = f"{capped.name}_left"
        first.append(f"{left} > 0")
        room.append(f"{_SINCE.format(ms=longest_ms + slice_ms - 1)} < excluded.before[1]")
    return _COUNTED.format(
        name=capped.name,
        key=key,
        left=left,
        first=" AND ".join(first) or "true",
        same=_SAME_SLICE.format(slice_ms=slice_ms),
        kept=_KEPT.format(ms=longest_ms + slice_ms - 1),
        room=" AND ".join(room),
    )


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
