"""The rtpengine instances: commands over UDP with retransmission, and deletions still to be delivered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import asyncio_dgram

from relay.errors import Report
from relay.model.actions import MediaReply, Mediate
from relay.model.settings import RtpengineAddress
from relay.net import ng
from relay.net.supervisor import Tasks

# Waits for an answer; a command is retransmitted after each. rtpengine recognises a retransmission by its cookie.
WAITS_S = (0.2, 0.3, 0.5)
MOST_UNTOLD = 10_000  # undelivered deletions; beyond them, rtpengine's own time-outs end the oldest calls


class NoAnswer(Exception):
    """No answer in time, or an invalid one."""


class Instance:
    """One rtpengine. `open` it in the loop that uses it."""

    def __init__(self, address: RtpengineAddress) -> None:
        self.name = address.name
        self.up = True  # until an offer or a ping goes unanswered
        self._untold: dict[str, None] = {}  # calls that it may still hold, to be deleted; oldest first
        self._address = address
        self._stream: asyncio_dgram.aio.DatagramClient | None = None
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Without a route to the instance, commands go unanswered until a later `open` succeeds."""
        if self._stream is not None:
            return
        try:
            self._stream = await asyncio_dgram.connect((self._address.host, self._address.port))
        except OSError:  # no route: the network may not be up yet
            return
        self._reader = asyncio.create_task(self._read(self._stream), name=f"rtpengine {self.name}")

    async def ask(self, message: dict[str, object]) -> ng.NgReply:
        """Send a command and await its answer. Raises NoAnswer after at most a second."""
        cookie = secrets.token_hex(8).encode()
        data = b"%b %b" % (cookie, ng.encode(message))
        answered = self._asked[cookie] = asyncio.get_running_loop().create_future()
        try:
            await self._send_first(data)
            for wait_s in WAITS_S:
                await asyncio.wait([answered], timeout=wait_s)
                if answered.done():
                    return ng.decode(answered.result())
                await self._send(data)
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error
        finally:
            del self._asked[cookie]
        raise NoAnswer("no answer")

    def forget_later(self, call: str) -> None:
        """Schedule the deletion of a call that was not deleted, or not confirmed."""
        if len(self._untold) >= MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        self._untold[call] = None

    def has(self, call: str) -> None:
        """Cancel the scheduled deletion: the instance holds the call."""
        self._untold.pop(call, None)

    async def forget_untold(self) -> None:
        """Delete the scheduled calls. Raises NoAnswer; the rest stay scheduled."""
        for call in list(self._untold):
            await self.ask(delete_command(call))
            self._untold.pop(call, None)

    async def _send_first(self, data: bytes) -> None:
        """Send twice if needed: the first send may report an earlier datagram's error instead of sending."""
        with suppress(OSError):
            await self._send(data)
            return
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        """Raises OSError if an earlier datagram was refused."""
        if self._stream is None:
            raise OSError("no route to it")
        await self._stream.send(data)

    async def _read(self, stream: asyncio_dgram.aio.DatagramClient) -> None:
        while True:
            try:
                data, _ = await stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:  # an ICMP error to an earlier datagram: its `ask` retransmits
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


def delete_command(call: str) -> dict[str, object]:
    return {"command": "delete", "call-id": call, "delete-delay": 0}  # frees the ports at once


# -- rtpengine as media relay

Sounds = Mapping[tuple[str, str], bytes]  # WAV files by language and name; "" is the configured language

PING_S = 1.0  # interval of pings, and so the longest time that one late answer takes an instance out of service
UNKNOWN_CALL = "Unknown call-id"

# rtpengine terminates both sides' media, and nothing that identifies one side reaches the other: no ICE candidates, no
# fingerprints, only rtpengine's own RTCP. Ports stay the same for the whole call, across forks and failover.
_OPTIONS: dict[str, object] = {
    "ICE": "remove",
    "DTLS": "off",
    "SDES": ["nonew"],  # offer only the phone's own crypto suites
    "replace": ["origin", "session-connection"],
    "generate RTCP": "on",
    # strict-source: drop packets from any address but the sender's, which "endpoint-learning" finds.
    "flags": ["port-latching", "allow-asymmetric-codecs", "strict-source"],
}
# For a call without a second side: drop received media, send no RTCP reports.
_ALONE: dict[str, object] = {"media-echo": "blackhole", "generate RTCP": "off"}


