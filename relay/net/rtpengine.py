"""rtpengine, through which media go: its instances, which of them answer, and its "ng" protocol over UDP.

A command and its answer are a cookie, a blank and JSON, or bencode where a sound goes with it (rtpengine's
docs/ng_control_protocol.md). It knows nothing of a call but its id and tags, and decides nothing about one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import asyncio_dgram
import msgspec
from msgspec import Struct, field

from relay.call.actions import Counts, Mediate, Mediated
from relay.net import bencode
from relay.net.settings import RtpengineAddress
from relay.net.tasks import Tasks

Report = Callable[[str, dict[str, object]], None]
Sounds = Mapping[tuple[str, str], bytes]  # WAV files by language and name; "" is the configured language

# A command is sent again after each of these but the last. rtpengine knows a repetition by its cookie.
WAITS_S = (0.2, 0.3, 0.5)
PING_S = 1.0  # so long one that has answered too late once is left out, at the most
UNKNOWN_CALL = "Unknown call-id"
MOST_UNTOLD = 10_000  # calls that an instance is still to be told to forget; the oldest it will drop by itself

# To both sides a stream's end is rtpengine, and nothing that one says of itself reaches the other: no candidates, no
# fingerprints, and of RTCP what rtpengine makes itself. Ports stay for the call's time, whichever of a forking callee's
# phones, or of the peers tried in turn, has the other end.
_OPTIONS: dict[str, object] = {
    "ICE": "remove",
    "DTLS": "off",
    "SDES": ["nonew"],  # the suites that a phone offers, and not a dozen more
    "replace": ["origin", "session-connection"],
    "generate RTCP": "on",
    "flags": ["port-latching", "allow-asymmetric-codecs"],
}
# Nobody is on the other side: what comes is dropped, and no report goes there.
_ALONE: dict[str, object] = {"media-echo": "blackhole", "generate RTCP": "off"}


class _Stats(Struct):
    packets: int = 0


class _Ingress(Struct):
    ssrc: int = field(name="SSRC")


class _Stream(Struct):
    flags: tuple[str, ...] = ()
    stats: _Stats = field(default_factory=_Stats)
    ingress: tuple[_Ingress, ...] = field(name="ingress SSRCs", default=())


class _Media(Struct):
    streams: tuple[_Stream, ...] = ()


class _Tag(Struct):
    medias: tuple[_Media, ...] = ()


class _Mean(Struct):
    jitter: int = 0
    samples: int = 1


class _Reports(Struct):
    """What one SSRC reports of what it hears, and rtpengine of the way to there.

    rtpengine 12.5 keeps the loss of what a side sends and the loss that it reports in one place, and takes it over to
    the other side with reports of its own (`rtcp_send_report`): later in a call both may be one side's.
    """

    lost: int | None = field(name="cumulative loss", default=None)
    mean: _Mean | None = field(name="average MOS", default=None)


class _Recording(Struct):
    on: int = field(name="call recording", default=0)


class Answer(Struct):
    """What an instance says to a command; further fields are of no use here."""

    result: str
    error: str = field(name="error-reason", default="")
    sdp: str = ""
    tags: dict[str, _Tag] = field(default_factory=dict)
    reports: dict[str, _Reports] = field(name="SSRC", default_factory=dict)
    duration: int = 0  # milliseconds
    recording: _Recording = field(default_factory=_Recording)


_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(Answer).decode


def _encode(message: dict[str, object]) -> bytes:
    return bencode.encode(message) if "blob" in message else _encode_json(message)  # type: ignore[arg-type]


def _decode(data: bytes) -> Answer:
    """Raises ValueError; msgspec's errors are such."""
    return msgspec.convert(bencode.decode(data), Answer) if data.startswith(b"d") else _decode_json(data)


class NoAnswer(Exception):
    """An instance did not answer a command in time, or not in its words."""


