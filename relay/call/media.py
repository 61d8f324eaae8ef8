"""The media session of one call at rtpengine, and the queue of messages that wait for it.

A message with SDP is handled only after rtpengine has answered. Other messages of the call queue up behind it in
order, except those that end the call; queued ones then find the call ended. The handlers know nothing of the wait.

All forks of a callee and all peers tried are one side (tag) at rtpengine: separate tags would get separate ports,
while all of them answer one offer with one port.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple

from relay.defence.media_address import hosts_in, media_fault
from relay.errors import ParseError, ProtocolError
from relay.model.actions import Answered, MediaReply, Mediate, RtpCounts
from relay.model.call import CallRecord
from relay.model.capture import Side
from relay.model.rtp_streams import describe
from relay.model.settings import Peer
from relay.peers.user_agent import UserAgent
from relay.privacy import masking
from relay.privacy.codecs import with_fmtp_of
from relay.privacy.leak_check import FailClosed, Leak
from relay.privacy.sdp import LONGEST, SdpWriter, few_of_each_kind, refuse_all, shows_way
from relay.sip.message import Message
from relay.sip.timers import Timer

Step = Callable[[float], None]
Kind = Literal["offer", "answer"]
Family = Literal["", "IP4", "IP6"]
State = tuple[str, str, str, str]  # instance, the caller's tag, the callee's tag, language of announcements

MOST_WAITING: Final = 64  # messages of one call; SDP beyond is not anchored, and so not relayed
MOST_UNANSWERED: Final = 3  # consecutive queries without an answer: the media are lost
COUNTS_S: Final = 0.5  # maximum wait of a closing record for the media counts
# Limit for one SDP, refused streams included. rtpengine reports on a call (some 4 kB per stream) in one datagram: a
# report that does not fit is never sent, and rtpengine would be taken for down.
MOST_STREAMS: Final = 8
_NEUTRAL_ID: Final = 1  # of the session at rtpengine; each leg has another


class Sender(NamedTuple):
    """The side that an SDP comes from."""

    side: Side
    peer: Peer
    host: str  # signalling address


class Agreement(NamedTuple):
    """One offer and its answer (b"" until it comes)."""

    side: Side  # offering side
    offer: bytes
    answer: bytes


class Media:
    """One call's session at rtpengine, under the call's id and random tags: nothing in them comes from a peer."""

    __slots__ = (
        "_agreed",
        "_asking",
        "_call_id",
        "_callee_counts",
        "_caller_counts",
        "_check_s",
        "_given",
        "_gone",
        "_heard",
        "_invited",
        "_noted",
        "_peers",
        "_proposed",
        "_restored",
        "_said",
        "_settled",
        "_then",
        "_timer",
        "_ua",
        "_unanswered",
        "_waiting",
        "callee_host",
        "callee_tag",
        "caller_host",
        "caller_tag",
        "fork",
        "forks",
        "instance",
        "language",
        "offered",
        "over",
        "reserved",
    )

    def __init__(
        self,
        ua: UserAgent,
        check_s: float,
        call_id: str,
        state: State | None = None,
        settled: tuple[Side, bytes, bytes] | None = None,
        peers: dict[Side, Peer] | None = None,
    ) -> None:
        """`check_s`: interval of media supervision, seconds; `state`, `settled`, `peers`: from before a restart."""
        self._ua = ua
        self._check_s = check_s
        self._call_id = call_id
        self.instance, self.caller_tag, self.callee_tag, self.language = state or ("", ua.token(), ua.token(), "")
        self.caller_host = self.callee_host = ""  # signalling addresses, "" if not known yet
        self.reserved = False  # an instance answered before the first offer
        self.forks: dict[str, bytes] = {}  # last SDP of each fork of the callee, masked for rtpengine
        self.fork = ""  # the fork whose SDP rtpengine has
        self._proposed = self._settled = Agreement(*settled) if settled else Agreement("caller", b"", b"")
        self._invited = b""  # the offer in the caller's INVITE
        self.offered: Side | None = None  # side whose offer is unanswered
        self.over = False
        self._caller_counts: RtpCounts | None = None  # of RTP from the caller
        self._callee_counts: RtpCounts | None = None
        self._peers: dict[Side, Peer] = peers or {}  # that sent the last SDP of each side
        self._agreed = state is not None  # rtpengine knows both tags
        self._asking = False  # a command is pending that blocks the queue
        self._then: Step | None = None  # continuation of that command
        self._waiting: deque[Step] = deque()
        self._heard: Step | None = None  # waits for the counts
        self._given: dict[str, bytes] = {}  # rtpengine's last SDP for each side
        self._restored = state is not None
        self._noted = False  # an SDP that was refused; the log has only the first
        self._said = ""  # of the streams, to rtpengine
        self._gone: Step | None = None
        self._timer: Timer | None = None
        self._unanswered = 0  # consecutive queries

    @property
    def state(self) -> State:
        """The state for a restart."""
        return (self.instance, self.caller_tag, self.callee_tag, self.language)

    @property
    def settled(self) -> tuple[Side, bytes, bytes] | None:
        """The offering side, offer and answer in force, for a restart."""
        side, offer, answer = self._settled
        return (side, offer, answer) if answer else None

    # -- queue

    def take(self, step: Step, now: float) -> bool:
        """Run the step now or in its turn. False if the queue is full: it will not run."""
        if not self._asking and not self._waiting:
            step(now)
            return True
        if len(self._waiting) >= MOST_WAITING:
            self._ua.outbox.counters["media_over_limit"] += 1
            return False
        self._waiting.append(step)
        return True

    def _run(self, step: Step, now: float) -> None:
        try:
            step(now)
        except Leak as leak:
            leak.end_call(now)

    def _go_on(self, now: float) -> None:
        while self._waiting and not self._asking:
            self._run(self._waiting.popleft(), now)

    # -- SDP

    def reserve(self, then: Step) -> None:
        """Ask whether an instance would take a call without an offer yet; `reserved` tells. The first offer chooses."""
        self._ask(Mediate(0, "ping", self._call_id, ""), then, self._pinged)

    def _pinged(self, answer: MediaReply | None, now: float) -> None:
        self.reserved = answer is not None
        self._answered(None if answer is None else answer._replace(instance=""), now)

    def anchor(
        self, kind: Kind, sender: Sender, message: Message, fail_closed: FailClosed, then: Step, now: float
    ) -> None:
        """Have rtpengine rewrite the SDP of a message, then call `then`.

        `fail_closed` is called if its SDP shows the way of the other side. `then` is called in any case, now or later:
        SDP that was not rewritten is stopped by masking (`NotAnchored`, or 488 if no media may be sent where it says).
        """
        side = sender.side
        sdp = b"" if self.over else mask_for_rtpengine(message)
        if not sdp:
            then(now)
            return
        if (refusal := refuse_all(sdp)) is not None:
            message.replace_description(refusal)
            then(now)
            return
        if why := fault_in(sdp, sender, self._ua):
            self._refuse(message, sender, why)
            then(now)
            return
        self._peers[side] = sender.peer
        if kind == "offer":
            if not self.instance and not self.reserved:
                self._invited = sdp
            self.offered = side
            self._proposed = Agreement(side, sdp, b"")
        else:
            self.offered = None
            # rtpengine removes a codec from an answer whose fmtp differs from the offer's.
            self._proposed = self._proposed._replace(answer=with_fmtp_of(sdp, self._proposed.offer or sdp))
        command = self._command(kind, side, self._proposed.answer or self._proposed.offer)
        self._ask(command, then, partial(self._anchored, fail_closed, side, message, sdp))

    def suits(self, callee_host: str) -> bool:
        """Whether the offer in the caller's INVITE, if any, is for the address family of that callee."""
        return not self._invited or _family(callee_host) == _family(self.callee_host)

    def anchor_again(self, callee_host: str, invite: Message, fail_closed: FailClosed, then: Step, now: float) -> None:
        """Have rtpengine rewrite the SDP of the caller's INVITE for a callee of another address family, ahead of the
        queue; then call `then`, unless the call has ended. `fail_closed` as for `anchor`."""
        self.callee_host = callee_host
        step = partial(self._anchor_again, _family(callee_host), invite, fail_closed, then)
        if self._asking:
            self._waiting.appendleft(step)
        else:
            step(now)

    def _anchor_again(self, family: Family, invite: Message, fail_closed: FailClosed, then: Step, now: float) -> None:
        if self.over:
            return
        sdp = self._invited
        invite.anchored = ""  # without an answer it must not go out as it is
        self.offered = "caller"
        self._proposed = Agreement("caller", sdp, b"")
        command = self._command("offer", "caller", sdp)._replace(family=family)
        self._ask(command, then, partial(self._anchored, fail_closed, "caller", invite, sdp))

    def _refuse(self, message: Message, sender: Sender, why: str) -> None:
        message.refuse_description()
        outbox = self._ua.outbox
        outbox.counters["media_refused"] += 1
        if not self._noted:
            self._noted = True
            outbox.note("media.refused", call_id=self._call_id, peer=sender.peer.name, side=sender.side, reason=why)

    def _command(self, kind: Kind, side: Side, sdp: bytes) -> Mediate:
        offers = side if kind == "offer" else _other(side)
        from_tag, to_tag = self._tag(offers), self._tag(_other(offers))
        family: Family = ""
        if kind == "offer" and not self._agreed:
            to_tag = ""  # rtpengine does not know the answering side yet
            family = _family(self.callee_host if side == "caller" else self.caller_host)
        self._agreed = self._agreed or kind == "answer"
        learned = self._peers[side].media_source == "learned"
        return Mediate(0, kind, self._call_id, self.instance, from_tag, to_tag, sdp, family, learned=learned)

    def _anchored(
        self, fail_closed: FailClosed, side: Side, message: Message, sent: bytes, answer: MediaReply | None, now: float
    ) -> None:
        if answer is not None and answer.sdp and not self.over:
            if _leaks(sent, answer.sdp):
                fail_closed(_other(side), now)
            else:
                self._ua.peers.controls.hosts.update(hosts_in(answer.sdp))
                given = self._given[_other(side)] = _in_own_words(answer.sdp, sent)
                message.replace_description(given)
        self._answered(answer, now)

    def settle(self) -> None:
        """The last offer and answer are in force now."""
        if self._proposed.answer:
            self._settled = self._proposed

    def withdraw(self, now: float) -> None:
        """Roll back a failed offer at rtpengine, to the last settled offer and answer (RFC 3261 14.1), ahead of the
        queue."""
        if self._asking:
            self._waiting.appendleft(self._restore)
        else:
            self._restore(now)

    def _restore(self, _: float) -> None:
        settled = self._settled
        if self.over or not settled.answer or self._proposed == settled:
            return
        self.offered = None
        self._proposed = settled
        self._ask(self._command("offer", settled.side, settled.offer), self._restore_answer, self._answered)

    def _restore_answer(self, _: float) -> None:
        if not self.over:
            answer = self._command("answer", _other(self._settled.side), self._settled.answer)
            self._ask(answer, _go_on_at_once, self._answered)

    def _tag(self, side: Side) -> str:
        return self.caller_tag if side == "caller" else self.callee_tag

    def _ask(self, command: Mediate, then: Step, answered: Callable[[MediaReply | None, float], None]) -> None:
        self._asking = True
        self._then = then
        self._ua.outbox.mediate(command, answered)

    def _answered(self, answer: MediaReply | None, now: float) -> None:
        self._asking = False
        if answer is None:
            self._ua.outbox.counters["media_failures"] += 1
        elif not self.instance:
            self.instance = answer.instance
        if self.over:
            self._delete()
            return
        then, self._then = self._then, None
        if then is not None:
            self._run(then, now)
        self._go_on(now)

    def play(self, sound: str, then: Answered | None = None) -> None:
        """Play an announcement to both sides, muting them meanwhile. It blocks no message and may fail."""
        if self.instance and not self.over:
            command = Mediate(0, "play", self._call_id, self.instance, sound=sound, language=self.language)
            self._ua.outbox.mediate(command, then)

    def record(self, then: Answered) -> None:
        """Start the recording of both sides at rtpengine. Idempotent."""
        if self.instance and not self.over:
            command = Mediate(0, "record", self._call_id, self.instance, metadata=self._streams())
            self._ua.outbox.mediate(command, then)

    def _streams(self) -> str:
        """All stream descriptions so far: rtpengine keeps only the last metadata it is given.

        "" after a restart: it then keeps the earlier text, to which it adds each SDP by itself.
        """
        streams = "" if self._restored else describe(self._given)
        if streams not in self._said and len(self._said) + len(streams) < LONGEST:
            self._said += f"{streams}\n"
        return self._said

    # -- media supervision

    def watch(self, gone: Step, now: float) -> None:
        """Call `gone` once rtpengine has dropped the call, as it does when media stop, or does not respond any more."""
        self.forks.clear()  # one of them has answered
        if not self.instance:  # no stream was ever negotiated
            return
        self._gone = gone
        self._timer = self._ua.timers.set(now + self._check_s * (0.5 + self._ua.fraction() / 2), self._check)

    def _check(self, now: float) -> None:
        self._timer = None
        self._ua.outbox.mediate(Mediate(0, "query", self._call_id, self.instance), self._checked)

    def _checked(self, answer: MediaReply | None, now: float) -> None:
        if self.over or self._gone is None:
            return
        self._unanswered = 0 if answer is not None else self._unanswered + 1
        if self._unanswered == MOST_UNANSWERED or (answer is not None and not answer.known):
            self._gone(now)
        else:
            self._timer = self._ua.timers.set(now + self._check_s, self._check)

    # -- the end

    def write_counts(self, record: CallRecord) -> CallRecord:
        """The record with the media counts of both sides, as far as known."""
        if self._caller_counts is not None:
            packets, lost, jitter_ms = self._caller_counts
            record = record._replace(caller_packets=packets, caller_lost=lost, caller_jitter_ms=jitter_ms)
        if self._callee_counts is not None:
            packets, lost, jitter_ms = self._callee_counts
            record = record._replace(callee_packets=packets, callee_lost=lost, callee_jitter_ms=jitter_ms)
        return record

    def end(self, heard: Step | None, now: float) -> None:
        """End the session: delete it at rtpengine and run the queue at once.

        `heard` is called when the counts have come, after COUNTS_S at the latest.
        """
        self.over = True
        self._gone = None
        self._ua.timers.cancel(self._timer)
        self._heard = heard
        self._timer = None if heard is None else self._ua.timers.set(now + COUNTS_S, self._release_counts)
        was_asking, self._asking = self._asking, False
        then, self._then = self._then, None
        if not was_asking:  # else in `_answered`: an offer arriving after the delete would open a new session
            self._delete()
        if not self.instance and not was_asking:
            self._release_counts(now)
        if then is not None:
            self._run(then, now)
        self._go_on(now)

    def _delete(self) -> None:
        if self.instance:
            then = None if self._heard is None else self._deleted
            self._ua.outbox.mediate(Mediate(0, "delete", self._call_id, self.instance), then)

    def _deleted(self, answer: MediaReply | None, now: float) -> None:
        counts = dict(answer.counts) if answer is not None else {}
        self._caller_counts = counts.get(self.caller_tag)
        self._callee_counts = counts.get(self.callee_tag)
        self._release_counts(now)

    def _release_counts(self, now: float) -> None:
        """Release the wait for the counts."""
        self._ua.timers.cancel(self._timer)
        self._timer = None
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(now)


