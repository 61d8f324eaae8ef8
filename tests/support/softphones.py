"""Real softphones (baresip, linphone, pjsua2), each in its own process, with their events."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tests.support.addresses import Address, free

PATIENCE_S = 20.0
ROOT = Path(__file__).parents[2]
BARESIP_MODULES = Path("/usr/lib/baresip/modules")


class Login(NamedTuple):
    """A registrar, with the credentials."""

    registrar: Address
    username: str
    password: str


class SoftPhone(ABC):
    """Answers incoming calls. `log` holds all its SIP messages."""

    def __init__(
        self,
        folder: Path,
        local: Address,
        number: str,
        transport: str = "udp",
        certificate: tuple[Path, Path] | None = None,
        login: Login | None = None,
    ) -> None:
        self.folder = folder / f"{type(self).__name__.lower()}_{number}"
        self.folder.mkdir()
        self.local = local
        self.number = number
        self.transport = transport
        self.certificate = certificate  # with its key, for TLS
        self.login = login  # for pjsua2 and baresip
        self.log = self.folder / "log"
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SoftPhone:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()

    @abstractmethod
    async def _start(self) -> None: ...

    @abstractmethod
    def command(self, name: str, argument: str = "") -> None: ...

    def dial(self, number: str, relay: Address) -> None:
        self.command("dial", f"sip:{number}@{relay}{self._transport_parameter}")

    @property
    def _transport_parameter(self) -> str:
        return "" if self.transport == "udp" else f";transport={self.transport}"

    def hang_up(self) -> None:
        self.command("hangup")

    async def expect(self, event: str) -> dict[str, Any]:
        """The next such event; earlier ones are skipped."""
        passed = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (found := await self._events.get())["type"] != event:
                    passed.append(found["type"])
                return found
        except TimeoutError:
            raise AssertionError(f"{self.number}: no {event}, but {passed}\n{self.everything()}") from None

    def everything(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


class Pjsua(SoftPhone):
    codec = "PCMA/8000/1"

    async def _start(self) -> None:
        arguments = [self.local.host, str(self.local.port), self.number, self.transport, str(self.log), self.codec]
        arguments += [str(path) for path in self.certificate or ()]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.pjsua_phone", *arguments,
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await self.expect("READY")
        if self.login is not None:
            registrar, username, password = self.login
            self.command("register", f"sip:{registrar}{self._transport_parameter} {username} {password}")

    def command(self, name: str, argument: str = "") -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{name} {argument}".strip().encode() + b"\n")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):  # pjlib also writes here until its log is set up
                self._events.put_nowait(json.loads(line))


class WidePjsua(Pjsua):
    codec = "G722/16000/1"


class Baresip(SoftPhone):
    """baresip, driven by its ctrl_tcp module; the sound device is a loopback (aubridge)."""

    _writer: asyncio.StreamWriter

    def dial(self, number: str, relay: Address) -> None:
        self.command("dial", f"sip:{number}@{relay}")  # it adds its account's transport itself

    async def _start(self) -> None:
        control = free(self.local.host)
        modules = ("g711.so", "aubridge.so")
        (self.folder / "config").write_text(
            f"sip_listen {self.local}\nnet_interface {self.local.host}\nmodule_path {BARESIP_MODULES}\n"
            + "".join(f"audio_{use} aubridge,nil\n" for use in ("player", "source", "alert"))
            + f"ctrl_tcp_listen {control}\n"
            + "".join(f"module {name}\n" for name in modules)
            + "module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n"
        )
        registers = "regint=0"
        if self.login is not None:
            registers = f"regint=60;auth_user={self.login.username};auth_pass={self.login.password}"
        home = self.login.registrar if self.login else self.local
        (self.folder / "accounts").write_text(
            f"<sip:{self.number}@{home}{self._transport_parameter}>;{registers};answermode=auto;audio_codecs=pcmu,pcma\n"
        )
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "baresip", "-s", "-f", str(self.folder),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        reader, self._writer = await self._connect(control)
        self._reading = asyncio.create_task(self._read(reader))

    async def _connect(self, control: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await asyncio.open_connection(*control)
                except ConnectionRefusedError:
                    assert self._process.returncode is None, self.everything()
                    await asyncio.sleep(0.02)

    def command(self, name: str, argument: str = "") -> None:
        text = json.dumps({"command": name, "params": argument, "token": name})
        self._writer.write(f"{len(text)}:{text},".encode())  # a netstring

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while length := (await reader.readuntil(b":"))[:-1]:
            message = json.loads((await reader.readexactly(int(length) + 1))[:-1])
            if message.get("event"):
                self._events.put_nowait(message)


class Linphone(SoftPhone):
    """linphonec, driven by its standard input and output; it plays from and records into files."""

    _LINES: ClassVar = {"use files": "soundcard use files", "dial": "call", "hangup": "terminate"}
    _EVENTS: ClassVar = {
        "READY": re.compile("Using wav files instead of soundcard"),
        "CALL_ESTABLISHED": re.compile(r"Media streams established with (?P<peeruri>.+) for call \d+ "),
        "CALL_CLOSED": re.compile(r"Call \d+ with (?P<peeruri>.+) (ended|error)"),
    }
    # PCMU and PCMA remain, as for the others.
    _NOT_SPOKEN = (("opus", 48_000, 2), ("speex", 16_000, 1), ("speex", 8_000, 1), ("G729", 8_000, 1))
    _doing = ""
    _prompted = False

    async def _start(self) -> None:
        (self.folder / ".local/share/linphone").mkdir(parents=True)  # it creates no folders
        config = self.folder / "linphonerc"
        config.write_text(
            f"[sip]\ncontact=<sip:{self.number}@{self.local}>\nguess_hostname=0\nbind_address={self.local.host}\n"
            + "".join(
                f"sip_{prefix}port={self.local.port if transport == self.transport else 0}\n"
                for transport, prefix in (("udp", ""), ("tcp", "tcp_"), ("tls", "tls_"))
            )
            + f"[rtp]\nbind_address={self.local.host}\naudio_rtp_port={free(self.local.host).port}\n"
            + "".join(
                f"[audio_codec_{number}]\nmime={name}\nrate={rate}\nchannels={channels}\nenabled=0\n"
                for number, (name, rate, channels) in enumerate(self._NOT_SPOKEN)
            )
        )
        self._waiting: deque[tuple[str, str]] = deque()
        self._process = await asyncio.create_subprocess_exec(
            "linphonec", "-a", "-c", str(config), "-d", "6", "-l", str(self.log),
            env={**os.environ, "HOME": str(self.folder)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        self.command("use files")
        await self.expect("READY")

    def command(self, name: str, argument: str = "") -> None:
        if name == "stop":  # a recording ends where the next one begins
            argument = str(self.folder / "rest.wav")
        self._waiting.append((name, argument))
        self._tell_next()

    def _tell_next(self) -> None:
        """Write only at its prompt: of two lines written before it reads one, it takes only the second."""
        if self._prompted and self._waiting:
            assert self._process is not None and self._process.stdin is not None
            self._prompted = False
            self._doing, argument = self._waiting.popleft()
            line = "record" if self._doing == "stop" else self._LINES.get(self._doing, self._doing)
            self._process.stdin.write(f"{line} {argument}".strip().encode() + b"\n")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        rest = ""
        while data := await self._process.stdout.read(4096):
            *pieces, rest = re.split("(\n|linphonec> )", rest + data.decode())
            for piece in pieces:
                if piece == "linphonec> ":
                    self._prompt()
                else:
                    self._hear(piece)

    def _prompt(self) -> None:
        if self._doing == "stop":
            self._events.put_nowait({"type": "STOPPED"})
        self._prompted = True
        self._tell_next()

    def _hear(self, line: str) -> None:
        for event, pattern in self._EVENTS.items():
            if found := pattern.match(line):
                self._events.put_nowait({"type": event, **found.groupdict()})
