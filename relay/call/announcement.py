"""Announcements (refusal; beginning, recording and imminent end of a call), and the recording of a call.

rtpengine plays the sounds; this module knows their names, not their files. A refused caller gets an early dialog with
rtpengine's answer to his offer; on any failure the final response is sent at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from relay.call.media import MOST_UNANSWERED
from relay.errors import ParseError, ProtocolError
from relay.model.actions import MediaReply, Mediate
from relay.peers.limits import ANNOUNCING
from relay.privacy.codecs import codec_names, is_of
from relay.sip.sdp import Attribute, ConnectionData, MediaDescription, Origin, Sdp, parse_sdp

if TYPE_CHECKING:
    from relay.call.leg import CallBase
    from relay.defence.limits import Tally
    from relay.model.settings import Settings
    from relay.peers.user_agent import UserAgent
    from relay.sip.timers import Timer

BEGIN: Final = "begin"
ENDING: Final = "ending"
RECORDED: Final = "recorded"
ENDING_S: Final = 60.0  # before the maximum duration of a call
LONGEST_S: Final = 20.0  # cap of an announcement before the final response

# Sounds by outcome. The others have none: the caller can do nothing, or the relay is overloaded.
OF_REFUSAL: Final = {
    "busy": "busy",
    "rejected": "busy",
    "no_answer": "no_answer",
    "unreachable": "unreachable",
    "no_callee": "unreachable",
    "number_unknown": "unknown",
    "legacy_ended": "unknown",
    "phase_over": "out_of_service",
    "no_binding": "not_bound",
    "expired": "not_bound",
    "direction_barred": "not_bound",
    "caller_not_listed": "not_bound",
    "caller_blacklisted": "not_bound",
    "caller_international": "not_bound",
    "party_not_allowed": "not_bound",
    "own_number": "not_bound",
    "not_filed": "not_bound",
    "verification_refused": "not_bound",
    "number_locked": "out_of_service",
    "business_suspended": "out_of_service",
    "business_revoked": "out_of_service",
    "outside_hours": "outside_hours",
    "caller_anonymous": "anonymous",
    "frequency_caller": "too_often",
    "frequency_number": "too_often",
}
SOUNDS: Final = (BEGIN, ENDING, RECORDED, *dict.fromkeys(OF_REFUSAL.values()))

_PLAYED: Final = ("pcma", "pcmu", "g722", "opus", "g729", "gsm")  # codecs that rtpengine can encode
_DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
_DISCARD: Final = 9  # RFC 863; no media are sent there
_NOBODY: Final = {"IP4": ConnectionData("IP4", "127.0.0.1"), "IP6": ConnectionData("IP6", "::1")}


class Announcement:
    """One announcement to one refused caller. It ends once: played out, failed, or by `end`."""

    __slots__ = (
        "_asking",
        "_caller_tag",
        "_instance",
        "_language",
        "_learned",
        "_over",
        "_relay_tag",
        "_session",
        "_show",
        "_sound",
        "_stages",
        "_timer",
        "_ua",
    )

    def __init__(
        self,
        ua: UserAgent,
        stages: Tally,
        call_id: str,
        sound: str,
        language: str,
        show: Callable[[bytes, float], None],
        over: Callable[[float], None],
        *,
        learned: bool,
    ) -> None:
        """`language`: see `Route`; `show` sends the SDP to the caller and may raise ProtocolError or ParseError; `over`
        is called at the end; `learned`: see `Mediate`."""
        self._ua = ua
        self._stages = stages
        self._session = f"{call_id}-announcement"  # the call itself may have a session at rtpengine
        self._caller_tag, self._relay_tag = ua.token(), ua.token()
        self._instance = ""
        self._sound, self._language = sound, language
        self._learned = learned
        self._show: Callable[[bytes, float], None] | None = show
        self._over: Callable[[float], None] | None = over
        self._asking = False  # a command to rtpengine is pending
        self._timer: Timer | None = None
        stages.begin(ANNOUNCING)

    def begin(self, offer: bytes) -> None:
        """`offer`: the caller's masked SDP."""
        self._ask(self._command("offer", offer), self._offered)

    def end(self, now: float) -> None:
        """Stop the announcement and call `over`. Idempotent."""
        over, self._over, self._show = self._over, None, None
        if over is None:
            return
        self._ua.timers.cancel(self._timer)
        self._stages.end(ANNOUNCING)
        if not self._asking:  # else in `_heard`: a pending offer that arrived after the delete would remain
            self._delete()
        over(now)

    def _offered(self, answer: MediaReply, now: float) -> None:
        reply = answer_alone(answer.sdp)
        if reply is None:
            self.end(now)
        else:
            self._ask(self._command("answer", reply), self._answered)

    def _answered(self, answer: MediaReply, now: float) -> None:
        show, self._show = self._show, None
        try:
            if show is not None:
                show(answer.sdp, now)
        except (ProtocolError, ParseError):
            self.end(now)
            return
        command = Mediate(0, "play", self._session, self._instance, self._caller_tag, sound=self._sound)
        self._ask(command._replace(language=self._language), self._played)

    def _played(self, answer: MediaReply, now: float) -> None:
        self._ua.outbox.counters["announcements"] += 1
        self._timer = self._ua.timers.set(now + min(answer.lasts_s, LONGEST_S), self.end)

    def _command(self, command: Literal["offer", "answer"], sdp: bytes) -> Mediate:
        to_tag = self._relay_tag if command == "answer" else ""
        learned = self._learned and command == "offer"
        return Mediate(
            0, command, self._session, self._instance, self._caller_tag, to_tag, sdp, alone=True, learned=learned
        )

    def _ask(self, command: Mediate, then: Callable[[MediaReply, float], None]) -> None:
        self._asking = True
        self._ua.outbox.mediate(command, partial(self._heard, then))

    def _heard(self, then: Callable[[MediaReply, float], None], answer: MediaReply | None, now: float) -> None:
        self._asking = False
        if answer is not None and answer.known:
            self._instance = answer.instance
        if self._over is None:
            self._delete()
        elif answer is None or not answer.known:
            self._ua.outbox.counters["announcements_failed"] += 1
            self.end(now)
        else:
            then(answer, now)

    def _delete(self) -> None:
        if self._instance:
            self._ua.outbox.mediate(Mediate(0, "delete", self._session, self._instance))


