"""A running Asterisk with the configuration of config/asterisk, driven by its manager interface (AMI).

Its phones are robots in the dialplan: they play a tone, record, send and read digits, and attempt a transfer.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import re
import wave
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.addresses import Address, free

PATIENCE_S = 20.0
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "asterisk"
EXAMPLE_PBX, EXAMPLE_RELAY = "192.0.2.20", "192.0.2.10"
# Built by scripts/asterisk.sh.
SYSTEM = Path(
    os.environ.get("RELAY700_ASTERISK")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relay700" / "asterisk"
)
RATE = 8_000  # samples per second

# Modules that the robots need, beyond the example's.
_MORE_MODULES = """
load = app_playback.so
load = app_read.so
load = app_record.so
load = app_senddtmf.so
load = app_transfer.so
load = app_userevent.so
load = res_pjsip_refer.so
load = res_pjsip_authenticator_digest.so
load = res_pjsip_outbound_authenticator_digest.so
load = res_pjsip_outbound_registration.so
load = res_pjsip_registrar.so
load = format_wav.so
"""

# Incoming calls enter at `answer`; the next part is the robot's name.
_ROBOTS = """
[answer]
exten => _X!,1,NoOp()
exten => _[a-z].,1,Answer()
 same => n,UserEvent(Seen,Caller: ${CALLERID(all)},Ani: ${CALLERID(ani)},Connected: ${CONNECTEDLINE(all)})
 same => n,Goto(robots,${EXTEN},1)

[robots]
exten => speak,1,Playback(${TONE})
 same => n,Goto(speak,1)

exten => listen,1,Record(${HEARD}.wav,0,1,qx)
 same => n,UserEvent(Heard)
 same => n,Hangup()

exten => send,1,SendDTMF(${DIGITS})
 same => n,Read(READ,,4,,1,15)
 same => n,UserEvent(Digits,Sent: ${DIGITS},Read: ${READ})
 same => n,Wait(30)

exten => read,1,Read(READ,,4,,1,15)
 same => n,SendDTMF(w${DIGITS})
 same => n,UserEvent(Digits,Sent: ${DIGITS},Read: ${READ})
 same => n,Wait(30)

exten => transfer,1,Transfer(PJSIP/sip:13700009999@127.0.0.99)
 same => n,UserEvent(Transferred,Status: ${TRANSFERSTATUS},Protocol: ${TRANSFERSTATUSPROTOCOL})
 same => n,Wait(30)

exten => wait,1,Wait(30)
"""

# A phone that withholds its number; the trunk asserts it nevertheless.
_PHONE = """
[{number}]
type = endpoint
context = from-phones
callerid = <{number}>
callerid_privacy = prohib
transport = udp
aors = {number}
disallow = all
allow = alaw
direct_media = no
moh_passthrough = yes

[{number}]
type = aor
contact = sip:{number}@{address}

[{number}]
type = identify
endpoint = {number}
match = {address.host}
"""

_MANAGER = """
[general]
enabled = yes
bindaddr = {address.host}
port = {address.port}

