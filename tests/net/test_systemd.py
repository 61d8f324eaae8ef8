"""Notifications to systemd reach its socket, and an unreachable one is logged."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from relay.net.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@relay700-test{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(name.replace("@", "\0", 1))
        end.setblocking(False)
        yield end, name


def test_each_notification_is_a_datagram(manager: tuple[socket.socket, str]) -> None:
    end, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000"}, structlog.get_logger())
    notifier.serving()
    notifier.alive()
    notifier.stopping(within_s=40.0)
    stopping = b"STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000"
    assert [end.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", stopping]


def test_watchdog_notifications_are_sent_only_if_requested(manager: tuple[socket.socket, str]) -> None:
    end, name = manager
    Notifier({"NOTIFY_SOCKET": name}, structlog.get_logger()).alive()
    with pytest.raises(BlockingIOError):
        end.recv(100)


def test_nothing_is_sent_without_a_manager() -> None:
    log = LogCapture()
    Notifier({}, structlog.wrap_logger(None, processors=[log])).serving()
    assert log.entries == []


def test_an_unreachable_manager_is_logged(tmp_path: Path) -> None:
    log = LogCapture()
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, structlog.wrap_logger(None, processors=[log]))
    notifier.serving()
    (entry,) = log.entries
    assert (entry["event"], entry["state"], entry["log_level"]) == ("notify.failed", "READY=1", "warning")
