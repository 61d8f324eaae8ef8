"""Ladders with media through rtpengine: a stand-in that answers under control of the test.

Like rtpengine it writes its own address and a port per side into each SDP, leaves refused streams unchanged, and knows
its calls from the offer to the delete.
"""

from __future__ import annotations

import re
from dataclasses import replace

from relay.model.actions import MediaReply, Mediate, RtpCounts
from relay.model.call import Refusal, Route
from relay.sip.message import Message
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, reinvite, update
from tests.ladder.phones import Fate, LossyLadder
from tests.ladder.side import Side

RTPENGINE = "127.0.0.40"
SOUND_S = 3.0  # of each sound
CALLER_PORT, CALLEE_PORT = 30_000, 32_000  # rtpengine's ports for the caller's and the callee's media
MEDIA_HOSTS = ("127.0.0.31", "127.0.0.32")  # media addresses in `tests.ladder.descriptions`

_ADDRESS = re.compile(rb"(?m)^(m=\S+ 0 .*\nc=.*)|^(c=IN IP4|o=.* IN IP4) [0-9.]+")
_PORT = re.compile(rb"(?m)^(m=[a-z]+) ([1-9][0-9]*)")


class Rtpengine:
    """Stand-in for rtpengine: its commands and calls."""

    def __init__(self) -> None:
        self.told: list[Mediate] = []
        self.calls: dict[str, list[str]] = {}  # tags of each call, the offering one first
        self.works = True
        self.plays = self.records = True
        self.counts = True  # it reports counts
        self.address = RTPENGINE  # in SDP
        self.passes_addresses = False  # it leaves the SDP unchanged

    def answer(self, command: Mediate) -> MediaReply | None:
        self.told.append(command)
        if not self.works:
            return None
        if command.command == "ping":
            return MediaReply("one")
        if command.command == "offer":
            self.calls.setdefault(command.call, [])
        if command.sdp and not _PORT.search(command.sdp):
            return None  # "no usable session media stream"
        tags = self.calls.get(command.call)
        if tags is None:
            return MediaReply("one", known=False)
        if command.command in ("play", "record"):
            able = self.plays if command.command == "play" else self.records
            return MediaReply("one", lasts_s=SOUND_S) if able else None
        if command.command in ("query", "delete"):
            return self._leave(command, tags)
        for tag in (command.from_tag, command.to_tag):
            if tag and tag not in tags:
                tags.append(tag)
        speaks = command.from_tag if command.command == "offer" else command.to_tag
        return MediaReply("one", sdp=self._rewrite(command.sdp, tags.index(speaks)))

    def _leave(self, command: Mediate, tags: list[str]) -> MediaReply:
        if command.command == "query":
            return MediaReply("one")
        del self.calls[command.call]
        counts = tuple((tag, RtpCounts(500 + place, place, 7)) for place, tag in enumerate(tags)) if self.counts else ()
        return MediaReply("one", counts=counts)

    def _rewrite(self, sdp: bytes, place: int) -> bytes:
        if self.passes_addresses:
            return sdp
        base = CALLEE_PORT if place else CALLER_PORT
        sdp = _ADDRESS.sub(lambda found: found[1] or b"%b %b" % (found[2], self.address.encode()), sdp)
        return _PORT.sub(lambda found: b"%b %d" % (found[1], base + int(found[2]) % 100), sdp)


class AnchoredLadder(Ladder):
    """`hold_media` delays rtpengine's answers to commands that block the queue, `hold_queries` those to the others."""

    def __init__(self, routes: dict[tuple[str, str], Route | Refusal] | None = None, **settings: object) -> None:
        self.rtpengine = Rtpengine()
        self.hold_media = self.hold_queries = False
        self._asked: list[Mediate] = []
        super().__init__(routes, **{"anchored": True, **settings})  # type: ignore[arg-type]

    def mediate(self, command: Mediate) -> None:
        if self.hold_queries if command.command == "query" else self.hold_media:
            self._asked.append(command)
        else:
            self._answer_media(command)

    def _answer_media(self, command: Mediate) -> None:
        answer = self.rtpengine.answer(command)
        if command.token:
            self.engine.mediated(command.token, answer, self.now)

    @property
    def asked(self) -> list[str]:
        """Pending commands to rtpengine."""
        return [command.command for command in self._asked]

    def rtpengine_answers(self) -> None:
        """Answer the oldest pending command."""
        self._answer_media(self._asked.pop(0))
        self.perform()

    def rtpengine_is_silent(self) -> None:
        """Let the oldest pending command time out."""
        command = self._asked.pop(0)
        self.engine.mediated(command.token, None, self.now)
        self.perform()

    def rtpengine_goes_on(self) -> None:
        """Answer all pending commands, and later ones at once."""
        self.hold_media = self.hold_queries = False
        while self._asked:
            self.rtpengine_answers()

    def restart(self, **settings: object) -> None:
        self._asked.clear()
        super().restart(**settings)

    def settle(self, seconds: float = 200.0) -> None:
        super().settle(seconds)
        assert not self.rtpengine.calls, "rtpengine has not been told of the end"
        check_media(self)


class LossyAnchoredLadder(LossyLadder):
    """rtpengine answers after the delays in turn; None: never, which the driver reports after 1 s."""

    def __init__(self, fates: list[Fate], delays: list[float | None]) -> None:
        super().__init__(fates)
        self.rtpengine = Rtpengine()
        self._delays = iter(delays)
        self.settings = replace(self.settings, anchored=True)
        self.engine = self._start()

    def mediate(self, command: Mediate) -> None:
        delay, engine = next(self._delays, 0.001), self.engine

        def answer() -> None:
            result = None if delay is None else self.rtpengine.answer(command)
            if command.token and engine is self.engine:
                engine.mediated(command.token, result, self.now)

        self.after(1.0 if delay is None else delay, answer)

    def settle(self, seconds: float = 200.0) -> None:
        super().settle(seconds)
        check_media(self)


def check_media(ladder: Ladder) -> None:
    """Check that no SDP has the other side's media address, and that rtpengine got no text of a peer."""
    for data, flow in ladder.checks.sent:
        for host in MEDIA_HOSTS:
            assert host.encode() not in data, f"{host} went to {flow.host}:\n{data.decode()}"


def hold_and_update(asking: Side, asked: Side) -> None:
    """In an answered call: one side holds the other and resumes."""
    reinvite(asking, asked)
    update(asking, asked, OFFER, ANSWER)


def refused(ladder: AnchoredLadder, status: int, outcome: str) -> Message:
    answer = ladder.caller.get(status)
    ladder.caller.acks_refusal()
    assert ladder.record.outcome == outcome
    ladder.settle()
    return answer


def commands(ladder: AnchoredLadder) -> list[str]:
    return [command.command for command in ladder.rtpengine.told]


def leads_to_rtpengine(message: Message, port: int) -> None:
    lines = message.body.split(b"\r\n")
    assert f"c=IN IP4 {RTPENGINE}".encode() in lines
    assert any(line.startswith(f"m=audio {port} ".encode()) for line in lines), message.body
