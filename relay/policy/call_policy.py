"""The call policy: it evaluates look-up results and counts granted calls.

The counts are rebuilt at a start by `recall`; those that PostgreSQL keeps come with the look-up
(`LookupResult.counted`). It reads neither clock nor store itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from relay.call.admission import CALLER_NOT_OF_PEER, NUMBER_UNKNOWN, REFUSED_TOO_OFTEN
from relay.defence.limits import Rates
from relay.model.decision import Refusal, Route
from relay.model.settings import Peer, may_call_as
from relay.policy.evaluate import LookupResult, PendingCall, evaluate, refused
from relay.policy.recent import LastCaller, Recent
from relay.policy.refused_attempts import RefusedAttempts
from relay.policy.rules import BUSINESS_RATE, CALLER_INTERNATIONAL, MEMORY_S, NO_BINDING, Rules, quota

Report = Callable[[str, dict[str, object]], None]  # event, fields

_GUESSED_WRONG: Final = (NO_BINDING, CALLER_INTERNATIONAL, NUMBER_UNKNOWN)  # refusals of callers that were never bound


class CallPolicy:
    """The call policy of one relay."""

    def __init__(
        self,
        fetch: Callable[[str, str, float], LookupResult | Refusal],
        rules: Rules,
        remember: Callable[[LastCaller], None],
        report: Report | None = None,
    ) -> None:
        """`fetch`: `relay.store.lookup.RouteReader.fetch`; `remember` stores a callee's last caller.

        `report(event, fields)` gets the pauses of peers.
        """
        self._fetch = fetch
        self._rules = rules
        self._remember = remember
        self._recent = Recent()
        self.rates = Rates()  # of granted calls, by business
        self._report = report
        self.refused_attempts = RefusedAttempts()
        self._pauses: Counter[str] = Counter()  # number of pauses, by kind

    def look_up(self, number: str, caller: str, unix_s: float, peer: Peer | None = None) -> Route | Refusal:
        """Look up and evaluate a call; a granted one is counted. `caller`: E.164 without "+", "" if anonymous.

        `peer`: the peer that asserts the caller; None: the caller is trusted.
        """
        refusal = self.refuse_unasked(number, caller, unix_s, peer)
        if refusal is not None:
            return refusal
        return self._answer(self._fetch(number, caller, unix_s), number, caller, unix_s, peer)

    def answer(
        self, found: LookupResult | Refusal, number: str, caller: str, unix_s: float, peer: Peer | None = None
    ) -> Route | Refusal:
        """As `look_up`, for a finished look-up. It checks pauses again: concurrent guesses must reveal no more."""
        refusal = self.refuse_unasked(number, caller, unix_s, peer)
        return self._answer(found, number, caller, unix_s, peer) if refusal is None else refusal

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
        self, found: LookupResult | Refusal, number: str, caller: str, unix_s: float, peer: Peer | None
    ) -> Route | Refusal:
        if isinstance(found, Refusal):
            return found
        caller_key, number_key = _keys(number, found.caller_hash)
        asked = PendingCall(number, caller, unix_s, caller_key, number_key)
        answer = evaluate(found, asked, self._rules, self._recent)
        bound = found.bound
        if bound is None or isinstance(answer, Refusal):
            if bound is None and caller and peer is not None and answer in _GUESSED_WRONG:
                self._note_refused(number, caller, unix_s, peer)
            return answer
        max_cps = quota(bound.business, bound.max_cps, self._rules.quotas.max_cps)
        if not self.rates.admit(bound.business, max_cps, unix_s):
            return refused(BUSINESS_RATE, bound)
        if found.counted is None:
            self._note(asked.caller_key, asked.number_key, unix_s)
        if bound.party in ("g", "*") and self._rules.parties.allow(caller):  # it must be callable
            self._remember(LastCaller(bound.binding_id, number, caller, int(unix_s * 1000)))
        return answer

    def _note_refused(self, number: str, caller: str, unix_s: float, peer: Peer) -> None:
        caps = self._rules.refusal_caps
        pauses = self.refused_attempts.note(peer.name, number, caller, caps, peer.max_refused_in, unix_s)
        self._pauses.update(pauses.keys())
        if pauses and self._report is not None:
            self._report("peer.refused_too_often", {"peer": peer.name, "number": number, "waits_s": pauses})

    def statistics(self) -> dict[str, dict[str, int]]:
        """For the metrics."""
        return {"refused_too_often": dict(self._pauses)}

    def follow(self, rules: Rules) -> None:
        """Apply new rules. Counts are kept."""
        self._rules = rules

    def clock_was_set(self, by_s: float) -> None:
        """Shift all counts with the clock, so that their age stays the same."""
        self._recent.shift(by_s)
        self.refused_attempts.shift(by_s)

    def recall(self, number: str, caller_hash: bytes, at_s: float) -> None:
        """Count a call granted before the start. Call it in order of time."""
        self._note(*_keys(number, caller_hash), at_s)

    @property
    def recall_s(self) -> int:
        """The period that `recall` must cover, seconds; 0 without caps."""
        return MEMORY_S if self._rules.caller_caps or self._rules.number_caps else 0

    def _note(self, caller_key: int, number_key: int, at_s: float) -> None:
        if self._rules.caller_caps:
            self._recent.note(caller_key, at_s)
        if self._rules.number_caps:
            self._recent.note(number_key, at_s)


def _keys(number: str, caller_hash: bytes) -> tuple[int, int]:
    """The keys of (number, caller) and of the number in `Recent`: 64 bits, valid in this process only."""
    return hash((number, caller_hash)), hash(number)
