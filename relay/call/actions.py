"""Actions that the engine returns for the driver to carry out."""

from __future__ import annotations

from typing import Literal, NamedTuple, final

from relay.model.call import CallRecord, Kind
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

    __slots__ = ("caller", "kind", "number", "peer", "token")

    def __init__(self, token: int, number: str, caller: str, kind: Kind = "call", peer: Peer | None = None) -> None:
        self.token = token
        self.number = number  # the 700 number dialled, 15 digits
        self.caller = caller  # E.164 without "+"; "" if anonymous
        self.kind: Kind = kind
        self.peer = peer  # that asserts the caller; None: the caller is not checked


class Mediate(NamedTuple):
    """A command for rtpengine; answer with `Engine.mediated(token, Mediated | None, now)`, at once or later.

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


class Counts(NamedTuple):
    """rtpengine's statistics of the RTP received from one side."""

    packets: int
    lost: int | None  # packets, as reported by RTCP of the other side and rtpengine; None without a report
    jitter_ms: int | None  # mean of the same reports


class Mediated(NamedTuple):
    """rtpengine's answer to a `Mediate`."""

    instance: str  # the rtpengine that answered
    known: bool = True  # False: unknown call
    sdp: bytes = b""  # offer, answer: SDP for the other side
    counts: tuple[tuple[str, Counts], ...] = ()  # delete: by tag
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


class Note(NamedTuple):
    """A log entry. No value holds a real number in clear, except under a key that `relay.log` masks."""

    event: str
    fields: dict[str, object]


Action = Send | SendAll | LookUp | Mediate | Commit | KeepAttempt | DropAttempt | CallEvent | Note