class Instance:
    """One rtpengine. Open it in the loop that it is used in."""

    def __init__(self, address: RtpengineAddress) -> None:
        self.name = address.name
        self.up = True  # until it leaves a new call or a ping unanswered
        self._untold: dict[str, None] = {}  # calls that it may have and nobody else has any more, the oldest first
        self._address = address
        self._stream: asyncio_dgram.aio.DatagramClient | None = None
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Where that cannot be, no command is answered until it can."""
        if self._stream is not None:
            return
        try:
            self._stream = await asyncio_dgram.connect((self._address.host, self._address.port))
        except OSError:  # no way there: the network may come yet
            return
        self._reader = asyncio.create_task(self._read(self._stream), name=f"rtpengine {self.name}")

    async def ask(self, message: dict[str, object]) -> Answer:
        """Raises NoAnswer, after a second at the latest."""
        cookie = secrets.token_hex(8).encode()
        data = b"%b %b" % (cookie, _encode(message))
        answered = self._asked[cookie] = asyncio.get_running_loop().create_future()
        try:
            await self._send_first(data)
            for wait_s in WAITS_S:
                await asyncio.wait([answered], timeout=wait_s)
                if answered.done():
                    return _decode(answered.result())
                await self._send(data)
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error
        finally:
            del self._asked[cookie]
        raise NoAnswer("no answer")

    def forget_later(self, call: str) -> None:
        """It was not told to forget the call, or has not answered to that."""
        if len(self._untold) >= MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        self._untold[call] = None

    def has(self, call: str) -> None:
        """The call is in use there."""
        self._untold.pop(call, None)

    async def forget_untold(self) -> None:
        """Tells it what it has not heard. Raises NoAnswer; it is told again then."""
        for call in list(self._untold):
            await self.ask(_deletion(call))
            self._untold.pop(call, None)

    async def _send_first(self, data: bytes) -> None:
        """What the socket has to report yet is of an earlier datagram."""
        with suppress(OSError):
            await self._send(data)
            return
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        """Raises OSError where an earlier datagram came to nobody."""
        if self._stream is None:
            raise OSError("no way there")
        await self._stream.send(data)

    async def _read(self, stream: asyncio_dgram.aio.DatagramClient) -> None:
        while True:
            try:
                data, _ = await stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:  # of a datagram that came to nobody: whoever waits for its answer sends again
                continue
            cookie, _, answer = data.partition(b" ")
            waiting = self._asked.get(cookie)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def close(self) -> None:
        if self._reader is not None and self._stream is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._stream.close()


class Rtpengine:
    """All instances. New calls go to those that answer, in turn; a call stays where it began."""

    def __init__(self, addresses: Sequence[RtpengineAddress], report: Report, sounds: Sounds | None = None) -> None:
        """`report(event, fields)` is told of instances that stop answering and begin again, and of commands refused.

        `sounds`: what there is to play.
        """
        self.failures = 0  # commands that came to nothing
        self.sounds: Sounds = sounds or {}
        self._report = report
        self._instances = {address.name: Instance(address) for address in addresses}
        self._turn = 0
        self._tasks = Tasks()

    async def open(self) -> None:
        for instance in self._instances.values():
            await instance.open()
            self._tasks.begin(self._watch(instance))

    def mediate(self, command: Mediate, then: Callable[[int, Mediated | None], None]) -> None:
        """Returns at once; `then` is called from the loop, whatever happens, unless the token is 0."""
        self._tasks.begin(self._mediate(command, then))

    def statistics(self) -> dict[str, int]:
        up = sum(instance.up for instance in self._instances.values())
        return {"rtpengines_up": up, "rtpengine_failures": self.failures}

    async def close(self) -> None:
        """What is still asked gets None for an answer."""
        await self._tasks.cancel()
        for instance in self._instances.values():
            await instance.close()

    async def _mediate(self, command: Mediate, then: Callable[[int, Mediated | None], None]) -> None:
        answer: Mediated | None = None  # also where this is cancelled or breaks
        try:
            answer = await self._carry_out(command)
        finally:
            self.failures += answer is None
            if command.token:
                then(command.token, answer)

    async def _carry_out(self, command: Mediate) -> Mediated | None:
        if command.instance:
            instance = self._instances.get(command.instance)
            if instance is None:  # it was in the configuration before a restart
                return None
            answer = await self._tell(instance, command) if instance.up else None
            if answer is None and command.command == "delete":
                instance.forget_later(command.call)
            return answer
        for instance in self._in_turn():
            if answer := await self._tell(instance, command):
                instance.has(command.call)
                return answer
            if command.command == "offer":  # which it may have taken after all
                instance.forget_later(command.call)
        return None

    def _in_turn(self) -> Iterator[Instance]:
        """Those that answer, each call beginning with the next one."""
        instances = list(self._instances.values())
        self._turn = (self._turn + 1) % len(instances)
        for instance in instances[self._turn :] + instances[: self._turn]:
            if instance.up:
                yield instance

    async def _tell(self, instance: Instance, command: Mediate) -> Mediated | None:
        try:
            answer = await instance.ask(self._message(command))
            if command.command == "record" and answer.result == "ok":
                answer = await _recording(instance, command.call)
        except NoAnswer as error:
            if command.command in ("offer", "ping"):  # of the others one may be too long to be answered
                self._down(instance, str(error))
            return None
        if answer.result in ("ok", "pong"):
            sdp, lasts_s = answer.sdp.encode("utf-8", "surrogateescape"), answer.duration / 1000
            return Mediated(instance.name, sdp=sdp, counts=_counts(answer), lasts_s=lasts_s)
        if answer.error == UNKNOWN_CALL:
            return Mediated(instance.name, known=False)
        self._report("rtpengine.refused", {"instance": instance.name, "command": command.command, "why": answer.error})
        return None

    def _message(self, command: Mediate) -> dict[str, object]:
        if command.command == "delete":
            return _deletion(command.call)
        message: dict[str, object] = {"command": command.command}
        if command.command != "ping":
            message["call-id"] = command.call
        if command.command == "record":
            message["command"] = "start recording"
        if command.sdp:
            message |= {"from-tag": command.from_tag, "sdp": command.sdp.decode(), **_OPTIONS}
            if command.to_tag:
                message["to-tag"] = command.to_tag
            if command.family:
                message["address family"] = command.family
            if command.alone:
                message |= _ALONE
                if command.command == "offer":
                    message["transport-protocol"] = "RTP/AVP"  # nobody has no keys
        if command.sound:
            whom = {"from-tag": command.from_tag} if command.from_tag else {"all": "all"}
            sound = self.sounds[command.language, command.sound]
            alone = {"flags": ["block-egress"]}  # nothing else meanwhile
            message |= {"command": "play media", "blob": sound, **whom, **alone}
        return message

    def _down(self, instance: Instance, why: str) -> None:
        if instance.up:
            instance.up = False
            self._report("rtpengine.down", {"instance": instance.name, "why": why})

    async def _watch(self, instance: Instance) -> None:
        """Pings for ever: an instance that does not answer gets no calls until it does."""
        while True:
            await instance.open()
            try:
                await instance.ask({"command": "ping"})
            except NoAnswer as error:
                self._down(instance, str(error))
            else:
                if not instance.up:
                    instance.up = True
                    self._report("rtpengine.up", {"instance": instance.name})
                with suppress(NoAnswer):
                    await instance.forget_untold()
            await asyncio.sleep(PING_S)


def _deletion(call: str) -> dict[str, object]:
    return {"command": "delete", "call-id": call, "delete-delay": 0}  # its ports are free at once


async def _recording(instance: Instance, call: str) -> Answer:
    """Whether it records the call: it says "ok" also where it has no folder to do so. Raises NoAnswer."""
    answer = await instance.ask({"command": "query", "call-id": call})
    if answer.result == "ok" and not answer.recording.on:
        return Answer("error", error="it does not record; its recording-dir and recording-method say where and how")
    return answer


def _counts(answer: Answer) -> tuple[tuple[str, Counts], ...]:
    streams = {name: _sound_of(tag) for name, tag in answer.tags.items()}
    return tuple(
        (name, _counts_of(own, [each for other in streams if other != name for each in streams[other]], answer.reports))
        for name, own in streams.items()
    )


def _sound_of(tag: _Tag) -> list[_Stream]:
    return [stream for media in tag.medias for stream in media.streams if "RTP" in stream.flags]


def _counts_of(own: list[_Stream], others: list[_Stream], reports: dict[str, _Reports]) -> Counts:
    """Packets of `own` streams; how they arrive stands under the SSRCs of the other sides, which say so."""
    receivers = {str(each.ssrc) for stream in others for each in stream.ingress}
    known = [reports[ssrc] for ssrc in receivers if ssrc in reports]
    losses = [report.lost for report in known if report.lost is not None]
    means = [report.mean for report in known if report.mean is not None]
    samples = sum(mean.samples for mean in means)
    return Counts(
        sum(stream.stats.packets for stream in own),
        max(sum(losses), 0) if losses else None,
        round(sum(mean.jitter * mean.samples for mean in means) / samples) if samples else None,
    )