[test]
secret = test
read = all
write = all
"""

_LOGGER = """
[logfiles]
full => notice,warning,error,verbose(5),dtmf
"""


@dataclass(frozen=True)
class Robot:
    """An answering number of the PBX: a pattern of the dialplan, a robot, and its argument."""

    number: str
    name: str
    variables: dict[str, str] = field(default_factory=dict)

    def dialplan(self) -> str:
        lines = [f"exten => {self.number},1,NoOp()"]
        lines += [f" same => n,Set({name}={value})" for name, value in self.variables.items()]
        return "\n".join([*lines, f" same => n,Goto(answer,{self.name},1)", ""])


class Asterisk:
    """One PBX at `local`, with softphones at their own addresses, or robots. `changes` apply to pjsip.conf."""

    def __init__(
        self,
        folder: Path,
        local: Address,
        relay: Address,
        *,
        robots: Sequence[Robot] = (),
        phones: Mapping[str, Address] | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.local = local
        self._relay = relay
        self._manager = free(local.host)
        self._robots = robots
        self._phones = phones or {}
        self._changes = changes or {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter
        self._answers: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._events: list[dict[str, str]] = []
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> Asterisk:
        self._configure()
        with (self.folder / "console").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                *_program(), "-f", "-n", "-vvvvv", "-C", str(self.folder / "asterisk.conf"),
                stdin=asyncio.subprocess.DEVNULL, stdout=console, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        reader = await self._connect()
        self._reading = asyncio.create_task(self._read(reader))
        await self.action("Login", username="test", secret="test")
        await self.expect("FullyBooted")
        await self.command("pjsip set logger on")
        return self

    @property
    def records(self) -> str:
        """Its own call records, complete once it has exited."""
        return (self.folder / "log" / "cdr-csv" / "Master.csv").read_text()

    async def __aexit__(self, *_: object) -> None:
        """Stop Asterisk gracefully, so that the last call records are written."""
        if self._process is not None and self._reading is not None:
            self._say("Command", Command="core stop now")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), PATIENCE_S)
            self._reading.cancel()
            self._writer.close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    # --- configuration

    def _configure(self) -> None:
        self.folder.mkdir()
        for name in ("run", "db", "spool", "log/cdr-csv"):
            (self.folder / name).mkdir(parents=True)
        more = {
            "asterisk": "",
            "extensions": _ROBOTS + "\n[from-relay](+)\n" + "".join(robot.dialplan() for robot in self._robots),
            "modules": _MORE_MODULES,
            "pjsip": "".join(_PHONE.format(number=n, address=address) for n, address in self._phones.items()),
            "rtp": "",
        }
        for name, addition in more.items():
            self._write(name, self._placed((EXAMPLES / f"{name}.conf").read_text()) + addition)
        for line, other in self._changes.items():
            pjsip = (self.folder / "pjsip.conf").read_text()
            assert line in pjsip
            self._write("pjsip", pjsip.replace(line, other))
        self._write("manager", _MANAGER.format(address=self._manager))
        self._write("logger", _LOGGER)
        self._write("cdr", "[general]\nenable = yes\n[csv]\nusegmtime = yes\n")

    def _write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.conf").write_text(text)

    def _placed(self, example: str) -> str:
        """The example's configuration with this test's addresses and folders."""
        for there, here in (
            (f"{EXAMPLE_PBX}:5060", str(self.local)),
            (f"sip:{EXAMPLE_RELAY}:5060", f"sip:{self._relay}"),
            (EXAMPLE_RELAY, self._relay.host),
            ("/etc/asterisk", str(self.folder)),
            ("/usr/", f"{SYSTEM}/usr/"),
            ("/var/lib/asterisk", f"{self.folder}/db"),
            ("/var/spool/asterisk", f"{self.folder}/spool"),
            ("/var/run/asterisk", f"{self.folder}/run"),
            ("/var/log/asterisk", f"{self.folder}/log"),
        ):
            example = example.replace(there, here)
        return example

    # --- the manager interface

    async def _connect(self) -> asyncio.StreamReader:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    reader, self._writer = await asyncio.open_connection(*self._manager)
                except ConnectionRefusedError:
                    assert self._process.returncode is None, (self.folder / "console").read_text()
                    await asyncio.sleep(0.02)
                else:
                    return reader

    async def _read(self, reader: asyncio.StreamReader) -> None:
        await reader.readline()  # the version line
        while True:
            block = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "replace")
            pairs = [line.partition(": ")[::2] for line in block.splitlines() if line]
            message = dict(pairs)
            if "Event" not in message:
                message["Output"] = "\n".join(value for name, value in pairs if name == "Output")
                self._answers.put_nowait(message)
                continue
            async with self._arrived:
                self._events.append(message)
                self._arrived.notify_all()

    async def action(self, name: str, /, **fields: str) -> dict[str, str]:
        """Raises AssertionError unless the action succeeds."""
        self._say(name, **fields)
        async with asyncio.timeout(PATIENCE_S):
            answer = await self._answers.get()
        assert answer["Response"] in ("Success", "Follows"), f"{name}: {answer}"
        return answer

    def _say(self, name: str, /, **fields: str) -> None:
        lines = [f"Action: {name}", *(f"{field}: {value}" for field, value in fields.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def command(self, line: str) -> str:
        """The output of a console command."""
        return (await self.action("Command", Command=line))["Output"]

    async def expect(self, event: str, count: int = 1, **fields: str) -> list[dict[str, str]]:
        """The first `count` matching events since the start; `fields` are regular expressions."""

        def found() -> list[dict[str, str]]:
            return [told for told in self._events if _fits(told, event, fields)]

        try:
            async with asyncio.timeout(PATIENCE_S), self._arrived:
                await self._arrived.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            told = f"{len(found())} of {count} {event} {fields} at {self.local}"
            raise AssertionError(f"{told}\n{self.everything()[-8000:]}") from None
        return found()[:count]

    # --- robots

    async def call(self, caller: str, number: str, robot: str, *, trunk: bool = False, **variables: str) -> None:
        """Let `caller` dial `number`; a robot speaks once answered. `trunk`: bypass the example's dialplan."""
        channel = f"PJSIP/{number}@relay700" if trunk else f"Local/{number}@from-phones/n"
        await self.action(
            "Originate", Channel=channel, Context="answer", Exten=robot, Priority="1", Async="true",
            CallerID=f"<{caller}>", Variable=",".join(f"{name}={value}" for name, value in variables.items()),
        )  # fmt: skip

    async def trunk_channels(self) -> list[str]:
        """The names of its channels towards the relay."""
        lines = (await self.command("core show channels concise")).splitlines()
        return [line.partition("!")[0] for line in lines if line.startswith("PJSIP/relay700-")]

    def everything(self) -> str:
        """Its log, its call records, and all messages sent to it."""
        texts = [
            path.read_text("utf-8", "replace") for path in sorted((self.folder / "log").rglob("*")) if path.is_file()
        ]
        return "\n".join([*texts, *map(str, self._events)])


