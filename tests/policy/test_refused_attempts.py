"""Refused attempts of a peer: counts, pauses, and no effect on other peers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from relay.policy import refused_attempts
from relay.policy.refused_attempts import FIRST_PAUSE_S, WINDOW_S, RefusedAttempts
from relay.policy.rules import RefusalCaps

NOW_S = 1_800_000_000.0
X, Y = "700100000010001", "700100000010002"
CAPS = RefusalCaps(of_number=3, of_caller=4, longest_pause_s=35.0)


class Bench:
    def __init__(self, caps: RefusalCaps = CAPS, of_peer: int = 0) -> None:
        self.attempts = RefusedAttempts()
        self.caps = caps
        self.of_peer = of_peer
        self.now_s = NOW_S

    def tries(self, number: str, caller: str, peer: str = "pbx") -> dict[str, float]:
        return self.attempts.note(peer, number, caller, self.caps, self.of_peer, self.now_s)

    def all_try(self, number: str, callers: Iterable[str], peer: str = "pbx") -> list[dict[str, float]]:
        return [self.tries(number, caller, peer) for caller in callers]

    def waits(self, number: str = X, caller: str = "other", peer: str = "pbx") -> float:
        return max(self.attempts.pause_s(peer, number, caller, self.now_s), 0.0)


def test_distinct_callers_of_one_number_are_counted() -> None:
    bench = Bench()
    assert bench.all_try(X, "abc") == [{}, {}, {"number": FIRST_PAUSE_S}]
    assert bench.waits() == FIRST_PAUSE_S


def test_a_caller_counts_once_per_number() -> None:
    bench = Bench()
    assert bench.all_try(X, "aba") == [{}, {}, {}]
    assert bench.waits() == 0


def test_attempts_by_one_caller_count_for_any_number() -> None:
    bench = Bench()
    assert [bench.tries(number, "a") for number in (X, Y, X, X)] == [{}, {}, {}, {"caller": FIRST_PAUSE_S}]
    assert (bench.waits(Y, "a"), bench.waits(X, "b")) == (FIRST_PAUSE_S, 0)


def test_all_attempts_of_a_peer_are_counted() -> None:
    bench = Bench(RefusalCaps(), of_peer=3)
    assert [bench.tries(X, "a"), bench.tries(Y, "b"), bench.tries(Y, "c")] == [{}, {}, {"peer": FIRST_PAUSE_S}]
    assert bench.waits("whatever", "whoever") == FIRST_PAUSE_S


def test_other_peers_are_not_paused() -> None:
    bench = Bench(of_peer=3)
    bench.all_try(X, "abc")
    assert bench.waits(peer="carrier") == 0


def test_calls_to_other_numbers_are_not_paused() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    assert bench.waits(Y) == 0


def test_each_further_pause_is_twice_as_long_up_to_a_limit() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    pauses = []
    for _ in range(4):
        bench.now_s += bench.waits()
        assert bench.waits() == 0
        pauses.append(bench.tries(X, "d")["number"])
    assert pauses == [20.0, 35.0, 35.0, 35.0]


def test_the_pause_length_resets_after_a_quiet_time() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    bench.now_s += FIRST_PAUSE_S + WINDOW_S
    assert bench.all_try(X, "def") == [{}, {}, {"number": FIRST_PAUSE_S}]


def test_attempts_expire_after_the_window() -> None:
    bench = Bench()
    bench.all_try(X, "ab")
    bench.now_s += WINDOW_S
    assert bench.all_try(X, "cd") == [{}, {}]


def test_a_cap_of_0_is_no_limit() -> None:
    bench = Bench(RefusalCaps())
    assert bench.all_try(X, map(str, range(1_000))) == [{}] * 1_000


@pytest.mark.parametrize("by_s", [-86_400.0, 86_400.0])
def test_a_clock_step_does_not_change_a_pause(by_s: float) -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    bench.tries(Y, "a")
    bench.attempts.shift(by_s)
    bench.now_s += by_s
    assert bench.waits() == FIRST_PAUSE_S
    assert bench.all_try(Y, "bc") == [{}, {"number": FIRST_PAUSE_S}]


def test_counts_are_limited_without_ending_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_attempts, "MOST_KEYS", 10)
    bench = Bench()
    bench.all_try(X, "abc")
    bench.tries(Y, "a")
    for number in range(50):
        bench.tries(str(number), str(number))
    of_peer = bench.attempts._peers["pbx"]
    for kept in (of_peer.by_number._counts, of_peer.by_caller._counts):
        assert len(kept) == 10
    assert bench.waits() == FIRST_PAUSE_S


def test_pauses_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_attempts, "MOST_KEYS", 10)
    bench = Bench()
    for number in range(50):
        bench.all_try(str(number), "abc")
    assert len(bench.attempts._peers["pbx"].by_number._pauses) == 10
