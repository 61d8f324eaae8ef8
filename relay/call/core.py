"""The state that all calls of an engine share: timers, transactions, outbox, table of legs, pending commits.

It decides nothing about a call and reads no clock: every event brings `now` (monotonic seconds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from relay.call.actions import (
    Action,
    CallEvent,
    Commit,
    DropAttempt,
    KeepAttempt,
    LookUp,
    Mediate,
    Mediated,
    Note,
    Send,
    SendAll,
)
from relay.defence.bans import Bans
from relay.defence.limits import PeerShares, Tally
from relay.model.call import CallRecord, Kind, Refusal, Route
from relay.model.settings import Peer, Settings
from relay.peers.limits import Quotas
from relay.peers.peers import Peers
from relay.peers.targets import LONGEST_REST_S, REST_S, TargetState, retry_after_s
from relay.privacy.text_memory import TextMemory
from relay.sip.framing import marks
from relay.sip.message import Flow
from relay.sip.timers import TimerHeap
from relay.sip.transaction import TransactionLayer

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.leg import Leg
    from relay.call.text_message import TextMessage
    from relay.privacy.messages import Reply
    from relay.sip.message import Request, Response

Continuation = Callable[[float], None]
Routed = Callable[[Route | Refusal, float], None]
Answered = Callable[[Mediated | None, float], None]
Then = TypeVar("Then")


class Core:
    """Shared state of the calls of one engine."""

    def __init__(self, settings: Settings, token: Callable[[], str], clock_offset_s: float) -> None:
        self.settings = settings
        self.peers = Peers(settings)
        self.hosts = frozenset(
            host for listener in settings.listeners for host in (listener.host, listener.advertised.strip("[]"))
        )
        self.bans = Bans(settings.limits)
        self.token = token
        # To tag of all stateless responses: they open no dialog, and a repeated request must get the same tag
        # (RFC 3261 8.2.7).
        self.stateless_tag = token()
        self.shares = PeerShares(self)
        self.name_at: Callable[[Flow], str] = self._name_at  # the peer's name; "" for an unknown source
        self.clock_offset_s = clock_offset_s
        self.timers = TimerHeap()
        self.transactions = TransactionLayer(settings.timings, self.timers, self.send)
        self.legs: dict[tuple[str, str], Leg] = {}  # by our tag and the peer's
        self.attempts: dict[tuple[str, str | None], Call] = {}  # by the Call-ID and From tag of the caller's INVITE
        self.messages: dict[tuple[str, str | None, int], TextMessage] = {}  # by Call-ID, From tag and CSeq
        self.texts = TextMemory()
        # Our From tags of pending INVITEs and MESSAGEs: one that comes back reveals a loop.
        self.calling_tags: set[str] = set()
        self.stages = Tally()  # of calls
        self.quotas_in = Quotas()  # of calls from peers
        self.quotas_out = Quotas()  # of calls to peers
        self.calls_by_key = Tally()  # counted against the caps of routes
        self.refusals: Counter[str] = Counter()  # by outcome
        self.counters: Counter[str] = Counter()
        self.pending_lookups: dict[int, tuple[str, Routed]] = {}  # with the caller's peer
        self.lookups_of = Tally()  # by peer
        self.pending_media: dict[int, Answered] = {}
        self._pending_commits: dict[int, Continuation] = {}
        self._actions: list[Action] = []
        self._together: dict[Flow, list[bytes]] = {}  # messages of the SendAll actions in `_actions`
        self._serial = 0

    def send(self, data: bytes, flow: Flow) -> None:
        self._actions.append(Send(data, flow))

    def send_in_any_order(self, data: bytes, flow: Flow) -> None:
        """Send in one batch with the other messages for the same flow."""
        together = self._together.get(flow)
        if together is None:
            together = self._together[flow] = []
            self._actions.append(SendAll(together, flow))
        together.append(data)

    def note(self, event: str, **fields: object) -> None:
        self._actions.append(Note(event, fields))

    def tell(self, kind: str, record: CallRecord) -> None:
        self._actions.append(CallEvent(kind, record))

    def look_up(self, number: str, caller: str, then: Routed, kind: Kind = "call", peer: Peer | None = None) -> None:
        """Look up the route of `number`. `peer`: where the call comes from."""
        name = "" if peer is None else peer.name
        self.lookups_of.begin(name)
        self._actions.append(LookUp(self._keep(self.pending_lookups, (name, then)), number, caller, kind, peer))

    def routed(self, token: int, answer: Route | Refusal, now: float) -> None:
        pending = self.pending_lookups.pop(token, None)
        if pending is not None:
            peer, then = pending
            self.lookups_of.end(peer)
            then(answer, now)

    def mediate(self, command: Mediate, then: Answered | None = None) -> None:
        """Send a command to rtpengine, with a token of ours; `then` gets the answer."""
        self._actions.append(command._replace(token=self._keep(self.pending_media, then)))

    def mediated(self, token: int, answer: Mediated | None, now: float) -> None:
        then = self.pending_media.pop(token, None)
        if then is not None:
            then(answer, now)

    def leg_of(self, request: Request) -> Leg | None:
        """The leg of the request's dialog (RFC 3261 12: Call-ID and both tags)."""
        leg = self.legs.get((request.to_tag or "", request.from_tag or ""))
        return leg if leg is not None and leg.dialog.call_id == request.call_id else None

    def may_belong(self, data: bytes) -> bool:
        """Whether the message may belong to an existing dialog or transaction, without a parse; True in doubt."""
        found = marks(data)
        if found is None:
            return True
        method, via, from_tag, to_tag = found
        hop, _, parameters = via.partition(";")
        branch = f";{parameters}".partition(";branch=")[2].partition(";")[0]
        if not branch:
            return True
        if data.startswith(b"SIP/2.0 "):
            return self.transactions.is_awaited(method, branch) or (from_tag, to_tag) in self.legs
        if method == "ACK":  # to a refusal
            method = "INVITE"
        return (to_tag, from_tag) in self.legs or self.transactions.is_serving(method, hop, branch)

    def commit(self, record: CallRecord, dialogs: bytes | None, then: Continuation | None = None) -> None:
        """Make the record durable, then call `then`."""
        self._actions.append(Commit(self._keep(self._pending_commits, then), record, dialogs))

    def keep_attempt(self, record: CallRecord, state: bytes) -> None:
        """Store the attempt as under way, before any later action is done."""
        self._actions.append(KeepAttempt(record, state))

    def drop_attempt(self, call_id: str, at_once: bool = False) -> None:
        """Drop the stored attempt. `at_once`: see `DropAttempt`."""
        self._actions.append(DropAttempt(call_id, at_once))

    def committed(self, token: int, now: float) -> None:
        then = self._pending_commits.pop(token, None)
        if then is not None:
            then(now)

    def _keep(self, pending: dict[int, Then], then: Then | None) -> int:
        """The token under which `then` is kept; 0 if there is no continuation."""
        if then is None:
            return 0
        self._serial += 1
        pending[self._serial] = then
        return self._serial

    @property
    def pending_commits(self) -> int:
        return len(self._pending_commits)

    def record_id(self, received_at: int) -> str:
        """32 hexadecimal digits, time first, so that records written together are stored together."""
        return f"{received_at.to_bytes(6).hex()}{self.token()}{self.token()[-4:]}"

    def fraction(self) -> float:
        """A random number, 0 <= n < 1, to spread events that begin together."""
        return int(self.token()[-4:], 16) / 0x10000

    def has_room(self, peer: str, now: float) -> bool:
        """Whether the peer may have one more transaction; without room only those that end a call are begun."""
        used, in_all = self.transactions.served.get(peer, 0) + 1, len(self.transactions) + 1
        return self.shares.admits(peer, "transactions", used, in_all, self.settings.limits.max_transactions, now)

    def has_room_for_lookup(self, peer: str, now: float) -> bool:
        """Whether the peer may have one more pending look-up."""
        used, in_all = self.lookups_of.count(peer) + 1, len(self.pending_lookups) + 1
        return self.shares.admits(peer, "look-ups", used, in_all, self.settings.limits.max_pending_lookups, now)

    def answer(self, reply: Reply, status: int, now: float, extra: str = "") -> None:
        """Send a stateless final response to a request outside calls (RFC 3261 8.2.7).

        `extra`: further header lines.
        """
        self.shares.admits_stray(self.name_at(reply.flow), now)
        self.send(reply.write(status, to_tag=self.stateless_tag, extra=extra), reply.flow)

    def _name_at(self, flow: Flow) -> str:
        return self.peers.name_at(flow.host)

    # -- health of targets

    def unreachable(self, place: TargetState, now: float) -> None:
        """The target did not respond, or the transport failed."""
        if not place.failed(now):
            return
        if place.is_down:
            self.note("target.down", peer=place.peer.name, target=place.name)
        else:
            self._aside(place, "no_answer", REST_S)

    def answered(self, place: TargetState, response: Response, now: float) -> None:
        """The target responded to a call or a text message, with any status."""
        self.reached(place)
        self.heed(place, response, now)

    def reached(self, place: TargetState) -> None:
        """The target responded."""
        if place.answered():
            self.note("target.up", peer=place.peer.name, target=place.name)

    def heed(self, place: TargetState, response: Response, now: float) -> None:
        """Honour Retry-After in a 503 (RFC 3261 21.5.4)."""
        seconds = retry_after_s(response.get("retry-after")) if response.status == 503 else 0
        if seconds:
            place.put_aside(seconds, now)
            self._aside(place, "retry_after", min(seconds, LONGEST_REST_S))

    def _aside(self, place: TargetState, reason: str, for_s: float) -> None:
        self.note("target.aside", peer=place.peer.name, target=place.name, reason=reason, for_s=for_s)

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        if self._together:
            self._together = {}
        return actions

    def wall_ms(self, now: float) -> int:
        """Unix milliseconds of monotonic `now`."""
        return int((now + self.clock_offset_s) * 1000)