class Rtpengine:
    """All instances. New calls go round robin to those that answer; a call stays on its instance."""

    def __init__(self, addresses: Sequence[RtpengineAddress], report: Report, sounds: Sounds | None = None) -> None:
        """`report(event, fields)` gets instances going down and up, and refused commands. `sounds`: announcements."""
        self.failures = 0  # commands that no instance executed
        self.sounds: Sounds = sounds or {}
        self._report = report
        self._instances = {address.name: Instance(address) for address in addresses}
        self._turn = 0
        self._tasks = Tasks()

    async def open(self) -> None:
        for instance in self._instances.values():
            await instance.open()
            self._tasks.begin(self._watch(instance))

    def mediate(self, command: Mediate, then: Callable[[int, MediaReply | None], None]) -> None:
        """Start a command; returns at once. Unless the token is 0, `then` is always called later, from the loop."""
        self._tasks.begin(self._mediate(command, then))

    def statistics(self) -> dict[str, int]:
        up = sum(instance.up for instance in self._instances.values())
        return {"rtpengines_up": up, "rtpengine_failures": self.failures}

    async def close(self) -> None:
        """Close all instances. Open commands are answered None."""
        await self._tasks.cancel()
        for instance in self._instances.values():
            await instance.close()

    async def _mediate(self, command: Mediate, then: Callable[[int, MediaReply | None], None]) -> None:
        answer: MediaReply | None = None  # the default on cancellation and errors
        try:
            answer = await self._carry_out(command)
        finally:
            self.failures += answer is None
            if command.token:
                then(command.token, answer)

    async def _carry_out(self, command: Mediate) -> MediaReply | None:
        if command.instance:
            instance = self._instances.get(command.instance)
            if instance is None:  # a restart removed it from the configuration
                return None
            answer = await self._command(instance, command) if instance.up else None
            if answer is None and command.command == "delete":
                instance.forget_later(command.call)
            return answer
        for instance in self._in_turn():
            if answer := await self._command(instance, command):
                instance.has(command.call)
                return answer
            if command.command == "offer":  # it may have been executed in spite of the missing answer
                instance.forget_later(command.call)
        return None

    def _in_turn(self) -> Iterator[Instance]:
        """The instances that answer, round robin."""
        instances = list(self._instances.values())
        self._turn = (self._turn + 1) % len(instances)
        for instance in instances[self._turn :] + instances[: self._turn]:
            if instance.up:
                yield instance

    async def _command(self, instance: Instance, command: Mediate) -> MediaReply | None:
        try:
            answer = await instance.ask(self._message(command))
            if command.command == "record" and answer.result == "ok":
                answer = await _recording(instance, command.call)
        except NoAnswer as error:
            if command.command in ("offer", "ping"):  # the others may go unanswered for their size alone
                self._down(instance, str(error))
            return None
        if answer.result in ("ok", "pong"):
            sdp, lasts_s = answer.sdp.encode("utf-8", "surrogateescape"), answer.duration / 1000
            return MediaReply(instance.name, sdp=sdp, counts=answer.counts(), lasts_s=lasts_s)
        if answer.error == UNKNOWN_CALL:
            return MediaReply(instance.name, known=False)
        self._report("rtpengine.refused", {"instance": instance.name, "command": command.command, "why": answer.error})
        return None

    def _message(self, command: Mediate) -> dict[str, object]:
        if command.command == "delete":
            return delete_command(command.call)
        message: dict[str, object] = {"command": command.command}
        if command.command != "ping":
            message["call-id"] = command.call
        if command.command == "record":
            message |= {"command": "start recording", "metadata": command.metadata}  # "" leaves an earlier one
        if command.sdp:
            message |= {"from-tag": command.from_tag, "sdp": command.sdp.decode(), **_OPTIONS}
            message["endpoint-learning"] = "immediate" if command.learned else "off"
            if command.to_tag:
                message["to-tag"] = command.to_tag
            if command.family:
                message["address family"] = command.family
            if command.alone:
                message |= _ALONE
                if command.command == "offer":
                    message["transport-protocol"] = "RTP/AVP"  # no second side, no keys
        if command.sound:
            whom = {"from-tag": command.from_tag} if command.from_tag else {"all": "all"}
            sound = self.sounds[command.language, command.sound]
            alone = {"flags": ["block-egress"]}  # mute other media while it plays
            message |= {"command": "play media", "blob": sound, **whom, **alone}
        return message

    def _down(self, instance: Instance, why: str) -> None:
        if instance.up:
            instance.up = False
            self._report("rtpengine.down", {"instance": instance.name, "why": why})

    async def _watch(self, instance: Instance) -> None:
        """Ping an instance for ever: one that does not answer gets no calls until it does."""
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


async def _recording(instance: Instance, call: str) -> ng.NgReply:
    """Verify that a call is recorded: rtpengine says "ok" even without a recording folder. Raises NoAnswer."""
    answer = await instance.ask({"command": "query", "call-id": call})
    if answer.result == "ok" and not answer.recording.on:
        return ng.NgReply("error", error="not recording: set rtpengine's recording-dir and recording-method")
    return answer
