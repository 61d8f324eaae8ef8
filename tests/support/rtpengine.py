"""A running rtpengine with the example's configuration, on the test's addresses and ports."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
from pathlib import Path
from typing import Any

import asyncio_dgram

from tests.support.addresses import free

HOST, SECOND_HOST = "127.0.0.40", "127.0.0.41"
PATIENCE_S = 20.0
EXAMPLES = Path(__file__).parents[2] / "config/rtpengine"
EXAMPLE, RULES = EXAMPLES / "rtpengine.conf", EXAMPLES / "nftables.conf"


class Rtpengine:
    """Use as `async with Rtpengine(folder) as engine`. `changes`: settings that differ from the example's."""

    def __init__(self, folder: Path, host: str = HOST, **changes: object) -> None:
        self.control = free(host)
        first_port = random.randrange(33_000, 59_000, 2)
        self._settings = {
            "listen_ng": self.control,
            "interface": host,
            "port_min": first_port,
            "port_max": first_port + 999,
            **changes,
        }
        self._config = folder / f"rtpengine_{self.control.port}.conf"
        self._log = self._config.with_suffix(".log")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def place(self) -> str:
        """The address for `[media] rtpengine`."""
        return f"udp:{self.control}"

    async def __aenter__(self) -> Rtpengine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        self._config.write_text(self._text())
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "rtpengine", f"--config-file={self._config}", "--foreground", "--log-stderr",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        await self._wait_until_it_answers()

    async def filter(self, *, phones_here: bool = True) -> None:
        """Load the example's kernel rules. Needs the test's own network namespace.

        `phones_here`: phones of the test have their media on this machine, at any port.
        """
        rules = RULES.read_text()
        if phones_here:
            rules = rules.replace("!= { 20000-29999 }", "!= { 1-65535 }")
        first, last = self._settings["port_min"], self._settings["port_max"]
        rules = rules.replace("20000-29999", f"{first}-{last}")
        process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=asyncio.subprocess.PIPE)
        await process.communicate(rules.encode())
        assert process.returncode == 0

    def _text(self) -> str:
        """The example's lines, with the test's changes."""
        lines = []
        changes = {name.replace("_", "-"): value for name, value in self._settings.items()}
        for line in EXAMPLE.read_text().splitlines():
            name = line.partition(" = ")[0]
            lines.append(f"{name} = {changes.pop(name)}" if name in changes else line)
        return "\n".join([*lines, *(f"{name} = {value}" for name, value in changes.items()), ""])

    async def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            while not await self._pings():
                assert self._process.returncode is None, self._log.read_text()

    async def _pings(self) -> bool:
        try:
            async with asyncio.timeout(0.1):
                return (await self.ask("ping"))["result"] == "pong"
        except (TimeoutError, OSError):
            return False

    async def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """The answer to a command. Raises OSError if none runs."""
        stream = await asyncio_dgram.connect(tuple(self.control))
        try:
            question = json.dumps({"command": command, **arguments})
            await stream.send(f"{secrets.token_hex(4)} {question}".encode())
            data, _ = await stream.recv()
        finally:
            stream.close()
        answer: dict[str, Any] = json.loads(data.partition(b" ")[2])
        return answer

    async def calls(self) -> list[str]:
        """The ids of its calls."""
        found: list[str] = (await self.ask("list", limit="100"))["calls"]
        return found

    async def emptied(self) -> None:
        """Wait until it has no call: the relay deletes one after its final answer has gone out."""
        async with asyncio.timeout(20):
            while await self.calls():
                pass

    def pause(self) -> None:
        """Answer nothing until `go_on`, then all that was asked meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def media_table(*places: str, **more: object) -> str:
    """The [media] table of a relay.toml."""
    lines = ["", "[media]", 'mode = "rtpengine"', f"rtpengine = {json.dumps(places)}"]
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in more.items()), ""])
