"""Concurrent counts and rates by name, over all nodes of a store; answers to unknown sources; fair shares and queues.

None reads a clock: `now` is an argument, in monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from relay.defence.bans import source_of
from relay.model.actions import Outbox
from relay.model.settings import Limits, Peer
from relay.sip.timers import TimerHeap
from relay.sip.transaction import TransactionLayer

Item = TypeVar("Item")


class Tally:
    """Counters by name; a name at zero is removed."""

    __slots__ = ("_counts", "elsewhere")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.elsewhere: Mapping[str, int] = {}  # counts of the other nodes

    def begin(self, name: str) -> None:
        """Add one."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def end(self, name: str) -> None:
        """Subtract one. Raises KeyError at zero."""
        left = self._counts[name] - 1
        if left:
            self._counts[name] = left
        else:
            del self._counts[name]

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def everywhere(self, name: str) -> int:
        """The count over all nodes."""
        return self.count(name) + self.elsewhere.get(name, 0)

    def counts(self) -> dict[str, int]:
        """This node's counts by name."""
        return dict(self._counts)


# -- Rate limits over a sliding second


class EventsElsewhere(NamedTuple):
    """Events granted by the other nodes of the store within their last second."""

    granted: int
    nodes: int  # number of nodes that granted any


class Rates:
    """A sliding window of one second per name (a business, a peer)."""

    def __init__(self) -> None:
        self._granted: dict[str, deque[float]] = {}
        self.elsewhere: Mapping[str, EventsElsewhere] = {}

    def admit(self, name: str, most: int | None, at_s: float) -> bool:
        """Whether one more event is within `most` per second; counts it if so. None: no limit.

        The clock may be set back, and `most` may change between calls.
        """
        if most is None:
            return True
        granted = self._granted.get(name)
        if granted is None:
            granted = self._granted[name] = deque()
        while granted and not 0 <= at_s - granted[0] < 1:
            granted.popleft()
        if len(granted) >= self._ours(name, most):
            return False
        granted.append(at_s)
        return True

    def used(self, name: str, at_s: float) -> int:
        """The number of events of one name that count at that time. Adds none."""
        granted = self._granted.get(name, ())
        return len(granted) - sum(1 for _ in takewhile(lambda each: not 0 <= at_s - each < 1, granted))

    def has_room(self, name: str, most: int | None, at_s: float) -> bool:
        """Whether `admit` would admit one more event. Counts nothing."""
        return most is None or self.used(name, at_s) < self._ours(name, most)

    def counts(self, at_s: float) -> dict[str, int]:
        """Events granted within the last second, by name."""
        found = {name: sum(0 <= at_s - each < 1 for each in granted) for name, granted in self._granted.items()}
        return {name: count for name, count in found.items() if count}

    def _ours(self, name: str, most: int) -> int:
        """This node's part of the limit: what the other nodes leave, but at least an equal part.

        Within a second or two each busy node gets its equal part, and all nodes together at most `most`.
        """
        elsewhere = self.elsewhere.get(name)
        if elsewhere is None:
            return most
        return max(most - elsewhere.granted, -(-most // (elsewhere.nodes + 1)))


# -- Rate limit of responses to unknown sources

SHARE: Final = 4  # one source gets at most 1/SHARE of the limit


class Strangers:
    """At most `per_s` responses per second to all unknown sources, and a part of it to each. It reads no clock.

    A source is an address, with IPv6 a network of 64 bits.
    """

    # Placeholder in the record of a refused request.
    PEER: ClassVar[Peer] = Peer("", (), tcp_allowed=False, sources=())

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._rates = Rates()
        self._answered: Counter[str] = Counter()  # by source, in the current second; bounded by `per_s`
        self._second = 0

    def admit(self, source: str, now: float, parts: int = 1) -> bool:
        """Whether to answer one more request from that address; counts it if so. `parts`: the number of peers there."""
        if int(now) != self._second:
            self._second = int(now)
            self._answered.clear()
        if ":" in source:
            source = source_of(source)
        if self._answered[source] * SHARE >= self._per_s * parts or not self._rates.admit("", self._per_s, now):
            return False
        self._answered[source] += 1
        return True


# -- Fair limits per peer of bounded resources

# A peer may use at most this multiple of the free capacity: 7/8 of a bound if it is alone, 1/(n + 1/7) each of n
# saturated peers. The rest is free for the next peer at once: no call has to end before its first one is admitted.
# (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998.)
TIMES_FREE: Final = 7
STRAYS_PER_S: Final = 1_000  # stray messages of one peer; enough for one ping per second of 1,000 targets
TOLD_EVERY_S: Final = 5.0
STRANGERS: Final = "(strangers)"  # in the log and in metrics; no peer has a name with parentheses


def is_within_share(used: int, in_all: int, most: int) -> bool:
    """Whether one peer may use `used` of `most`, while all peers use `in_all`; both include the requested unit."""
    return in_all <= most and used <= TIMES_FREE * (most + 1 - in_all)


class FairQueue(Generic[Item]):
    """Round robin over names, first in first out within a name. Work-conserving: idle names cost no turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Item]] = {}  # non-empty queues by name
        self._turns: deque[str] = deque()  # their names, next first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, name: str, item: Item) -> None:
        queue = self._waiting.get(name)
        if queue is None:
            queue = self._waiting[name] = deque()
            self._turns.append(name)
        queue.append(item)
        self._count += 1

    def take(self) -> tuple[str, Item]:
        """Remove the next item; returns its name and the item. Raises IndexError if empty."""
        name = self._turns.popleft()
        queue = self._waiting[name]
        item = queue.popleft()
        self._count -= 1
        if queue:
            self._turns.append(name)
        else:
            del self._waiting[name]
        return name, item

    def count(self, name: str) -> int:
        """The number of waiting items of a name."""
        queue = self._waiting.get(name)
        return 0 if queue is None else len(queue)

    def before(self, name: str) -> int:
        """The number of items that would be served before a new item of this name."""
        own = self.count(name)
        return own + min(self._count - own, (own + 1) * len(self._waiting))

    def heads(self) -> list[tuple[str, Item]]:
        """The oldest item of each name."""
        return [(name, queue[0]) for name, queue in self._waiting.items()]


class PeerShares:
    """The limits of one engine. Each episode over the limit is logged twice: at its beginning and at its end."""

    def __init__(self, outbox: Outbox, timers: TimerHeap, transactions: TransactionLayer, limits: Limits) -> None:
        self.limits = limits
        self.flooders: set[str] = set()  # peers at their limit of strays in the current second
        self.counts: dict[str, int] = {}  # calls and messages over a limit, by peer name
        self._outbox = outbox
        self._timers = timers
        self._transactions = transactions
        self._strays: dict[str, int] = {}  # by name, in the current second
        self._second = 0
        self._episodes: dict[str, _Episode] = {}

    def admits_transaction(self, name: str, now: float) -> bool:
        """Whether the peer may have one more transaction. Without room, only requests that end a call begin one."""
        used, in_all = self._transactions.served.get(name, 0) + 1, len(self._transactions) + 1
        return self.admits(name, "transactions", used, in_all, self.limits.max_transactions, now)

    def admits_lookup(self, name: str, now: float) -> bool:
        """Whether the peer may have one more pending look-up."""
        used, in_all = self.pending_lookups(name)
        return self.admits(name, "look-ups", used + 1, in_all + 1, self.limits.max_pending_lookups, now)

    def pending_lookups(self, name: str) -> tuple[int, int]:
        """The pending look-ups of the peer, and of all peers."""
        return self._outbox.looking_up.get(name, 0), len(self._outbox.pending_lookups)

    def admits(self, name: str, what: str, used: int, in_all: int, most: int, now: float) -> bool:
        """Whether the peer may have one more of `what`; both counts include it."""
        if is_within_share(used, in_all, most):
            return True
        if in_all <= most:
            self.exceed(name, what, now)
        return False

    def count_stray(self, name: str, now: float) -> bool:
        """Count a stray message of the peer. False: it is over the limit per second."""
        if int(now) != self._second:
            self._second = int(now)
            self._strays.clear()
            self.flooders.clear()
        strays = self._strays[name] = self._strays.get(name, 0) + 1
        if strays >= STRAYS_PER_S:
            self.flooders.add(name)
        if strays <= STRAYS_PER_S:
            return True
        self.exceed(name, "messages", now)
        return False

    def is_flooding(self, name: str, now: float) -> bool:
        """Whether the peer is at its limit of stray messages in this second."""
        return int(now) == self._second and name in self.flooders

    def exceed(self, name: str, what: str, now: float) -> None:
        """Count a unit of `what` over the peer's limit. The first one is logged."""
        label = name or STRANGERS
        self.counts[label] = self.counts.get(label, 0) + 1
        episode = self._episodes.get(label)
        if episode is None:
            episode = self._episodes[label] = _Episode(now)
            self._outbox.note("peer.over_share", peer=label, of=what)
            self._timers.set(now + TOLD_EVERY_S, self._look)
        episode.counts[what] += 1
        episode.last_at = now

    def _look(self, now: float) -> None:
        """End the episodes of peers that stayed within their limits for TOLD_EVERY_S."""
        for label, episode in list(self._episodes.items()):
            if now - episode.last_at >= TOLD_EVERY_S:
                del self._episodes[label]
                lasted_s = round(episode.last_at - episode.began_at, 1)
                self._outbox.note("peer.within_share", peer=label, lasted_s=lasted_s, beyond=dict(episode.counts))
        if self._episodes:
            self._timers.set(now + TOLD_EVERY_S, self._look)


class _Episode:
    """A period in which one peer is over its limits."""

    __slots__ = ("began_at", "counts", "last_at")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.last_at = now
        self.counts: Counter[str] = Counter()


# -- Limits over all nodes of a store: each node publishes its counts once a second
#
# A node knows its own counts exactly, and those of the others with a delay of one to two seconds. Concurrent calls may
# exceed a limit by the calls begun within that time; in return a call costs no query and no write.

Told = Mapping[str, Mapping[str, int]]  # counts by kind and by name
Clock = Callable[[], float]
_PAUSES: Final = "pauses"
_PAUSES_LEFT: Final = "pauses_left"


class Pauses(Protocol):
    """`relay.policy.call_policy.RefusedAttempts`."""

    def pauses(self, at_s: float) -> tuple[dict[str, int], dict[str, int]]: ...
    def hear(self, lengths: Mapping[str, int], left: Mapping[str, int], at_s: float) -> None: ...


class SharedLimits:
    """The shared limits of one node."""

    def __init__(
        self,
        tallies: Mapping[str, Tally],
        rates: Mapping[str, tuple[Rates, Clock]],
        pauses: Pauses,
        clock: Clock,
    ) -> None:
        """`tallies` and `rates` by kind, under keys common to all nodes. Each rate has its own clock; the pauses use
        `clock`."""
        self._tallies = tallies
        self._rates = rates
        self._pauses = pauses
        self._clock = clock

    def own(self) -> Told:
        """This node's counts, for the others."""
        told = {what: tally.counts() for what, tally in self._tallies.items()}
        told |= {what: rates.counts(clock()) for what, (rates, clock) in self._rates.items()}
        told[_PAUSES], told[_PAUSES_LEFT] = self._pauses.pauses(self._clock())
        return told

    def hear(self, others: Sequence[Told]) -> None:
        """Take the latest counts of the other nodes. A node that is missing does not count any more."""
        for what, tally in self._tallies.items():
            tally.elsewhere = {name: sum(counts) for name, counts in _by_name(others, what).items()}
        for what, (rates, _) in self._rates.items():
            counted = _by_name(others, what).items()
            rates.elsewhere = {name: EventsElsewhere(sum(counts), len(counts)) for name, counts in counted}
        for told in others:
            self._pauses.hear(told.get(_PAUSES, {}), told.get(_PAUSES_LEFT, {}), self._clock())


def _by_name(others: Sequence[Told], what: str) -> Mapping[str, list[int]]:
    """The counts of all nodes that have any, by name."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for told in others:
        for name, count in told.get(what, {}).items():
            found[name].append(count)
    return found