def _fits(told: dict[str, str], event: str, fields: Mapping[str, str]) -> bool:
    return event in (told["Event"], told.get("UserEvent")) and all(
        re.fullmatch(pattern, told.get(name, "")) for name, pattern in fields.items()
    )


def _program() -> list[str]:
    """Asterisk with the libraries of its own Debian, so that it needs neither a chroot nor root."""
    libraries = SYSTEM / "usr/lib" / f"{platform.machine()}-linux-gnu"
    (loader,) = libraries.glob("ld-linux-*.so.*")
    return [str(loader), "--library-path", str(libraries), str(SYSTEM / "usr/sbin/asterisk")]


# --- sound


def write_tone(path: Path, frequency: int, seconds: float = 1.0) -> str:
    """Write a WAV file of one tone. Returns its name for Playback."""
    samples = [int(8_000 * math.sin(2 * math.pi * frequency * n / RATE)) for n in range(int(RATE * seconds))]
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return str(path)


def share_of_tone(path: Path, frequency: int) -> float:
    """The share of a tone in a WAV file's energy, 0 to 1.

    Measured in windows of 25 ms, whole half periods of our tones: after a gap the phase differs, so a longer
    window across the gap would miss the tone.
    """
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        samples = array("h", file.readframes(file.getnframes()))
    size = RATE // 40
    of_tone = sum(_energy_of_tone(samples[at : at + size], frequency) for at in range(0, len(samples), size))
    return of_tone / (sum(sample * sample for sample in samples) or 1)


def _energy_of_tone(samples: array[int], frequency: int) -> float:
    """Goertzel's algorithm."""
    coefficient = 2 * math.cos(2 * math.pi * frequency / RATE)
    one = two = 0.0
    for sample in samples:
        one, two = sample + coefficient * one - two, one
    return 2 * (one * one + two * two - coefficient * one * two) / len(samples)
