"""How many refused attempts a peer has, how long it waits then, and that nobody waits with it."""

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


def test_different_callers_of_one_number_count() -> None:
    bench = Bench()
    assert bench.all_try(X, "abc") == [{}, {}, {"number": FIRST_PAUSE_S}]
    assert bench.waits() == FIRST_PAUSE_S


def test_one_caller_s_attempts_count_for_a_number_once() -> None:
    bench = Bench()
    assert bench.all_try(X, "aba") == [{}, {}, {}]
    assert bench.waits() == 0


def test_attempts_in_one_caller_s_name_count_whatever_they_dial() -> None:
    bench = Bench()
    assert [bench.tries(number, "a") for number in (X, Y, X, X)] == [{}, {}, {}, {"caller": FIRST_PAUSE_S}]
    assert (bench.waits(Y, "a"), bench.waits(X, "b")) == (FIRST_PAUSE_S, 0)


def test_all_attempts_of_a_peer_count() -> None:
    bench = Bench(RefusalCaps(), of_peer=3)
    assert [bench.tries(X, "a"), bench.tries(Y, "b"), bench.tries(Y, "c")] == [{}, {}, {"peer": FIRST_PAUSE_S}]
    assert bench.waits("whatever", "whoever") == FIRST_PAUSE_S


def test_nobody_waits_with_the_peer() -> None:
    bench = Bench(of_peer=3)
    bench.all_try(X, "abc")
    assert bench.waits(peer="carrier") == 0


def test_another_number_may_be_called_meanwhile() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    assert bench.waits(Y) == 0


def test_each_further_one_has_it_wait_twice_as_long_up_to_a_limit() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    pauses = []
    for _ in range(4):
        bench.now_s += bench.waits()
        assert bench.waits() == 0
        pauses.append(bench.tries(X, "d")["number"])
    assert pauses == [20.0, 35.0, 35.0, 35.0]


def test_what_is_quiet_for_long_begins_anew() -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    bench.now_s += FIRST_PAUSE_S + WINDOW_S
    assert bench.all_try(X, "def") == [{}, {}, {"number": FIRST_PAUSE_S}]


def test_attempts_are_counted_for_so_long() -> None:
    bench = Bench()
    bench.all_try(X, "ab")
    bench.now_s += WINDOW_S
    assert bench.all_try(X, "cd") == [{}, {}]


def test_0_is_no_limit() -> None:
    bench = Bench(RefusalCaps())
    assert bench.all_try(X, map(str, range(1_000))) == [{}] * 1_000


@pytest.mark.parametrize("by_s", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_makes_a_pause_neither_longer_nor_shorter(by_s: float) -> None:
    bench = Bench()
    bench.all_try(X, "abc")
    bench.tries(Y, "a")
    bench.attempts.shift(by_s)
    bench.now_s += by_s
    assert bench.waits() == FIRST_PAUSE_S
    assert bench.all_try(Y, "bc") == [{}, {"number": FIRST_PAUSE_S}]


def test_what_is_kept_is_bounded_and_does_not_end_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_pauses_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_attempts, "MOST_KEYS", 10)
    bench = Bench()
    for number in range(50):
        bench.all_try(str(number), "abc")
    assert len(bench.attempts._peers["pbx"].by_number._pauses) == 10
