"""The seed of random tests: RELAY_TEST_SEED if set (`scripts/chaos`), else a random one, which is printed."""

from __future__ import annotations

import os
import random


def dice() -> random.Random:
    """A generator for one test. A failing test shows the seed to reproduce it."""
    seed = int(os.environ.get("RELAY_TEST_SEED") or random.randrange(1 << 32))
    print(f"RELAY_TEST_SEED={seed}")
    return random.Random(seed)
