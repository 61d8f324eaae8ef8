"""The media of one call at rtpengine: what is asked there, and what of the call waits meanwhile.

A message with a description is taken as if it had come later: rtpengine is asked first, and only with its answer does
the message go on. What else comes for the same call waits behind it, in its order; what ends the call does not, and
what waited then meets a call that is over. So whoever handles messages knows nothing of the wait.

To rtpengine all phones of a callee, and all peers that are tried, are one side: a tag of its own would get each a port
of its own, and the one offer that all of them answer names one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from relay.call import masking
from relay.call.actions import Counts, Mediate, Mediated
from relay.call.codecs import with_fmtp_of
from relay.call.leg import Leak, Side
from relay.call.record import CallRecord
from relay.call.sdp_masking import SdpWriter, refuse_all, shows_way
from relay.errors import ParseError, ProtocolError
from relay.sip.message import Message

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.core import Answered, Core
    from relay.sip.timers import Timer

Step = Callable[[float], None]
Kind = Literal["offer", "answer"]
Family = Literal["", "IP4", "IP6"]
State = tuple[str, str, str, str]  # where it is, the caller's tag, the callee's, the language of what is played

MOST_WAITING: Final = 64  # messages of one call; what comes beyond is not anchored, and so does not cross (DESIGN 4.5)
MOST_UNANSWERED: Final = 3  # questions in a row whether it has the call: then there are no media either
COUNTS_S: Final = 0.5  # how long a closing record waits for what rtpengine has counted
# Of one description. What rtpengine is told, and what it tells of a call (some 4 kB a stream), each go in one datagram:
# where they do not fit there is no answer, and it would be taken for down.
LONGEST: Final = 16_384  # bytes
MOST_STREAMS: Final = 8
_NEUTRAL_ID: Final = 1  # of the session as rtpengine knows it; each side gets one of its own


class Agreement(NamedTuple):
    """One offer and its answer, b"" while there is none."""

    side: Side  # that offers
    offer: bytes
    answer: bytes


class Media:
    """One call's session at rtpengine. Its id there is the call's, its tags are random: no word of a peer's."""

    __slots__ = (
        "_agreed",
        "_asking",
        "_call_id",
        "_callee_counts",
        "_caller_counts",
        "_core",
        "_gone",
        "_heard",
        "_proposed",
        "_settled",
        "_then",
        "_timer",
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
    )

    def __init__(self, core: Core, call_id: str, state: State | None = None) -> None:
        """`state`: of the call's media before a restart."""
        self._core = core
        self._call_id = call_id
        self.instance, self.caller_tag, self.callee_tag, self.language = state or ("", core.token(), core.token(), "")
        self.caller_host = self.callee_host = ""  # where signalling goes, "" where that is not known yet
        self.forks: dict[str, bytes] = {}  # by fork of the callee: its last description, as rtpengine may know it
        self.fork = ""  # whose description rtpengine has
        self._proposed = self._settled = Agreement("caller", b"", b"")
        self.offered: Side | None = None  # whose offer has no answer yet
        self.over = False
        self._caller_counts: Counts | None = None  # of what came from the caller
        self._callee_counts: Counts | None = None
        self._agreed = state is not None  # both sides are known there
        self._asking = False  # an answer of rtpengine's is awaited that others wait behind
        self._then: Step | None = None  # what goes on with it
        self._waiting: deque[Step] = deque()
        self._heard: Step | None = None  # what waits for the counts
        self._gone: Step | None = None
        self._timer: Timer | None = None
        self._unanswered = 0  # questions in a row

    @property
    def state(self) -> State:
        """What a restart needs."""
        return (self.instance, self.caller_tag, self.callee_tag, self.language)

    # -- whose turn it is

    def take(self, step: Step, now: float) -> bool:
        """Runs the step, now or in its turn. False where too many wait: it will not run."""
        if not self._asking and not self._waiting:
            step(now)
            return True
        if len(self._waiting) >= MOST_WAITING:
            self._core.counters["media_over_limit"] += 1
            return False
        self._waiting.append(step)
        return True

    def _run(self, step: Step, now: float) -> None:
        try:
            step(now)
        except Leak as leak:
            leak.call.fail_closed(leak.side, now)

    def _go_on(self, now: float) -> None:
        while self._waiting and not self._asking:
            self._run(self._waiting.popleft(), now)

    # -- descriptions

    def reserve(self, then: Step, now: float) -> None:
        """Finds an instance for a call whose offer is yet to come. `then` sees by `instance` whether one was found."""
        self._ask(Mediate(0, "ping", self._call_id, ""), then, self._answered)

    def anchor(self, call: Call, kind: Kind, side: Side, message: Message, then: Step, now: float) -> None:
        """Has rtpengine put itself in the place of `side`, whose description the message brings; then `then`.

        `then` comes in any case, now or later: what is not anchored, masking lets not pass (`NotAnchored`).
        """
        sdp = b"" if self.over else neutral(message)
        if not sdp:
            then(now)
            return
        if (refusal := refuse_all(sdp)) is not None:
            message.replace_description(refusal)
            then(now)
            return
        if kind == "offer":
            self.offered = side
            self._proposed = Agreement(side, sdp, b"")
        else:
            self.offered = None
            # rtpengine takes a codec out of an answer that says anything else of it than the offer.
            self._proposed = self._proposed._replace(answer=with_fmtp_of(sdp, self._proposed.offer or sdp))
        command = self._command(kind, side, self._proposed.answer or self._proposed.offer)
        self._ask(command, then, partial(self._anchored, call, side, message, sdp))

    def _command(self, kind: Kind, side: Side, sdp: bytes) -> Mediate:
        offers = side if kind == "offer" else _other(side)
        from_tag, to_tag = self._tag(offers), self._tag(_other(offers))
        family: Family = ""
        if kind == "offer" and not self._agreed:
            to_tag = ""  # it does not know one yet, nor whom that is
            family = _family(self.callee_host if side == "caller" else self.caller_host)
        self._agreed = self._agreed or kind == "answer"
        return Mediate(0, kind, self._call_id, self.instance, from_tag, to_tag, sdp, family)

    def _anchored(
        self, call: Call, side: Side, message: Message, sent: bytes, answer: Mediated | None, now: float
    ) -> None:
        if answer is not None and answer.sdp and not self.over:
            if _leaks(sent, answer.sdp):
                call.fail_closed(_other(side), now)
            else:
                message.replace_description(_in_own_words(answer.sdp, sent))
        self._answered(answer, now)

    def settle(self) -> None:
        """What was offered and answered last is what both sides go by from now on."""
        if self._proposed.answer:
            self._settled = self._proposed

    def withdraw(self, now: float) -> None:
        """An offer came to nothing: both sides go by what was settled before (RFC 3261 14.1), and rtpengine is told to,
        which has taken the offer for the session's new state. What waits, waits on."""
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

    def _ask(self, command: Mediate, then: Step, answered: Callable[[Mediated | None, float], None]) -> None:
        self._asking = True
        self._then = then
        self._core.mediate(command, answered)

    def _answered(self, answer: Mediated | None, now: float) -> None:
        self._asking = False
        if answer is None:
            self._core.counters["media_failures"] += 1
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
        """Both sides hear it, and not each other meanwhile. No message waits for it; it may fail."""
        if self.instance and not self.over:
            command = Mediate(0, "play", self._call_id, self.instance, sound=sound, language=self.language)
            self._core.mediate(command, then)

    def record(self, then: Answered) -> None:
        """rtpengine records what both sides send from now on; where it does already, nothing changes."""
        if self.instance and not self.over:
            self._core.mediate(Mediate(0, "record", self._call_id, self.instance), then)

    # -- whether media flow

    def watch(self, gone: Step, now: float) -> None:
        """From now on, `gone` where rtpengine has dropped the call, as it does when no media come any more, or is gone
        itself."""
        self.forks.clear()  # one has answered
        if not self.instance:  # no stream was ever wanted
            return
        self._gone = gone
        check_s = self._core.settings.media_check_s
        self._timer = self._core.timers.set(now + check_s * (0.5 + self._core.fraction() / 2), self._check)

    def _check(self, now: float) -> None:
        self._timer = None
        self._core.mediate(Mediate(0, "query", self._call_id, self.instance), self._checked)

    def _checked(self, answer: Mediated | None, now: float) -> None:
        if self.over or self._gone is None:
            return
        self._unanswered = 0 if answer is not None else self._unanswered + 1
        if self._unanswered == MOST_UNANSWERED or (answer is not None and not answer.known):
            self._gone(now)
        else:
            self._timer = self._core.timers.set(now + self._core.settings.media_check_s, self._check)

    # -- the end

    def write_counts(self, record: CallRecord) -> CallRecord:
        """The record with what is known of what came from each side."""
        if self._caller_counts is not None:
            packets, lost, jitter_ms = self._caller_counts
            record = record._replace(caller_packets=packets, caller_lost=lost, caller_jitter_ms=jitter_ms)
        if self._callee_counts is not None:
            packets, lost, jitter_ms = self._callee_counts
            record = record._replace(callee_packets=packets, callee_lost=lost, callee_jitter_ms=jitter_ms)
        return record

    def end(self, heard: Step | None, now: float) -> None:
        """The call is over: rtpengine is to forget it, and what waits goes on at once.

        `heard` is called when the counts are there, and after COUNTS_S at the latest.
        """
        self.over = True
        self._gone = None
        self._core.timers.cancel(self._timer)
        self._heard = heard
        self._timer = None if heard is None else self._core.timers.set(now + COUNTS_S, self._tell)
        was_asking, self._asking = self._asking, False
        then, self._then = self._then, None
        if not was_asking:  # else when that is answered: an offer that came after it would begin a session anew
            self._delete()
        if not self.instance and not was_asking:
            self._tell(now)
        if then is not None:
            self._run(then, now)
        self._go_on(now)

    def _delete(self) -> None:
        if self.instance:
            then = None if self._heard is None else self._deleted
            self._core.mediate(Mediate(0, "delete", self._call_id, self.instance), then)

    def _deleted(self, answer: Mediated | None, now: float) -> None:
        counts = dict(answer.counts) if answer is not None else {}
        self._caller_counts = counts.get(self.caller_tag)
        self._callee_counts = counts.get(self.callee_tag)
        self._tell(now)

    def _tell(self, now: float) -> None:
        """Whoever waits for the counts waits no longer."""
        self._core.timers.cancel(self._timer)
        self._timer = None
        heard, self._heard = self._heard, None
        if heard is not None:
            heard(now)


