"""The capture of a call: its SIP messages as received and sent, and the steps between them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from relay.model.numbers import mask_number
from relay.model.settings import Transport

UNRESOLVED = "0.0.0.0"  # in place of an address
Side = Literal["caller", "callee"]
REGISTRATIONS: Final = "register:"  # begins the id of a peer's registrations
Keep = Literal["off", "failed", "all", "armed"]
LONGEST_AFTER_S: Final = 40.0  # after the end of a call its messages are kept, whatever comes: 64*T1 is 32 s
ArmKind = Literal["number", "business", "peer"]


class CaptureRules(NamedTuple):
    """Which calls are kept, and for how long. `failed`: all but those that were answered and ended by a party."""

    keep: Keep = "failed"  # "failed" and "armed" keep what is armed, too
    max_bytes: int = 512_000_000  # of all captures; `relay.store.capture_shares` says which go first
    keep_ms: int = 7 * 86_400_000


class Arm(NamedTuple):
    """A request to capture the calls of a number, a business user or a peer."""

    id: str
    kind: ArmKind
    value: str  # a party in E.164 without "+", or a 700 number; the id of a business user; the name of a peer
    until_ms: int  # Unix milliseconds

    @property
    def shown_value(self) -> str:
        """The value; a real number is masked."""
        return mask_number(self.value) if self.kind == "number" else self.value


class HepRules(NamedTuple):
    """The collector that gets a copy of each message by HEP, `[hep]`."""

    transport: Transport
    host: str  # without brackets
    port: int
    is_clear: bool = False  # real numbers and addresses
    agent_id: int = 700
    key_file: Path | None = None
    ca: Path | None = None  # PEM; None: the system's authorities


class HepAgent(NamedTuple):
    """The sender, as a HEP collector is told."""

    id: int
    name: str
    key: str  # "": none


class CapturedMessage(NamedTuple):
    """One SIP message on the wire. Addresses are written "192.0.2.7:5060", "[2001:db8::7]:5060".

    UNRESOLVED stands for a host that a peer's Contact gave by name.
    """

    at_us: int  # Unix microseconds
    sent: bool  # by the relay; else received
    transport: str  # udp, tcp, tls
    local: str  # address of the relay
    remote: str
    data: bytes


class Mark(NamedTuple):
    """A step between the messages."""

    at_us: int  # Unix microseconds
    step: str  # "look_up", "routed", "commit", "committed"; "media" and rtpengine's command, as in "media offer"


class CapturedDialog(NamedTuple):
    """One SIP Call-ID of the call: the caller's, or that of an attempt at one target."""

    sip_call_id: str
    side: Side
    peer: str


class CapturedCall(NamedTuple):
    """All that was captured of a call, or of the registrations of a peer (`registrations_of`)."""

    call_id: str
    dialogs: tuple[CapturedDialog, ...]
    messages: tuple[CapturedMessage, ...]  # in order of time
    marks: tuple[Mark, ...] = ()  # in order of time
    lost: int = 0  # messages that were not captured, since the queue was full
    business: str = ""  # "": of none
    is_armed: bool = False  # kept since somebody asked for it

    @property
    def peer(self) -> str:
        """The peer that began it; "" if none is known."""
        sides = sorted(self.dialogs, key=lambda dialog: dialog.side != "caller")
        return sides[0].peer if sides else ""


def registrations_of(peer: str) -> str:
    """The id under which the REGISTER transactions of a peer are kept, in place of a call id."""
    return REGISTRATIONS + peer


def encode(call: CapturedCall) -> bytes:
    """The call as bytes, for `decode`."""
    return msgspec.msgpack.encode(call)


def decode(data: bytes) -> CapturedCall:
    """Raises msgspec.MsgspecError for anything that `encode` did not write."""
    return msgspec.msgpack.decode(data, type=CapturedCall)
