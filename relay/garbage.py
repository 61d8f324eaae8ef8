"""Python's garbage collection while calls are up: a little at a time."""

from __future__ import annotations

import asyncio
import gc
import time

YOUNG_S = 0.05  # at most between two collections
LEAST_YOUNG_S = 0.01
YOUNG_TAKE_S = 0.0003  # of CPU that one should take


async def collect_the_young() -> None:
    """Collects garbage among the youngest objects alone, for as long as there are calls.

    A full collection, with a minute's calls in memory, stops the relay for 200 ms, and finds nothing: reference counts
    free what a call was (tests/call/test_garbage.py). Among the youngest objects an exception may have left a cycle.
    All of them are looked through by `Switch._tick` whenever there is no call.

    Python's own threshold goes by how many more objects were made than freed: under a steady load a second's worth
    gathered, and took 50 to 150 ms. How often this runs does not change what it costs a call, but twenty times a second
    it takes 1.6 ms each time at 1,650 calls a second. So the more objects there are, the more often it runs.
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
    """How long to wait for the next collection, if after `pause_s` the last one took so much CPU time."""
    return min(max(pause_s * YOUNG_TAKE_S / max(took_s, 1e-6), LEAST_YOUNG_S), YOUNG_S)
