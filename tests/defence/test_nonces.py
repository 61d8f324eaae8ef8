"""Nonces of signed requests: each once, in little memory."""

from __future__ import annotations

import tracemalloc

from relay.defence.nonces import SeenNonces

AT_S = 1_000_000


def test_a_nonce_is_known_by_its_key_and_time() -> None:
    seen = SeenNonces(0, 900, 300)
    seen.keep(AT_S, "k", "n")
    asked = [(AT_S, "k", "n"), (AT_S, "other", "n"), (AT_S, "k", "other"), (AT_S + 60, "k", "n")]
    assert [seen.is_known(*each) for each in asked] == [True, False, False, False]


def test_nonces_of_expired_times_are_forgotten_and_their_times_refused() -> None:
    seen = SeenNonces(0, 900, 300)
    for minute in range(100):
        now_s = AT_S + 60 * minute
        assert seen.is_in_time(now_s, now_s)
        seen.keep(now_s, "k", "n")
    assert len(seen._buckets) <= 17
    assert not seen.is_in_time(AT_S, AT_S)  # though the clock is set back


def test_a_nonce_takes_few_bytes() -> None:
    """A business user at its limit of 600 requests a second has 720,000 of them in 20 minutes."""
    seen = SeenNonces(0, 900, 300)
    tracemalloc.start()
    try:
        for number in range(20_000):
            seen.keep(AT_S, "k", f"n{number}")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 20_000 * 12
    assert seen.is_known(AT_S, "k", "n777")
