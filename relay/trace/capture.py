"""The keeper of captures: it reads what the relay hands over, decides at the end of a call, and has the call stored.

It runs in the backend. No fault of it, or of the store of captures, disturbs a call or another part of the backend.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from relay.errors import StoreError
from relay.model.capture import (
    LONGEST_AFTER_S,
    REGISTRATIONS,
    UNRESOLVED,
    Arm,
    CapturedCall,
    CapturedDialog,
    CapturedMessage,
    CaptureRules,
)
from relay.model.settings import Listener
from relay.net.bell import Bell
from relay.net.capture import ENDED, LINK, MARK, RECEIVED, SENT, DialogItem, EndItem, Ring, ended_well, read_items
from relay.net.held import Item, own_call_id, sip_call_id
from relay.net.hosts import is_literal
from relay.sip.uri import uri_host
from relay.store.capture_shares import within_shares
from relay.store.captures import Captures
from relay.trace.pending import PendingCall, PendingCalls

POLL_S: Final = 0.05  # between two rounds, at least
IDLE_S: Final = 0.5  # longest further wait for the bell
FRAMES_AT_ONCE: Final = 8
SETTLE_S: Final = 0.5  # interval of the search for calls that are over
QUIET_S: Final = 5.0  # after the last message of an ended call: retransmissions come at most T2 apart, 4 s
QUIET_WELL_S: Final = 1.0  # of one that ended well
ARMS_S: Final = 2.0  # interval of looking for what is armed
MOST_AT_ONCE: Final = 200  # calls in one transaction of the store
MOST_UNSAVED: Final = 4_000  # calls that wait for the store; further ones are given up


class Subscriber(Protocol):
    """Gets captured items as they come, also while nothing is kept."""

    def message(self, call_id: str, dialog: CapturedDialog, message: CapturedMessage) -> None: ...
    def ended(self, ended: EndItem) -> None: ...
    def statistics(self) -> dict[str, int]: ...


class CaptureKeeper:
    """All captures of one relay."""

    def __init__(
        self,
        ring: Ring,
        rules: CaptureRules,
        listeners: Sequence[Listener],
        store: Captures,
        log: FilteringBoundLogger,
        armed: Callable[[], Sequence[Arm]] = lambda: (),
        clock: Callable[[], float] = time.monotonic,
        bell: Bell | None = None,
    ) -> None:
        """`store` and `armed` are called from threads. `armed` raises StoreError.

        `bell`: rung for each frame in the ring; None: nobody does.
        """
        self._bell = bell
        self.subscribers: list[Subscriber] = []
        self.decided: list[CapturedCall] = []  # to be stored
        self._rules = rules
        self._ring = ring
        self._local = [_address(_host_of(listener), listener.port) for listener in listeners]
        self._store = store
        self._log = log
        self._armed = armed
        self._clock = clock
        self._calls = PendingCalls(self._read_kept)
        self._ended: dict[str, tuple[PendingCall, float]] = {}  # and when each ended
        self._saving: asyncio.Task[None] | None = None
        self._arms: Sequence[Arm] = ()
        self._settle_at = self._arms_at = 0.0
        self._round_over = asyncio.Event()  # of the present round
        self._kept = self._failed = self._faults = 0

    def apply_config(self, rules: CaptureRules) -> None:
        """Apply a new configuration."""
        self._rules = rules
        if rules.keep == "off":
            for call in self._calls:
                self._calls.drop_messages(call)

    def pending(self, call_id: str) -> CapturedCall | None:
        """The capture so far of a call that is up, or was until some seconds ago."""
        call = self._calls.get(call_id)
        return None if call is None or not call.is_kept else self._calls.captured(call)

    async def caught_up(self) -> None:
        """Wait until what is in the ring now has been read. Not while `run` does not run."""
        for _ in range(2):  # one round lets the next go up to it
            if self._bell is not None:
                self._bell.ring()
            await self._round_over.wait()

    def statistics(self) -> dict[str, int]:
        calls = self._calls
        of_subscribers = {
            name: count for subscriber in self.subscribers for name, count in subscriber.statistics().items()
        }
        return of_subscribers | {
            "captures_pending": len(calls),
            "captures_pending_bytes": calls.fresh_bytes + calls.packed_bytes,
            "capture_unclaimed": calls.unclaimed,
            "capture_given_up": calls.given_up,
            "captures_kept": self._kept,
            "captures_failed": self._failed,
        }

    # -- life cycle

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop`, then store each call that has ended."""
        await self._save((), self._clock())  # what is armed: calls may have ended while no backend ran
        while not stop.is_set():
            await self._pause(stop)
            await self._round()
        self._ring.look()  # `stop` may have come before the first round
        await asyncio.sleep(POLL_S)
        await self._round()
        self.settle(self._clock() + LONGEST_AFTER_S)
        while self._saving is not None or self.decided:
            self._begin_to_save()
            if self._saving is not None:
                await self._saving

    async def _pause(self, stop: asyncio.Event) -> None:
        if self._bell is not None:
            await self._bell.wait(IDLE_S)
            self._ring.look()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), POLL_S)

    async def _round(self) -> None:
        try:
            frames = 0
            while (frame := self._ring.take()) is not None:
                self.take(frame)
                frames += 1
                if frames % FRAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # let other parts of the backend go on
            self._ring.look()
            now = self._clock()
            if now >= self._settle_at:
                self._settle_at = now + SETTLE_S
                self.settle(now)
            self._begin_to_save()
        except Exception:
            self._faults += 1
            self._log.exception("capture.fault", faults=self._faults)
        self._round_over.set()
        self._round_over = asyncio.Event()

    # -- items

    def take(self, frame: bytes) -> None:
        """Process one frame of the ring."""
        dropped, items = read_items(frame)
        self._calls.dropped = dropped
        now = self._clock()
        for item in items:
            kind = item[0]
            if kind == RECEIVED:
                self._join(item, item[4] or sip_call_id(item[3]), now)
            elif kind == SENT:
                self._join(item, own_call_id(item[3]), now)
            elif kind == LINK:
                self._link(DialogItem._make(item[2]), item[3][2], now)
            elif kind == MARK:
                self._calls.mark(item[2], item)
            elif kind == ENDED:
                self._end(EndItem._make(item[2]), now)

    def _join(self, item: Item, key: bytes, now: float) -> None:
        """Give a message to its call. `key`: its Call-ID."""
        found = self._calls.join(item, key, now)
        if found is None:
            return
        call, dialog, _ = found
        if self._rules.keep != "off":
            self._calls.keep(call, item)
        if call.call_id.startswith(REGISTRATIONS):
            self._ended.setdefault(call.call_id, (call, call.last))
        for subscriber in self.subscribers:
            subscriber.message(call.call_id, dialog, self._read_message(item))

    def _read_message(self, item: Item) -> CapturedMessage:
        kind, at, (listener, transport, host, port, _), data, _ = item
        remote = _address(host, port)
        return CapturedMessage(round(at * 1e6), kind == SENT, transport, self._local[listener], remote, data)

    def _read_kept(self, item: Item) -> CapturedMessage:
        message = self._read_message(item)
        return message._replace(data=_without_text(message.data))

    def _link(self, linked: DialogItem, host: str, now: float) -> None:
        dialog = CapturedDialog(linked.sip_call_id.decode("utf-8", "replace"), linked.side, linked.peer)
        for message in self._calls.link(linked.call_id, linked.sip_call_id, dialog, host, now):
            self._join(message, linked.sip_call_id, now)

    def _end(self, ended: EndItem, now: float) -> None:
        for subscriber in self.subscribers:
            subscriber.ended(ended)
        call = self._calls.get(ended.call_id)
        if call is None:
            return
        call.ended = ended
        self._ended[call.call_id] = call, now
        if not self._wants(call):
            self._calls.drop_messages(call)

    # -- the decision

    def settle(self, now: float) -> None:
        """Hand the calls that are over to the store."""
        self._calls.expire(now)
        for call, since in list(self._ended.values()):
            quiet_s = QUIET_WELL_S if call.ended is not None and _is_well(call.ended) else QUIET_S
            if now - call.last < quiet_s and now - since < LONGEST_AFTER_S:
                continue
            del self._ended[call.call_id]
            if self._calls.get(call.call_id) is not call:  # given up meanwhile
                continue
            if call.count and self._wants(call):
                business = (call.ended and call.ended.business) or ""
                captured = self._calls.captured(call)
                self.decided.append(captured._replace(business=business, is_armed=self._is_armed(call)))
            self._calls.remove(call)
        if len(self.decided) > MOST_UNSAVED:
            kept = within_shares(self.decided, MOST_UNSAVED)
            self._failed += len(self.decided) - len(kept)
            self.decided = kept

    def _wants(self, call: PendingCall) -> bool:
        """Whether the call, which is over, is to be kept."""
        match self._rules.keep:
            case "off":
                return False
            case "all":
                return True
            case "failed" if not (_is_registered(call) if call.ended is None else _is_well(call.ended)):
                return True
        return self._is_armed(call)

    def _is_armed(self, call: PendingCall) -> bool:
        return any(_names(arm, call) for arm in self._arms if _is_in_force(arm))

    # -- the store

    def _begin_to_save(self) -> None:
        now = self._clock()
        if self._saving is not None and self._saving.done():
            self._saving = None
        if self._saving is None and (self.decided or now >= self._arms_at):
            batch, self.decided = self.decided[:MOST_AT_ONCE], self.decided[MOST_AT_ONCE:]
            self._saving = asyncio.create_task(self._save(batch, now))

    async def _save(self, batch: Sequence[CapturedCall], now: float) -> None:
        """Store the batch; read what is armed if it is time."""
        try:
            if batch:
                await asyncio.to_thread(self._store.save, batch)
                self._kept += len(batch)
                batch = ()  # what fails from here on is the reading of what is armed
            if now >= self._arms_at:
                self._arms_at = now + ARMS_S
                self._arms = await asyncio.to_thread(self._armed)
                self._ring.want(all_calls=any(_is_in_force(arm) for arm in self._arms))
        except Exception as error:
            self._failed += len(batch)
            why = {"reason": str(error)} if isinstance(error, StoreError) else {"exc_info": error}
            self._log.error("capture.not_stored", calls=len(batch), failed=self._failed, **why)


