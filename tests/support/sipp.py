"""SIPp as a phone: it runs one ladder, and its message log is read back."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.addresses import Address, free
from tests.support.ladder import scenario
from tests.support.sip_text import SipText

BIND_TIMEOUT_S = 10.0
TRANSPORTS = {"udp": "u1", "tcp": "t1"}
_MESSAGE = re.compile(
    rb"-{40,}[^\n]*\n(?:UDP|TCP|TLS) message (sent|received) (?:\(\d+ bytes\)|\[\d+\] bytes)[^\n]*:\n\n", re.DOTALL
)


class SippFailed(AssertionError):
    """SIPp's verdict on a ladder; the text holds its errors and last messages."""


@dataclass(frozen=True)
class Traffic:
    """The messages that one SIPp sent and received, in order."""

    sent: list[SipText]
    received: list[SipText]
    raw_received: bytes


class Sipp:
    """One SIPp process. A callee is started without `calls_to`, a caller with the address to call."""

    def __init__(
        self,
        folder: Path,
        name: str,
        ladder: str,
        local: Address,
        *,
        calls_to: Address | None = None,
        numbers: Sequence[tuple[str, str]] = (),
        media: str | None = None,
        transport: str = "udp",
        calls: int = 1,
        rate: float = 10,
        timeout_s: int = 30,
        options: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.local = local
        self._transport = transport
        self._calls = calls
        self._messages = folder / f"{name}.messages"
        self._errors = folder / f"{name}.errors"
        self._screen = folder / f"{name}.screen"
        xml = folder / f"{name}.xml"
        xml.write_text(scenario(name, ladder))
        command = ["sipp", "-sf", str(xml), "-i", local.host, "-p", str(local.port), "-t", TRANSPORTS[transport]]
        command += ["-mi", media or local.host, "-mp", str(free(media or local.host).port)]
        command += ["-m", str(calls), "-timeout", f"{timeout_s}s", "-timeout_error", "-nostdin"]
        command += ["-trace_msg", "-message_file", str(self._messages), "-trace_err", "-error_file", str(self._errors)]
        if calls_to is not None:
            csv = folder / f"{name}.csv"
            csv.write_text("SEQUENTIAL\n" + "".join(f"{caller};{dialled}\n" for caller, dialled in numbers))
            command += ["-inf", str(csv), "-r", str(rate), str(calls_to)]
        command += options
        self._output = self._screen.open("wb")
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT, cwd=folder)
        if calls_to is None:
            self._wait_until_bound()

    def finish(self, timeout_s: float = 60.0) -> Traffic:
        """Wait for SIPp to exit. Raises SippFailed unless every call followed its ladder."""
        try:
            status = self._process.wait(timeout_s)
        finally:
            self.stop()
        if status != 0:
            raise SippFailed(f"{self.name} ended with {status}\n{self._story()}")
        return self.traffic()

    def no_more_calls(self) -> None:
        """Place no more calls, and exit once the current ones are over."""
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """Terminate the process, if it still runs. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def traffic(self) -> Traffic:
        raw = self._messages.read_bytes() if self._messages.exists() else b""
        sent: list[SipText] = []
        received: list[bytes] = []
        pieces = _MESSAGE.split(raw)
        for direction, data in zip(pieces[1::2], pieces[2::2], strict=True):
            if direction == b"sent":
                sent.append(SipText.parse(data))
            else:
                received.append(data)
        return Traffic(sent, [SipText.parse(data) for data in received], b"".join(received))

    def _wait_until_bound(self) -> None:
        deadline = time.monotonic() + BIND_TIMEOUT_S
        while not _is_bound(self.local, self._transport):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SippFailed(f"{self.name} did not start on {self.local}\n{self._story()}")
            time.sleep(0.01)

    def _story(self) -> str:
        files = (self._errors, self._screen, self._messages)
        return "\n".join(path.read_bytes()[-4000:].decode("utf-8", "replace") for path in files if path.exists())


def _is_bound(local: Address, transport: str) -> bool:
    """Whether SIPp listens, by the kernel's socket table: it does not report when it is ready."""
    table = Path(f"/proc/net/{transport}{'6' if ':' in local.host else ''}").read_text()
    return any(line.split()[1].endswith(f":{local.port:04X}") for line in table.splitlines()[1:])