def may_announce(outcome: str, offer: bytes) -> bool:
    """Whether there is an announcement of the outcome, and the caller's masked `offer` lets him hear it."""
    return bool(offer) and outcome in OF_REFUSAL and answer_alone(offer) is not None


def answer_alone(offer: bytes) -> bytes | None:
    """The answer of a mute far side: accepts the first audio stream that rtpengine can fill, rejects the others.

    None if the offer has no such stream that its side receives.
    """
    try:
        sdp = parse_sdp(offer)
        chosen = next((media for media in sdp.media if _payload(media, sdp) is not None), None)
        connection = sdp.connection or (chosen.connections[0] if chosen is not None and chosen.connections else None)
        if chosen is None or connection is None:
            return None
        nobody = _NOBODY[connection.address_type]
        streams = [_fill(media, sdp) if media is chosen else _refuse(media) for media in sdp.media]
        origin = Origin("-", "1", "1", nobody.address_type, nobody.address)
        return Sdp(origin, nobody, [], [], [], streams).serialize()
    except ParseError:
        return None


def _payload(media: MediaDescription, sdp: Sdp) -> str | None:
    """The payload type for a sound in this stream; None if it cannot carry one."""
    if media.kind != "audio" or not media.port or _direction(media, sdp) not in ("sendrecv", "recvonly"):
        return None
    names = codec_names(media)
    return next((payload for payload in media.formats if names.get(payload) in _PLAYED), None)


def _direction(media: MediaDescription, sdp: Sdp) -> str:
    named = [name for name, _ in (*media.attributes, *sdp.attributes) if name in _DIRECTIONS]
    return named[0] if named else "sendrecv"


def _fill(media: MediaDescription, sdp: Sdp) -> MediaDescription:
    # Not "sendonly" in answer to "sendrecv": a PBX would see it as hold and play its own music.
    direction: Attribute = ("sendonly" if _direction(media, sdp) == "recvonly" else "sendrecv", None)
    payload = _payload(media, sdp) or ""
    of_codec = [each for each in media.attributes if each[0] in ("rtpmap", "fmtp") and is_of(each, [payload])]
    return MediaDescription(media.kind, _DISCARD, None, media.protocol, [payload], [], [], [*of_codec, direction])


def _refuse(media: MediaDescription) -> MediaDescription:
    return MediaDescription(media.kind, 0, None, media.protocol, media.formats[:1], [], [], [])


# -- Recording of one call at rtpengine


class Recorder:
    """The recording of a call whose binding asks for it. Has no effect once the call has ended."""

    __slots__ = ("_call", "_settings", "_timer", "_ua", "_unanswered")

    def __init__(self, ua: UserAgent, settings: Settings, call: CallBase) -> None:
        self._ua = ua
        self._settings = settings
        self._call = call
        self._timer: Timer | None = None  # asks again whether the call is recorded
        self._unanswered = 0  # consecutive times that it was set

    def begin(self, now: float) -> None:
        """Play the notice, after the current event: a failure may end the call."""
        self._ua.timers.set(now, self._play_notice)

    def _play_notice(self, now: float) -> None:
        media = self._call.media
        if media is None or not media.instance or not self._settings.recording:
            self._failed("no_rtpengine", now)
        else:
            media.play(RECORDED, self._notice_played)

    def _notice_played(self, answer: MediaReply | None, now: float) -> None:
        if answer is None or not answer.lasts_s:
            self._failed("notice", now)
        else:
            self._ua.timers.set(now + answer.lasts_s, self.record)

    def record(self, _: float) -> None:
        """Start recording. Idempotent; needed again if rtpengine was restarted and got the call by a new offer."""
        if self._call.media is not None:
            self._call.media.record(self._begun)

    def _begun(self, answer: MediaReply | None, now: float) -> None:
        if answer is not None and answer.known:
            self._unanswered = 0
            self._call.recorded()
        elif answer is None and self._call.recording is not None and self._unanswered < MOST_UNANSWERED:
            if self._timer is None:  # what is being recorded goes on while rtpengine is silent
                self._unanswered += 1
                self._timer = self._ua.timers.set(now + self._settings.media_check_s, self._record_again)
        else:
            self._failed("start", now)

    def _record_again(self, now: float) -> None:
        self._timer = None
        self.record(now)

    def _failed(self, step: str, now: float) -> None:
        call, outbox = self._call, self._ua.outbox
        if call.is_over:
            return
        outbox.counters["recordings_failed"] += 1
        outbox.note("recording.failed", call_id=call.call_id, step=step)
        if self._settings.recording_needed:
            call.disconnect("recording_failed", now)
