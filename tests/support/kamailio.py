"""A running Kamailio with the configuration of config/kamailio."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.addresses import Address

PATIENCE_S = 20.0
EXAMPLES = Path(__file__).parents[2] / "config" / "kamailio"
EXAMPLE_SELF, EXAMPLE_CARRIER, EXAMPLE_PBX = "192.0.2.30:5060", "192.0.2.20:5060", "192.0.2.40:5060"
EXAMPLE_RELAYS = ("192.0.2.11:5060", "192.0.2.12:5060")

_READY = """
event_route[core:worker-one-init] {
	xlog("L_WARN", "ready\\n");
}
"""


class Kamailio:
    """In front of two relays, with a carrier and a PBX as peers."""

    def __init__(
        self,
        folder: Path,
        local: Address,
        relays: tuple[Address, Address],
        carrier: Address,
        pbx: Address,
        *defines: str,
    ) -> None:
        """`defines`: of the configuration's preprocessor (`kamailio -A`)."""
        self.local = local
        self._folder = folder
        self._defines = [option for define in defines for option in ("-A", define)]
        self._places = {
            EXAMPLE_SELF: local,
            EXAMPLE_CARRIER: carrier,
            EXAMPLE_PBX: pbx,
            **dict(zip(EXAMPLE_RELAYS, relays, strict=True)),
        }
        self._lines: list[str] = []
        self._grown = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Kamailio:
        self._folder.mkdir()
        for name, more in (("kamailio.cfg", _READY), ("dispatcher.list", "")):
            (self._folder / name).write_text(self._placed((EXAMPLES / name).read_text()) + more)
        self._process = await asyncio.create_subprocess_exec(
            "kamailio", "-DD", "-E", "-f", str(self._folder / "kamailio.cfg"), "-Y", str(self._folder), "-m", "32",
            *self._defines,
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await self.expect("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._reading is not None
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait_for(self._reading, PATIENCE_S)
        await self._process.wait()

    async def expect(self, words: str, after: int = 0) -> int:
        """Wait for a log line with these words, after the first `after` lines. Returns its number."""

        def found() -> int:
            return next((n for n, line in enumerate(self._lines[after:], after + 1) if words in line), 0)

        try:
            async with asyncio.timeout(PATIENCE_S), self._grown:
                return await self._grown.wait_for(found)
        except TimeoutError:
            raise AssertionError(f"no {words} in\n" + "\n".join(self._lines[-100:])) from None

    def _placed(self, example: str) -> str:
        """The example's configuration with this test's addresses and folders."""
        for there, here in self._places.items():
            example = example.replace(there, str(here))
        return example.replace("/etc/kamailio", str(self._folder)).replace("log_stderror=no", "log_stderror=yes")

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._grown:
                self._lines.append(line.decode("utf-8", "replace").rstrip())
                self._grown.notify_all()
