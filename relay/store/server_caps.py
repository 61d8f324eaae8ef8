"""Caps on the frequency of calls in a shared store: counted on the server, by the statement that looks the call up.

A call that the statement finds bound is counted there at once, under the caller on this number and under the number, if
no cap forbids it. Whoever finds the row of a key taken waits until the other look-up has committed, and goes by what
that one has left (ON CONFLICT DO UPDATE, at READ COMMITTED). So two nodes that ask at the same moment never grant one
call more than a cap allows. All times are the server's, so that nodes may have different ones.

A call that the gate refuses for another reason is given back afterwards. Whatever else goes wrong leaves it counted.

Where few calls are allowed each is counted to the millisecond. Where many are, those of a slice of time count together
until the last of them may have left the window: a row stays small however often its number is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from relay.call.routing import Refusal
from relay.policy.judge import Counted
from relay.policy.rules import FREQUENCY_CALLER, FREQUENCY_NUMBER, MEMORY_S, STORE_FAILED, Cap, Rules
from relay.store.call_index import number_key, pair_key
from relay.store.sealing import Sealer

FEW: Final = 100  # calls, from which on they are counted in slices
SLICES: Final = 32  # of the shortest window
MOST_SLICES: Final = 512  # of one key
# What is older is counted in call_index, where times are those of nodes: these may be so far behind the server's.
_CLOCKS_MS: Final = 5_000
_MEMORY_MS: Final = 1_000 * MEMORY_S
_KEPT_MS: Final = 2 * _MEMORY_MS  # a row that nobody has been counted in
# Where the statement found nobody bound: no judge may find otherwise.
_NOT_COUNTED: Final = Counted((), STORE_FAILED)
SWEPT: Final = 256  # parts of the table, by the first byte of a hash

# $3 is the moment of the call by the node's clock: bindings expire by it. One row at the most.
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
# Of the caps that look back beyond the memory: how many calls the one that leaves fewest leaves to the memory's time.
_LEFT: Final = """,
        least({caps}) AS {name}_left"""
_LEFT_BY: Final = """{most} - (
            SELECT count(*) FROM call_index
            WHERE key = {key} AND at > $3::bigint - {window_ms} AND at <= $3::bigint - {memory_ms})"""
# `granted` and `before` go by their differences alone, so that a row may begin at any number: it is what is left.
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
# Since a moment: all calls but those before the first slice that reaches beyond it.
_SINCE: Final = "was.granted - coalesce(was.before[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1], was.granted)"

# $1: the key; $2: the slice that it was counted in.
GIVE_BACK: Final = """
UPDATE frequency SET
    granted = granted - 1,
    before = ARRAY(
        SELECT calls - CAST(at > $2 AS integer)
        FROM unnest(begun, before) WITH ORDINALITY AS slice (at, calls, place) ORDER BY place)
WHERE key = $1
"""
# $1 and $2: from which key on, and up to which. It waits for no look-up, and none waits for it for long.
SWEEP: Final = f"""
DELETE FROM frequency WHERE key IN (
    SELECT key FROM frequency
    WHERE key >= $1 AND key < $2
        AND begun[cardinality(begun)] < CAST(extract(epoch FROM now()) * 1000 AS bigint) - {_KEPT_MS}
    FOR UPDATE SKIP LOCKED)
"""


class Capped(NamedTuple):
    """Whose calls some caps are on."""

    name: str  # of the part of the statement that counts them
    caps: Sequence[Cap]
    over: Refusal  # of a call that is one too many

    @property
    def long(self) -> list[Cap]:
        """Those that look back beyond the memory."""
        return [cap for cap in self.caps if cap.window_s > MEMORY_S]


class Counting:
    """How calls are counted for the caps of some rules: what of the statement does it, and what that says."""

    def __init__(self, rules: Rules) -> None:
        """The statement takes the moment of the call as $3, and behind it what `keys` gives."""
        # In this order all lock the rows of a call, since a number counts after its caller.
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
        """Under which a call is counted."""
        return [_KEYS[capped.name](sealer, number, caller) for capped in self._capped]

    def read(self, columns: Sequence[int | None], keys: Sequence[bytes]) -> Counted:
        """What the columns say."""
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
    """A column for what the long caps leave; none where there are none."""
    caps = [
        _LEFT_BY.format(most=most, key=key, window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
        for most, window_s in capped.long
    ]
    return _LEFT.format(caps=", ".join(caps), name=capped.name) if caps else ""


def counting_part(capped: Capped, key: str, after: str = "") -> str:
    """The part of the statement that counts under a key. `after`: the part without whose count it does not."""
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
    """How long calls are counted together; 1: each by itself."""
    if max(cap.most for cap in caps) <= FEW:
        return 1
    shortest_s = min(min(cap.window_s for cap in caps), MEMORY_S)
    return max(1000 * shortest_s // SLICES, _MEMORY_MS // MOST_SLICES)


def sweep_parts() -> Iterator[tuple[bytes, bytes]]:
    """From which key on, and up to which, for `SWEEP`: again and again through all of the table."""
    while True:
        for part in range(SWEPT):
            yield bytes([1, part]), bytes([1, part + 1]) if part + 1 < SWEPT else bytes([2])