def _without_text(data: bytes) -> bytes:
    """A message; a MESSAGE with an asterisk for each byte of its body, since what people write is not kept."""
    request = data.lstrip(b"\r\n")  # empty lines before the start line
    if not request.startswith(b"MESSAGE "):
        return data
    head, end, text = request.partition(b"\r\n\r\n")
    return head + end + b"*" * len(text)


def _is_well(ended: EndItem) -> bool:
    return ended_well(ended.outcome, ended.ended_by, ended.end_reason)


def _is_registered(call: PendingCall) -> bool:
    """Whether the last response to a REGISTER accepted it."""
    responses = (data for _, _, _, data, _ in reversed(call.messages) if data.startswith(b"SIP/2.0 "))
    return bool(next(responses, b"").startswith(b"SIP/2.0 2"))


def _is_in_force(arm: Arm) -> bool:
    return arm.until_ms > time.time() * 1000


def _names(arm: Arm, call: PendingCall) -> bool:
    ended = call.ended
    if arm.kind == "peer":
        return any(dialog.peer == arm.value for dialog in call.dialogs.values())
    if ended is None:
        return False
    if arm.kind == "business":
        return ended.business == arm.value
    return arm.value in (ended.caller, ended.callee, ended.number_dialled, ended.number_shown)


def _host_of(listener: Listener) -> str:
    """The listener's address; of a listener on all addresses the advertised host, which may be a name."""
    return listener.advertised.strip("[]") if listener.host in ("0.0.0.0", "::") else listener.host


@lru_cache(4096)
def _address(host: str, port: int) -> str:
    return f"{uri_host(host) if is_literal(host) else UNRESOLVED}:{port}"
