"""The call policy: it evaluates look-up results, counts granted calls, and pauses peers that guess.

The counts are rebuilt at a start by `recall`; those that PostgreSQL keeps come with the look-up
(`LookupResult.counted`). It reads neither clock nor store itself.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Final

from relay.defence.limits import Rates
from relay.errors import Report
from relay.model.actions import LookUp
from relay.model.call import Refusal, Route, refusal_on_route
from relay.model.outcomes import (
    BUSINESS_RATE,
    CALLER_INTERNATIONAL,
    CALLER_NOT_OF_PEER,
    NO_BINDING,
    NUMBER_UNKNOWN,
    REFUSED_TOO_OFTEN,
    VERIFICATION_FAILED,
)
from relay.model.settings import Peer, may_call_as
from relay.policy.evaluate import CapCount, DialledCall, LookupResult, evaluate, with_binding
from relay.policy.rules import MEMORY_S, LastCaller, Recent, RefusalCaps, Rules, quota

OnRouted = Callable[[int, Route | Refusal], None]  # LookUp.token, answer

_GUESSED_WRONG: Final = (NO_BINDING, CALLER_INTERNATIONAL, NUMBER_UNKNOWN)  # refusals of callers that were never bound


class CallPolicy:
    """The call policy of one relay."""

    def __init__(
        self,
        fetch: Callable[[str, str, float], LookupResult | Refusal],
        rules: Rules,
        remember: Callable[[LastCaller], None],
        report: Report | None = None,
        decide: Callable[[LookUp, Route | Refusal, OnRouted], None] | None = None,
        give_back: Callable[[CapCount], None] | None = None,
    ) -> None:
        """`fetch`: `relay.store.sqlite.lookup.RouteReader.fetch`; `remember` stores a callee's last caller,
        once his call is put through.

        `report(event, fields)` gets the pauses of peers. `decide` asks the hooks about a route, or about
        an unknown caller for whom they may make a binding, and answers later. `give_back` undoes a count that the
        store made.
        """
        self._fetch = fetch
        self.rules = rules
        self._remember = remember
        self.recent = Recent()
        self.rates = Rates()  # of granted calls, by business
        self._report = report
        self._decide = decide
        self._give_back = give_back
        self.refused_attempts = RefusedAttempts()
        self._pauses: Counter[str] = Counter()  # number of pauses, by kind

    def route(self, asked: LookUp, unix_s: float, routed: OnRouted) -> None:
        """Look up and evaluate a call of the engine; `routed` gets the answer, at once unless it must be verified."""
        self.pass_on(asked, self.look_up(asked.number, asked.caller, unix_s, asked.peer, asked), unix_s, routed)

    def pass_on(self, asked: LookUp, answer: Route | Refusal, unix_s: float, routed: OnRouted) -> None:
        """Give the answer to `routed`, by way of the hooks if the route, or the caller, requires it."""
        if isinstance(answer, Route):
            if not answer.verify and not answer.hook:
                self._decided(asked, routed, asked.token, answer)
            elif self._decide is not None:
                self._decide(asked, answer, partial(self._decided, asked, routed))
            else:
                self._decided(asked, routed, asked.token, refusal_on_route(VERIFICATION_FAILED, answer))
        elif answer.may_bind and self._decide is not None and asked.kind == "call":
            self._decide(asked, answer, partial(self._decided, asked, routed))
        else:
            routed(asked.token, self.not_bound(asked, unix_s) if answer.may_bind else answer)

    def _decided(self, asked: LookUp, routed: OnRouted, token: int, answer: Route | Refusal) -> None:
        """The final answer. The caller of a call that goes on is remembered, any other is not counted."""
        routed(token, answer)
        last = asked.last_caller
        if asked.given_up or isinstance(answer, Refusal):
            self.give_back(asked)
        elif isinstance(last, LastCaller):
            self._remember(last)

    def give_back(self, asked: LookUp) -> None:
        """Undo what the caps on frequency have counted for a call that was granted, and is refused or given up."""
        counted, asked.counted = asked.counted, None
        if isinstance(counted, DialledCall):
            self.recent.give_back(counted.caller_key)
            self.recent.give_back(counted.number_key)
        elif isinstance(counted, CapCount) and self._give_back is not None:
            self._give_back(counted)

    def not_bound(self, asked: LookUp, unix_s: float) -> Refusal:
        """The refusal of an unknown caller for whom no binding was made. The attempt counts as a guess."""
        if asked.peer is not None:
            self._note_refused(asked.number, asked.caller, unix_s, asked.peer)
        return NO_BINDING

    def look_up(
        self, number: str, caller: str, unix_s: float, peer: Peer | None = None, asked: LookUp | None = None
    ) -> Route | Refusal:
        """Look up and evaluate a call; a granted one is counted. `caller`: E.164 without "+", "" if anonymous.

        `peer`: the peer that asserts the caller; None: the caller is trusted. `asked` notes what is counted, for
        `give_back`, and the caller, to be remembered.
        """
        refusal = self.refuse_unasked(number, caller, unix_s, peer)
        if refusal is not None:
            return refusal
        return self._answer(self._fetch(number, caller, unix_s), number, caller, unix_s, peer, asked)

    def answer(self, found: LookupResult | Refusal, asked: LookUp, unix_s: float) -> Route | Refusal:
        """As `look_up`, for a finished look-up. It checks pauses again: concurrent guesses must reveal no more."""
        number, caller, peer = asked.number, asked.caller, asked.peer
        refusal = self.refuse_unasked(number, caller, unix_s, peer)
        return self._answer(found, number, caller, unix_s, peer, asked) if refusal is None else refusal

    def refuse_unasked(self, number: str, caller: str, unix_s: float, peer: Peer | None) -> Refusal | None:
        """A refusal without a look-up, which reveals no binding: the peer is paused, or may not assert the caller."""
        if peer is None:
            return None
        pause_s = self.refused_attempts.pause_s(peer.name, number, caller, unix_s)
        if pause_s > 0:
            return REFUSED_TOO_OFTEN._replace(retry_after_s=math.ceil(pause_s))
        if may_call_as(peer.numbers, caller):
            return None
        self._note_refused(number, caller, unix_s, peer)
        return CALLER_NOT_OF_PEER

    def _answer(
        self,
        found: LookupResult | Refusal,
        number: str,
        caller: str,
        unix_s: float,
        peer: Peer | None,
        asked: LookUp | None,
    ) -> Route | Refusal:
        if isinstance(found, Refusal):
            return found
        caller_key, number_key = count_keys(number, found.caller_hash)
        pending = DialledCall(number, caller, unix_s, caller_key, number_key)
        answer = evaluate(found, pending, self.rules, self.recent)
        bound = found.bound
        if bound is None or isinstance(answer, Refusal):
            if bound is None and answer is NO_BINDING and self.rules.bind_unknown and self.rules.parties.allow(caller):
                return NO_BINDING._replace(may_bind=True)
            if bound is None and caller and peer is not None and answer in _GUESSED_WRONG:
                self._note_refused(number, caller, unix_s, peer)
            return answer
        max_cps = quota(bound.business, bound.max_cps, self.rules.quotas.max_cps)
        if not self.rates.admit(bound.business, max_cps, unix_s):
            return with_binding(BUSINESS_RATE, bound)
        if found.counted is None:
            self._note(caller_key, number_key, unix_s)
        if asked is not None:
            asked.counted = found.counted or pending
            if bound.party in ("g", "*") and self.rules.parties.allow(caller):  # it must be callable
                asked.last_caller = LastCaller(bound.binding_id, number, caller, int(unix_s * 1000))
        return answer

    def _note_refused(self, number: str, caller: str, unix_s: float, peer: Peer) -> None:
        caps = self.rules.refusal_caps
        pauses = self.refused_attempts.note(peer.name, number, caller, caps, peer.max_refused_in, unix_s)
        self._pauses.update(pauses.keys())
        if pauses and self._report is not None:
            self._report("peer.refused_too_often", {"peer": peer.name, "number": number, "waits_s": pauses})

    def statistics(self) -> dict[str, dict[str, int]]:
        """For the metrics."""
        return {"refused_too_often": dict(self._pauses)}

    def apply_config(self, rules: Rules) -> None:
        """Apply new rules. Counts are kept."""
        self.rules = rules

    def clock_was_set(self, by_s: float) -> None:
        """Shift all counts with the clock, so that their age stays the same."""
        self.recent.shift(by_s)
        self.refused_attempts.shift(by_s)

    def recall(self, number: str, caller_hash: bytes, at_s: float) -> None:
        """Count a call granted before the start. Call it in order of time."""
        self._note(*count_keys(number, caller_hash), at_s)

    @property
    def recall_s(self) -> int:
        """The period that `recall` must cover, seconds; 0 without caps."""
        return MEMORY_S if self.rules.caller_caps or self.rules.number_caps else 0

    def _note(self, caller_key: int, number_key: int, at_s: float) -> None:
        if self.rules.caller_caps or self.rules.number_caps:  # both: the others may come by a reload
            self.recent.note(caller_key, at_s)
            self.recent.note(number_key, at_s)


def count_keys(number: str, caller_hash: bytes) -> tuple[int, int]:
    """The keys of (number, caller) and of the number in `Recent`: 64 bits, valid in this process only."""
    return hash((number, caller_hash)), hash(number)


# -- Pauses of a peer after too many refused attempts, so that bindings cannot be found by guessing
#
# An attempt counts if its caller was never bound on the number, or may not be asserted by the peer. During a pause the
# peer's calls are refused without a look-up, which reveals nothing. Other peers are not affected. Memory is limited per
# peer. Nodes of one store count separately and share pauses, except those of callers: a real number must not be
# readable in the database.

WINDOW_S: Final = 600
FIRST_PAUSE_S: Final = 10.0  # doubled for each further pause, until no attempt is refused for WINDOW_S
MOST_KEYS = 20_000  # numbers, or callers, kept per peer; the oldest are dropped first
MOST_TOLD = 1_000  # latest pauses per peer that are shared with other nodes

OF_NUMBER: Final = "number"  # scope of a pause: the peer's calls to one number, by one caller, or all
OF_CALLER: Final = "caller"
OF_PEER: Final = "peer"


class RefusedAttempts:
    """The refused attempts of all peers, by name."""

    def __init__(self) -> None:
        self._peers: dict[str, _OfPeer] = {}

    def pause_s(self, peer: str, number: str, caller: str, at_s: float) -> float:
        """The rest of the pause for such a call, seconds; 0 or less: none."""
        of_peer = self._peers.get(peer)
        if of_peer is None:
            return 0.0
        return max(
            of_peer.by_number.pause_s(number, at_s),
            of_peer.by_caller.pause_s(caller, at_s),
            of_peer.as_a_whole.pause_s("", at_s),
        )

    def note(
        self, peer: str, number: str, caller: str, caps: RefusalCaps, most_of_peer: int, at_s: float
    ) -> dict[str, float]:
        """Count a refused attempt. Returns the pauses that it starts, in seconds by scope.

        `most_of_peer`: the cap on all attempts of the peer.
        """
        of_peer = self._peers.get(peer)
        if of_peer is None:
            of_peer = self._peers[peer] = _OfPeer()
        longest_s = caps.longest_pause_s
        pauses = {
            OF_NUMBER: of_peer.by_number.note(number, caller, caps.of_number, longest_s, at_s),
            OF_CALLER: of_peer.by_caller.note(caller, "", caps.of_caller, longest_s, at_s),
            OF_PEER: of_peer.as_a_whole.note("", "", most_of_peer, longest_s, at_s),
        }
        return {what: pause_s for what, pause_s in pauses.items() if pause_s}

    def pauses(self, at_s: float) -> tuple[dict[str, int], dict[str, int]]:
        """The pauses begun on this node: lengths in seconds, and rests in ms.

        Keys are "PEER NUMBER"; the number is empty for a pause of all calls of a peer.
        """
        lengths: dict[str, int] = {}
        left: dict[str, int] = {}
        for peer, of_peer in self._peers.items():
            for attempts in (of_peer.by_number, of_peer.as_a_whole):
                for number, pause in attempts.ours(at_s):
                    lengths[f"{peer} {number}"] = math.ceil(pause.length_s)
                    left[f"{peer} {number}"] = math.ceil(1000 * (pause.ends_at_s - at_s))
        return lengths, left

    def hear(self, lengths: Mapping[str, int], left: Mapping[str, int], at_s: float) -> None:
        """Apply the `pauses` of another node."""
        for name in lengths.keys() & left.keys():
            peer, _, number = name.rpartition(" ")
            of_peer = self._peers.setdefault(peer, _OfPeer())
            attempts = of_peer.by_number if number else of_peer.as_a_whole
            attempts.hear(number, lengths[name], at_s + left[name] / 1000)

    def shift(self, by_s: float) -> None:
        """Shift all times after a clock step."""
        for of_peer in self._peers.values():
            for each in (of_peer.by_number, of_peer.by_caller, of_peer.as_a_whole):
                each.shift(by_s)


class _OfPeer:
    __slots__ = ("as_a_whole", "by_caller", "by_number")

    def __init__(self) -> None:
        self.by_number = _Attempts()
        self.by_caller = _Attempts()
        self.as_a_whole = _Attempts()


class _Count:
    __slots__ = ("callers", "since_s", "times")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.times = 0
        self.callers: set[int] = set()  # hashes of the distinct callers of a number


class _Pause:
    __slots__ = ("ends_at_s", "is_ours", "length_s")

    def __init__(self, length_s: float, ends_at_s: float, *, is_ours: bool = True) -> None:
        self.length_s = length_s
        self.ends_at_s = ends_at_s
        self.is_ours = is_ours  # begun on this node


class _Attempts:
    """Counts and pauses by number or caller. Evicting a count by a flood of others does not end a pause."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._pauses: OrderedDict[str, _Pause] = OrderedDict()

    def pause_s(self, key: str, at_s: float) -> float:
        pause = self._pauses.get(key)
        return 0.0 if pause is None else pause.ends_at_s - at_s

    def note(self, key: str, caller: str, most: int, longest_s: float, at_s: float) -> float:
        """Count an attempt. Returns the length of the pause it starts, or 0. `caller` "": count all attempts."""
        if not most:
            return 0.0
        pause = self._pauses.pop(key, None)
        if pause is not None and at_s < pause.ends_at_s + WINDOW_S:
            length_s = min(2 * pause.length_s, longest_s)
        elif self._count(key, caller, at_s) < most:
            return 0.0
        else:
            length_s = min(FIRST_PAUSE_S, longest_s)
            del self._counts[key]
        self._begin(key, _Pause(length_s, at_s + length_s))
        return length_s

    def _begin(self, key: str, pause: _Pause) -> None:
        self._pauses[key] = pause
        if len(self._pauses) > MOST_KEYS:
            self._pauses.popitem(last=False)

    def ours(self, at_s: float) -> Iterator[tuple[str, _Pause]]:
        """The latest pauses begun on this node that are not over."""
        latest = islice(reversed(self._pauses.items()), MOST_TOLD)
        return ((key, pause) for key, pause in latest if pause.is_ours and pause.ends_at_s > at_s)

    def hear(self, key: str, length_s: float, ends_at_s: float) -> None:
        """Apply a pause begun on another node."""
        pause = self._pauses.get(key)
        if pause is None or pause.ends_at_s < ends_at_s:
            length_s = length_s if pause is None else max(length_s, pause.length_s)
            self._pauses.pop(key, None)
            self._begin(key, _Pause(length_s, ends_at_s, is_ours=False))

    def _count(self, key: str, caller: str, at_s: float) -> int:
        count = self._counts.pop(key, None)
        if count is None or at_s - count.since_s >= WINDOW_S:
            count = _Count(at_s)
        count.times += 1
        if caller:
            count.callers.add(hash(caller))
        self._counts[key] = count
        if len(self._counts) > MOST_KEYS:
            self._counts.popitem(last=False)
        return len(count.callers) if caller else count.times

    def shift(self, by_s: float) -> None:
        for count in self._counts.values():
            count.since_s += by_s
        for pause in self._pauses.values():
            pause.ends_at_s += by_s
