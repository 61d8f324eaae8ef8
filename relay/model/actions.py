"""Actions that the engine returns for the driver to carry out, and the outbox that collects them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeVar, final

from relay.model.call import CallRecord, Kind, Refusal, Route
from relay.model.capture import Side
from relay.model.settings import Peer
from relay.sip.message import Flow


@final
class Send:
    """Send one message. On failure call `Engine.transport_failed(flow, now)`.

    Not a NamedTuple, as the rarer actions are: those are constructed by interpreted code.
    """

    __slots__ = ("data", "flow")

    def __init__(self, data: bytes, flow: Flow) -> None:
        self.data = data
        self.flow = flow


@final
class SendAll:
    """Send several messages on one flow, in any order, which is cheaper than one by one. Otherwise as `Send`."""

    __slots__ = ("flow", "messages")

    def __init__(self, messages: list[bytes], flow: Flow) -> None:
        self.messages = messages
        self.flow = flow


@final
class LookUp:
    """Look up the route in force; answer with `Engine.routed(token, Route | Refusal, now)`, at once or later.

    If the store fails, answer `Refusal("store_failed", 503, 41, retry_after_s=…)`: fail closed.
    """

    __slots__ = ("call_id", "caller", "counted", "given_up", "kind", "last_caller", "number", "peer", "token")

    def __init__(
        self,
        token: int,
        number: str,
        caller: str,
        kind: Kind = "call",
        peer: Peer | None = None,
        call_id: str = "",
    ) -> None:
        self.token = token
        self.number = number  # the 700 number dialled, 15 digits
        self.caller = caller  # E.164 without "+"; "" if anonymous
        self.kind: Kind = kind
        self.peer = peer  # that asserts the caller; None: the caller is not checked
        self.call_id = call_id
        # There will be no call: the caller has hung up (an answer is still due, and changes nothing), or the relay has
        # refused the route.
        self.given_up = False
        # Set by `CallPolicy`: the count for the caps on frequency, and what to note of the caller.
        self.counted: object = None
        self.last_caller: object = None


class Mediate(NamedTuple):
    """A command for rtpengine; answer with `Engine.mediated(token, MediaReply | None, now)`, at once or later.

    None means no answer, or an error other than an unknown call. Every command must be answered, except token 0.
    """

    token: int
    command: Literal["ping", "offer", "answer", "play", "record", "query", "delete"]
    call: str  # call id at rtpengine
    instance: str  # rtpengine that holds the call; "" for a new call: any working one, with failover
    from_tag: str = ""  # of the offering side; for `play` of the listening side, "" for both
    to_tag: str = ""  # of the answering side
    sdp: bytes = b""
    family: Literal["", "IP4", "IP6"] = ""  # first offer: address family of the answering side
    sound: str = ""  # play: name of the announcement
    language: str = ""  # play: its language; "": the configured one
    alone: bool = False  # offer or answer: there is no other side, received media are dropped
    learned: bool = False  # offer or answer: the sender's media address is that of its first packet, not of its SDP
    metadata: str = ""  # record: what rtpengine writes beside the recording


class RtpCounts(NamedTuple):
    """rtpengine's statistics of the RTP received from one side."""

    packets: int
    lost: int | None  # packets, as reported by RTCP of the other side and rtpengine; None without a report
    jitter_ms: int | None  # mean of the same reports


class MediaReply(NamedTuple):
    """rtpengine's answer to a `Mediate`."""

    instance: str  # the rtpengine that answered
    known: bool = True  # False: unknown call
    sdp: bytes = b""  # offer, answer: SDP for the other side
    counts: tuple[tuple[str, RtpCounts], ...] = ()  # delete: by tag
    lasts_s: float = 0.0  # play: length of the sound


@final
class Commit:
    """Make the record durable, then call `Engine.committed(token, now)`. Never drop one; keep the order per call.

    `dialogs` is the state that a restart needs (opaque, private: seal it); None once the call has ended. `token` 0
    needs no answer. A commit with `record.ended_at` set closes the record for good.
    """

    __slots__ = ("dialogs", "record", "token")

    def __init__(self, token: int, record: CallRecord, dialogs: bytes | None) -> None:
        self.token = token
        self.record = record
        self.dialogs = dialogs


@final
class KeepAttempt:
    """Store an attempt as under way, such that it survives this process; replaces its earlier state.

    To be done before any later action. `state` is what a restart needs to end the attempt (opaque, private: seal it).
    """

    __slots__ = ("record", "state")

    def __init__(self, record: CallRecord, state: bytes) -> None:
        self.record = record
        self.state = state


@final
class DropAttempt:
    """Delete a stored attempt: a restart has nothing left to do for it.

    `at_once`: delete now; else only after the messages before it are sent, which a restart would have to repeat.
    """

    __slots__ = ("at_once", "call_id")

    def __init__(self, call_id: str, at_once: bool = False) -> None:
        self.call_id = call_id
        self.at_once = at_once


class CallEvent(NamedTuple):
    """A call event for the business: received, ringing or answered. Fire-and-forget.

    The end of a call has no event here: its record serves.
    """

    kind: str
    record: CallRecord  # at the time of the event


