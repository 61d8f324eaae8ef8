"""Answers of the admin socket about calls, peers and bans. `hang_up`, `ban` and `unban` change something."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from relay.call import engine as engine_module
from relay.call.engine import Engine
from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.call import CallRecord, Refusal
from relay.net.capture import Capture
from relay.net.control import Answer, BanAnswers, Handlers
from relay.net.driver import Driver
from relay.net.rtpengine import Rtpengine
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import LookupResult
from relay.policy.explain import Running, TrialCall, explain
from relay.policy.figures import CapCounts
from relay.policy.rules import Rules
from relay.reports.disclosure import record_form
from relay.reports.explain import EXPLANATIONS_PER_S, explanation_form, only_of, peer_named
from relay.version import VERSION

if TYPE_CHECKING:
    from relay.call_hooks import CallHooks

# number, caller, Unix seconds -> look-up, counts of the store; None: those in memory
PeekLookUp = Callable[[str, str, float, Rules], Awaitable[tuple[LookupResult | Refusal, CapCounts | None]]]
HANG_UPS_PER_S = 20  # per business, and for the operator: each one searches all calls


class AdminHandlers:
    """The handlers of one SIP service."""

    def __init__(
        self,
        engine: Engine,
        driver: Driver,
        socket_counts: Callable[[], dict[str, int]],
        rtpengine: Rtpengine | None,
        hooks: CallHooks | None,
        policy: CallPolicy,
        peek: PeekLookUp,
        capture: Capture | None = None,
    ) -> None:
        """`peek` looks up a call and counts none."""
        self._engine = engine
        self._driver = driver
        self._socket_counts = socket_counts
        self._rtpengine = rtpengine
        self._hooks = hooks
        self._policy = policy
        self._peek = peek
        self._explanations = Rates()
        self._capture = capture
        self._bans = BanAnswers(engine.bans)
        self._hang_ups = Rates()
        self._live_cache: dict[str, CallRecord] = {}
        self._live_until = 0.0
        self._build = {"build_info": {f"{VERSION} {platform.python_version()} {_is_compiled()}": 1}}

    def by_name(self) -> Handlers:
        """The handlers by command name."""
        return {
            "statistics": self.statistics,
            "live": self.live,
            "call": self.call,
            "hang_up": self.hang_up,
            "peers": self.peers,
            "spans": self.spans,
            "explain": self.explain,
            "give_capture": self.give_capture,
            **self._bans.by_name(),
        }

    def statistics(self) -> Answer:
        return {
            **self._engine.statistics(),
            **self._socket_counts(),
            "bugs": self._driver.bugs,
            "tasks": len(asyncio.all_tasks()),
            "refused": self._engine.refusals(),
            "shed": self._engine.shed(),
            "over_share": self._engine.over_share(),
            **self._engine.results(),
            **self._build,
            "commit_wait_seconds": self._driver.commit_wait_s(time.monotonic()),
            "loop_lag_seconds": self._driver.pace.longest_s(time.monotonic()),
            **self._policy.statistics(),
            **self._peer_gauges(),
            **(self._rtpengine.statistics() if self._rtpengine else {}),
            **(self._capture.statistics() if self._capture else {}),
            **(self._hooks.statistics() if self._hooks else {}),
        }

    def give_capture(self, call_id: str) -> Answer:
        """Hand what is captured of a call under way to the backend, and what follows. `held`: there is such a call."""
        return {"held": self._capture is not None and self._capture.give(call_id)}

    def _peer_gauges(self) -> dict[str, dict[str, int]]:
        """Per-peer gauges for the metrics. Keys are label values, separated by blanks."""
        peers = self._engine.peers(time.monotonic())
        targets = {f"{peer.peer} {each.target}": int(each.state == "up") for peer in peers for each in peer.targets}
        targets |= {f"{peer.peer} ": 0 for peer in peers if not peer.targets}
        calls = {f"{peer.peer} in": peer.calls_in for peer in peers}
        calls |= {f"{peer.peer} out": peer.calls_out for peer in peers}
        registered = {peer.peer: int(peer.registered) for peer in peers if peer.registered is not None}
        return {"target_up": targets, "peer_calls": calls, "peer_registered": registered}

    def spans(self) -> Answer:
        """Requests to hooks since the last query."""
        return {"spans": self._hooks.take_spans() if self._hooks else []}

    def peers(self) -> Answer:
        peers = self._engine.peers(time.monotonic())
        return {
            "peers": [peer._asdict() | {"targets": [target._asdict() for target in peer.targets]} for peer in peers]
        }

    async def explain(self, number: str, caller: str, peer: str | None = None, business: str | None = None) -> Answer:
        """Explain a call as it would be now, and make none. Raises Refused above `EXPLANATIONS_PER_S`.

        `business`: the requester, to whom bindings of others are none; None: the operator.
        """
        engine, policy, now = self._engine, self._policy, time.monotonic()
        if not self._explanations.admit(business or "", EXPLANATIONS_PER_S, now):
            raise Refused("rate_limited", "", f"at most {EXPLANATIONS_PER_S} explanations per second")
        call = TrialCall(number, caller, now + engine.clock_offset_s, peer_named(engine.settings, peer))
        found, counts = await self._peek(number, caller, call.unix_s, policy.rules)
        running = Running(policy, engine, now)
        told = explain(call, only_of(found, business), policy.rules, engine.settings, running, counts=counts)
        return explanation_form(call, told, "relay", for_operator=business is None)

    def live(self, business: str | None = None, most: int = 1_000, reveal: bool = False) -> Answer:
        """The newest `most` live or ringing calls, of one or all businesses. Numbers are masked unless `reveal`."""
        calls = [record for record in self._live_records().values() if business in (None, record.business)]
        shown = [_live_call(record, reveal) for record in calls[:most]]
        return {"calls": shown, "total": len(calls)}

    def call(self, call_id: str, business: str | None = None, reveal: bool = False) -> Answer:
        """One answered or ringing call, in the form of `live`. Raises Refused if the business has no such call."""
        record = self._live_records().get(call_id)
        if record is None or business not in (None, record.business):
            raise no_such_call()
        return _live_call(record, reveal)

    def _live_records(self) -> dict[str, CallRecord]:
        """Live records by call id, newest first.

        Cached for ten times as long as reading them took: at most a tenth of the CPU time.
        """
        began = time.monotonic()
        if began >= self._live_until:
            newest_first = sorted(self._engine.live(), key=lambda record: -record.received_at)
            self._live_cache = {record.call_id: record for record in newest_first}
            ended = time.monotonic()
            self._live_until = ended + 10 * (ended - began)
        return self._live_cache

    def hang_up(self, call_id: str, business: str | None = None, dry_run: bool = False) -> Answer:
        """End a call. Raises Refused for an unknown call, one of another business, or above `HANG_UPS_PER_S`.

        `business`: the requester; None: the operator. `dry_run`: check only.
        """
        now = time.monotonic()
        if not self._hang_ups.admit(f"{business or ''} {dry_run}", HANG_UPS_PER_S, now):
            raise Refused("rate_limited", "", f"at most {HANG_UPS_PER_S} hang-ups per second")
        if not (self._engine.is_live(call_id, business) if dry_run else self._engine.hang_up(call_id, now, business)):
            raise no_such_call()
        self._driver.perform(now)
        return {"call_id": call_id}


def _is_compiled() -> str:
    """ "true" if the engine was compiled by mypyc."""
    return str(not str(engine_module.__file__).endswith(".py")).lower()


def no_such_call() -> Refused:
    """The error for a call that is neither answered nor ringing."""
    return Refused("not_found", "call_id", "no such call is up")


def _live_call(record: CallRecord, reveal: bool) -> Answer:
    """A record without the legs' Call-IDs: peers chose that text, and it may hold anything.

    Texts of business users are as written: the API and the commands mask the numbers in them (`mask_texts`).
    """
    call = record_form(record, reveal=reveal, as_written=True)
    del call["caller_leg_call_id"], call["callee_leg_call_id"]
    return call
