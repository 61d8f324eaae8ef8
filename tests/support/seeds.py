"""What random tests draw with: RELAY_TEST_SEED where it is set (`scripts/chaos`), else a seed that is printed."""

from __future__ import annotations

import os
import random


def dice() -> random.Random:
    """A generator for one test. A test that fails shows what to set to have the same drawn again."""
    seed = int(os.environ.get("RELAY_TEST_SEED") or random.randrange(1 << 32))
    print(f"RELAY_TEST_SEED={seed}")
    return random.Random(seed)