def neutral(message: Message) -> bytes:
    """The description that the message brings, as rtpengine may know it; b"" where it brings none that may cross, or
    one of more than LONGEST bytes or MOST_STREAMS streams."""
    try:
        body = masking.mask_body(message, SdpWriter(_NEUTRAL_ID))
    except (ProtocolError, ParseError):
        return b""
    if body is None or body.content_type != "application/sdp":
        return b""
    fits = len(body.data) <= LONGEST and body.data.count(b"\nm=") <= MOST_STREAMS
    return body.data if fits else b""


def _go_on_at_once(_: float) -> None:
    """Nobody waits for this answer but what comes after it."""


def _family(host: str) -> Family:
    """Of the addresses for media of a side whose signalling goes there."""
    if not host:
        return ""
    return "IP6" if ":" in host else "IP4"


def _other(side: Side) -> Side:
    return "callee" if side == "caller" else "caller"


def _in_own_words(given: bytes, sent: bytes) -> bytes:
    """What rtpengine has made of a description, with what its sender says of the codecs in it."""
    try:
        return with_fmtp_of(given, sent)
    except ParseError:  # masking will refuse it
        return given


def _leaks(sent: bytes, given: bytes) -> bool:
    try:
        return shows_way(sent, given)
    except ParseError:  # masking will refuse it
        return False