def mask_for_rtpengine(message: Message) -> bytes:
    """The message's SDP, masked for rtpengine and with few streams of each kind, since each takes four ports from the
    offer on. b"" if there is none that may pass, or if it exceeds MOST_STREAMS streams."""
    try:
        body = masking.mask_body(message, SdpWriter(_NEUTRAL_ID))
        if body is None or body.content_type != "application/sdp":
            return b""
        return few_of_each_kind(body.data) if body.data.count(b"\nm=") <= MOST_STREAMS else b""
    except (ProtocolError, ParseError):
        return b""


def fault_in(sdp: bytes, sender: Sender, ua: UserAgent) -> str:
    """The first address or port of the neutral SDP to which no media may be sent; "" if there is none."""
    return media_fault(sdp, sender.host, sender.peer.media, ua.peers.controls)


def _go_on_at_once(_: float) -> None:
    """No continuation: only the queue waits for this command."""


def _family(host: str) -> Family:
    """The address family of media for a side with this signalling address."""
    if not host:
        return ""
    return "IP6" if ":" in host else "IP4"


def _other(side: Side) -> Side:
    return "callee" if side == "caller" else "caller"


def _in_own_words(given: bytes, sent: bytes) -> bytes:
    """rtpengine's SDP with the fmtp lines of the original sender."""
    try:
        return with_fmtp_of(given, sent)
    except ParseError:  # refused by masking
        return given


def _leaks(sent: bytes, given: bytes) -> bool:
    try:
        return shows_way(sent, given)
    except ParseError:  # refused by masking
        return False
