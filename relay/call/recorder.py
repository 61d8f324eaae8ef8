"""Recording of one call at rtpengine, begun only after the notice has been played to both sides.

It begins once, and again after a restart that interrupted the notice. The handling of the finished recording is
elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.actions import Mediated
from relay.call.announcement import RECORDED

if TYPE_CHECKING:
    from relay.call.call import Call


class Recorder:
    """The recording of a call whose binding asks for it. Has no effect once the call has ended."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def begin(self, now: float) -> None:
        """Play the notice, after the current event: a failure may end the call."""
        self._call.core.timers.set(now, self._tell)

    def _tell(self, now: float) -> None:
        call = self._call
        if call.media is None or not call.media.instance or not call.core.settings.recording:
            self._failed("no_rtpengine", now)
        else:
            call.media.play(RECORDED, self._told)

    def _told(self, answer: Mediated | None, now: float) -> None:
        if answer is None or not answer.lasts_s:
            self._failed("notice", now)
        else:
            self._call.core.timers.set(now + answer.lasts_s, self.record)

    def record(self, _: float) -> None:
        """Start recording. Idempotent; needed again if rtpengine was restarted and got the call by a new offer."""
        if self._call.media is not None:
            self._call.media.record(self._begun)

    def _begun(self, answer: Mediated | None, now: float) -> None:
        if answer is None or not answer.known:
            self._failed("start", now)
        else:
            self._call.recorded()

    def _failed(self, step: str, now: float) -> None:
        call = self._call
        if call.ended:
            return
        call.core.counters["recordings_failed"] += 1
        call.core.note("recording.failed", call_id=call.call_id, step=step)
        if call.core.settings.recording_needed:
            call.end("relay", "recording_failed", now)
