"""Several workers of a running relay: numbers that are bound, one for each, and the death of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.support.relay_process import RelayProcess

NUMBERS = ("700100000010002", "700100000010001")  # of the first of two workers and of the second
CALLEES = ("13900000002", "13900000003")
A = "13800000001"
BINDINGS = [(number, A, callee) for number, callee in zip(NUMBERS, CALLEES, strict=True)]

StartWorkers = Callable[..., RelayProcess]


def kill(relay: RelayProcess, worker: int) -> int:
    """kill -9, and wait until its parent knows; the number of log lines before."""
    mark = len(relay.log().splitlines())
    os.kill(relay.worker_pids()[worker], signal.SIGKILL)
    relay.wait_for_event("worker.ended", after=mark)
    return mark


def wait_for_successor(relay: RelayProcess, worker: int, after: int) -> None:
    relay.wait_for_event("worker.ready", after=after, matching=lambda event: event["worker"] == worker)
