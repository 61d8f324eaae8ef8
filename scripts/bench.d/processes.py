"""CPU time and memory of a server's processes, as reported by the kernel, and their termination."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

STOP_TIMEOUT_S = 15.0
_MAPPING = re.compile(r"^\S+ \S+ (\w+) \S+ \d+ +(/(?!dev/).*)\n((?:\w+:.*\n)+)", re.MULTILINE)  # of a file on a disk
_FIELD = re.compile(r"^(\w+): +(\d+) kB$", re.MULTILINE)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def run_time_us(pid: int) -> float:
    """CPU time used by a process and its descendants, all threads, user and system, in microseconds."""
    return sum(run_times_us(pid))


def run_times_us(pid: int) -> tuple[float, float]:
    """CPU time used by a process, and by its descendants, as for `run_time_us`."""
    own, *others = map(_run_time_us, family(pid))
    return own, sum(others)


def _run_time_us(pid: int) -> float:
    return sum(int(stat.read_text().split()[0]) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1000


def used_us(pid: int) -> float:
    """CPU time of one process in microseconds, with that of its threads that have ended; to 10 ms."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) * 1e6 / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory of a process and its descendants, as if no other process ran.

    Pages shared among them count once (PSS). Pages of files, such as libraries, count in full, because relays measured
    side by side share them.
    """
    files_kib: dict[tuple[str, str], int] = {}
    own_kib = 0
    for member in family(pid):
        rollup = dict(_FIELD.findall(Path(f"/proc/{member}/smaps_rollup").read_text()))
        own_kib += int(rollup["Pss_Anon"]) + int(rollup["Pss_Shmem"])
        for file, kib in _pages_of_files(Path(f"/proc/{member}/smaps").read_text()):
            files_kib[file] = max(files_kib.get(file, 0), kib)
    return (own_kib + sum(files_kib.values())) / 1024


def shared_out(pid: int) -> int:
    """Memory of one process in bytes, shared pages divided by the number of their users (PSS)."""
    return 1024 * int(dict(_FIELD.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))["Pss"])


def descriptors(pid: int) -> int:
    """The number of open descriptors of a process and its descendants."""
    return sum(len(os.listdir(f"/proc/{member}/fd")) for member in family(pid))


def _pages_of_files(smaps: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Clean pages of mapped files, in KiB, by path and offset."""
    for offset, path, text in _MAPPING.findall(smaps):
        fields = dict(_FIELD.findall(text))
        yield (path, offset), int(fields["Rss"]) - int(fields["Anonymous"])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants: SIGTERM to the first, SIGKILL to the rest after a while."""
    members = family(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for member in members[1:]:
        while Path(f"/proc/{member}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if Path(f"/proc/{member}").exists():
            os.kill(member, signal.SIGKILL)


def is_bound(host: str, port: int, transport: str = "udp") -> bool:
    """Whether a socket listens on this IPv4 address, by the kernel's socket table."""
    return _in_tables(host, port) in Path(f"/proc/net/{transport}").read_text()


def unread(host: str, port: int) -> int:
    """Datagrams lost to the full receive buffer of the socket at this IPv4 address; 0 if there is none."""
    for line in Path("/proc/net/udp").read_text().splitlines():
        if _in_tables(host, port) in line:
            return int(line.split()[-1])
    return 0


def _in_tables(host: str, port: int) -> str:
    octets = "".join(f"{int(octet):02X}" for octet in reversed(host.split(".")))
    return f" {octets}:{port:04X} 00000000:0000 "


def wait_until_bound(process: subprocess.Popen[bytes], host: str, port: int, log: Path, transport: str = "udp") -> None:
    """Raises RuntimeError with the end of `log` if the process exits first or takes longer than a minute."""
    deadline = time.monotonic() + 60
    while not is_bound(host, port, transport):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"nothing listens on {host}:{port}\n{tail}")
        time.sleep(0.02)
