"""What the engine asks of its driver. The engine decides, the driver does."""

from __future__ import annotations

from typing import Literal, NamedTuple, final

from relay.call.record import CallRecord, Kind
from relay.call.settings import Peer
from relay.sip.flow import Flow


@final
class Send:
    """One message to the wire. If it cannot be delivered, tell `Engine.transport_failed(flow, now)`.

    No named tuple, as what is made for few calls: those are made by interpreted code.
    """

    __slots__ = ("data", "flow")

    def __init__(self, data: bytes, flow: Flow) -> None:
        self.data = data
        self.flow = flow


@final
class SendAll:
    """Several messages to one place, in any order: that is cheaper than one after the other. Otherwise as `Send`."""

    __slots__ = ("flow", "messages")

    def __init__(self, messages: list[bytes], flow: Flow) -> None:
        self.messages = messages
        self.flow = flow


@final
class LookUp:
    """Find the route in force; answer with `Engine.routed(token, Route | Refusal, now)`, at once or later.

    A store that cannot answer is `Refusal("store_failed", 503, 41, retry_after_s=…)`: fail closed.
    """

    __slots__ = ("caller", "kind", "number", "peer", "token")

    def __init__(self, token: int, number: str, caller: str, kind: Kind = "call", peer: Peer | None = None) -> None:
        self.token = token
        self.number = number  # the 700 number dialled, 15 digits
        self.caller = caller  # E.164 without "+"; "" where the caller is anonymous
        self.kind: Kind = kind
        self.peer = peer  # that says who calls; None: nobody doubts it


class Mediate(NamedTuple):
    """A command for rtpengine; answer with `Engine.mediated(token, Mediated | None, now)`, at once or later.

    None stands for no answer, and for an error other than that it knows no such call. Never leave one unanswered, but
    for token 0, which needs no answer.
    """

    token: int
    command: Literal["ping", "offer", "answer", "play", "record", "query", "delete"]
    call: str  # our id of the call
    instance: str  # that has the call; "" while none has: any that works, and the next where it does not
    from_tag: str = ""  # of the side that offers; of the one that hears, "" for both
    to_tag: str = ""  # of the side that answers
    sdp: bytes = b""
    family: Literal["", "IP4", "IP6"] = ""  # to the first offer: of the addresses that the other side takes
    sound: str = ""  # to play: its name
    language: str = ""  # and in which; "": the configured one
    alone: bool = False  # to an offer or answer: nobody is on the other side, and what comes is dropped


class Counts(NamedTuple):
    """What rtpengine counted of the RTP that came from one side."""

    packets: int
    lost: int | None  # packets, as the other side and rtpengine have reported by RTCP; None where none did in time
    jitter_ms: int | None  # the mean of the same reports


class Mediated(NamedTuple):
    """What rtpengine answered to a `Mediate`."""

    instance: str  # which one
    known: bool = True  # False: it has no such call
    sdp: bytes = b""  # to an offer or answer: what the other side is to get
    counts: tuple[tuple[str, Counts], ...] = ()  # to a delete: by tag
    lasts_s: float = 0.0  # to a play: how long the sound is


@final
class Commit:
    """Make the record durable, then call `Engine.committed(token, now)`. Never drop one; order per call is kept.

    `dialogs` is what a restart needs to go on with the call (opaque, private: seal it); None once the call has ended.
    `token` 0 needs no answer. A commit with `record.ended_at` set closes the record for ever.
    """

    __slots__ = ("dialogs", "record", "token")

    def __init__(self, token: int, record: CallRecord, dialogs: bytes | None) -> None:
        self.token = token
        self.record = record
        self.dialogs = dialogs


@final
class KeepAttempt:
    """Note where it outlives this process that an attempt is under way, in place of what was noted of it before.

    To be done before what stands behind it. `state` is what a start needs to end it (opaque, private: seal it). Comes
    only where the engine was told that attempts are kept.
    """

    __slots__ = ("record", "state")

    def __init__(self, record: CallRecord, state: bytes) -> None:
        self.record = record
        self.state = state


@final
class DropAttempt:
    """Nothing of an attempt is left to do for a start: forget what was noted.

    `at_once`: nothing was sent just before that a start would have to send again; else once that has gone out.
    """

    __slots__ = ("at_once", "call_id")

    def __init__(self, call_id: str, at_once: bool = False) -> None:
        self.call_id = call_id
        self.at_once = at_once


class Tell(NamedTuple):
    """What happened to a call whose business wants to hear of it while it goes on: received, ringing, answered.

    Nobody waits for it. That the call has ended is told by its record.
    """

    kind: str
    record: CallRecord  # as it is then


class Note(NamedTuple):
    """Something for the log. Values hold no real number in clear unless under a key that `relay.log` masks."""

    event: str
    fields: dict[str, object]


Action = Send | SendAll | LookUp | Mediate | Commit | KeepAttempt | DropAttempt | Tell | Note
