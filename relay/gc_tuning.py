"""Tuning of Python's garbage collector: short collections of the young generation while calls are up."""

from __future__ import annotations

import asyncio
import gc
import time

YOUNG_S = 0.05  # longest pause between two collections
LEAST_YOUNG_S = 0.01  # shortest pause
YOUNG_TAKE_S = 0.0003  # CPU time that one collection should take


async def collect_the_young() -> None:
    """Collect the youngest generation periodically, until cancelled.

    A full collection with a minute's calls in memory stops the relay for 200 ms and finds nothing: reference counts
    free a call's objects (tests/call/test_garbage.py); only an exception may leave a cycle, among young objects.
    `SipService._tick` runs a full collection when there is no call.

    Python's own threshold counts allocations less deallocations: under steady load it ran about once a second and took
    50 to 150 ms. The cost per call is the same at any interval; at 1,650 calls a second and 20 runs a second, each run
    takes 1.6 ms. The interval therefore shrinks as the number of objects grows.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    pause_s = YOUNG_S
    try:
        while True:
            await asyncio.sleep(pause_s)
            begun = time.thread_time()
            gc.collect(0)
            pause_s = next_pause_s(pause_s, time.thread_time() - begun)
    finally:
        gc.enable()


def next_pause_s(pause_s: float, took_s: float) -> float:
    """The pause before the next collection: scaled so that one takes about `YOUNG_TAKE_S` of CPU time."""
    return min(max(pause_s * YOUNG_TAKE_S / max(took_s, 1e-6), LEAST_YOUNG_S), YOUNG_S)