class CaptureLink(NamedTuple):
    """The messages with this SIP Call-ID belong to the call, for capture."""

    call_id: str  # or `registrations_of` a peer
    sip_call_id: str
    side: Side
    peer: str
    flow: Flow  # of the peer


_LEVELS: Final[dict[str, str]] = {
    "call.unexpected_event": "error",
    "leak_check": "error",
    "restore.failed": "error",
    "recording.failed": "error",
    "message.malformed": "debug",
    "attempt.not_readable": "error",
    **dict.fromkeys(("peer.within_share", "target.up", "login.registered", "login.ended", "registration.up"), "info"),
}


class Note(NamedTuple):
    """A log entry. No value holds a real number in clear, except under a key that `relay.log` masks."""

    event: str
    fields: dict[str, object]

    @property
    def level(self) -> str:
        """The level in the log."""
        return _LEVELS.get(self.event, "warning")


Action = Send | SendAll | LookUp | Mediate | Commit | KeepAttempt | DropAttempt | CallEvent | CaptureLink | Note


# -- The outbox

Continuation = Callable[[float], None]
Routed = Callable[[Route | Refusal, float], None]
Answered = Callable[[MediaReply | None, float], None]
Then = TypeVar("Then")


class Outbox:
    """The actions of one engine in order, the continuations that wait for their answers, and counts of events."""

    __slots__ = (
        "_actions",
        "_pending_commits",
        "_serial",
        "_together",
        "counters",
        "links",
        "looking_up",
        "pending_lookups",
        "pending_media",
        "refusals",
    )

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()  # calls and text messages refused by the relay itself, by outcome
        self.links = False  # `link` is wanted
        self.pending_lookups: dict[int, tuple[str, Routed]] = {}  # with the caller's peer
        self.looking_up: dict[str, int] = {}  # pending look-ups by peer
        self.pending_media: dict[int, Answered] = {}
        self._pending_commits: dict[int, Continuation] = {}
        self._actions: list[Action] = []
        self._together: dict[Flow, list[bytes]] = {}  # messages of the SendAll actions in `_actions`
        self._serial = 0

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        if self._together:
            self._together = {}
        return actions

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

    def emit(self, kind: str, record: CallRecord) -> None:
        self._actions.append(CallEvent(kind, record))

    def link(self, call_id: str, sip_call_id: str, side: Side, peer: str, flow: Flow) -> None:
        """A dialog of the call begins, or a request outside of dialogs. Fields: see `CaptureLink`."""
        if self.links:
            self._actions.append(CaptureLink(call_id, sip_call_id, side, peer, flow))

    def look_up(
        self,
        number: str,
        caller: str,
        then: Routed,
        kind: Kind = "call",
        peer: Peer | None = None,
        call_id: str = "",
    ) -> LookUp:
        """Look up the route of `number`. `peer`: where the call comes from."""
        name = "" if peer is None else peer.name
        self.looking_up[name] = self.looking_up.get(name, 0) + 1
        asked = LookUp(self._keep(self.pending_lookups, (name, then)), number, caller, kind, peer, call_id)
        self._actions.append(asked)
        return asked

    def routed(self, token: int, answer: Route | Refusal, now: float) -> None:
        """The answer to a `LookUp`."""
        pending = self.pending_lookups.pop(token, None)
        if pending is None:
            return
        peer, then = pending
        left = self.looking_up[peer] - 1
        if left:
            self.looking_up[peer] = left
        else:
            del self.looking_up[peer]
        then(answer, now)

    def mediate(self, command: Mediate, then: Answered | None = None) -> None:
        """Send a command to rtpengine, with a token of ours; `then` gets the answer."""
        self._actions.append(command._replace(token=self._keep(self.pending_media, then)))

    def mediated(self, token: int, answer: MediaReply | None, now: float) -> None:
        """The answer to a `Mediate`."""
        then = self.pending_media.pop(token, None)
        if then is not None:
            then(answer, now)

    def commit(self, record: CallRecord, dialogs: bytes | None, then: Continuation | None = None) -> None:
        """Make the record durable, then call `then`."""
        self._actions.append(Commit(self._keep(self._pending_commits, then), record, dialogs))

    def committed(self, token: int, now: float) -> None:
        """The record of a `Commit` is durable."""
        then = self._pending_commits.pop(token, None)
        if then is not None:
            then(now)

    @property
    def pending_commits(self) -> int:
        return len(self._pending_commits)

    def keep_attempt(self, record: CallRecord, state: bytes) -> None:
        """Store the attempt as under way, before any later action is done."""
        self._actions.append(KeepAttempt(record, state))

    def drop_attempt(self, call_id: str, at_once: bool = False) -> None:
        """Drop the stored attempt. `at_once`: see `DropAttempt`."""
        self._actions.append(DropAttempt(call_id, at_once))

    def _keep(self, pending: dict[int, Then], then: Then | None) -> int:
        """The token under which `then` is kept; 0 if there is no continuation."""
        if then is None:
            return 0
        self._serial += 1
        pending[self._serial] = then
        return self._serial
