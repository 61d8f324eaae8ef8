"""Two real softphones, baresip and pjsua2, each a process of its own that tells what it shows its user."""

from __future__ import annotations

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.support.addresses import Address, free

PATIENCE_S = 20.0
ROOT = Path(__file__).parents[2]
BARESIP_MODULES = Path("/usr/lib/baresip/modules")


class SoftPhone(ABC):
    """It answers what rings. `log` is what it kept of all its SIP messages."""

    def __init__(
        self,
        folder: Path,
        local: Address,
        number: str,
        transport: str = "udp",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.folder = folder / f"{type(self).__name__.lower()}_{number}"
        self.folder.mkdir()
        self.local = local
        self.number = number
        self.transport = transport
        self.certificate = certificate  # and its key, for TLS
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
        """The next such event; what comes before it is passed over."""
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
    async def _start(self) -> None:
        arguments = [self.local.host, str(self.local.port), self.number, self.transport, str(self.log)]
        arguments += [str(path) for path in self.certificate or ()]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.pjsua_phone", *arguments,
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await self.expect("READY")

    def command(self, name: str, argument: str = "") -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{name} {argument}".strip().encode() + b"\n")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):  # pjlib writes there too until its log is set up
                self._events.put_nowait(json.loads(line))


class Baresip(SoftPhone):
    """Driven through its ctrl_tcp module; the sound device is a loop-back (aubridge)."""

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
        (self.folder / "accounts").write_text(
            f"<sip:{self.number}@{self.local}{self._transport_parameter}>;regint=0;answermode=auto;audio_codecs=pcmu,pcma\n"
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
