"""Nonces: binding to a host, lifetime, replay protection, bounded memory."""

from __future__ import annotations

import pytest

from relay.peers import auth
from relay.peers.auth import LIFE_S, DigestNonces

KEY, OURS, OTHER = bytes(range(16)), "a" * 16, "b" * 16
HOST = "192.0.2.1"


def test_nonce_is_ours_for_its_host_and_fresh_for_life_s() -> None:
    ours = DigestNonces(KEY, OURS)
    nonce = ours.make(HOST, "0123456789abcdef", 1000.0)
    assert ours.is_ours(nonce, HOST)
    assert ours.is_fresh(nonce, 1000.0)
    assert ours.is_fresh(nonce, 1000.0 + LIFE_S)
    assert not ours.is_fresh(nonce, 1000.1 + LIFE_S)
    assert not ours.is_ours(nonce, "192.0.2.2")
    assert not DigestNonces(bytes(16), OURS).is_ours(nonce, HOST)


@pytest.mark.parametrize("made_at", [1000.0, 10.0, 5000.0])
def test_nonce_of_another_process_is_ours_but_never_fresh(made_at: float) -> None:
    """Monotonic time may begin anew, at a reboot."""
    ours = DigestNonces(KEY, OURS)
    nonce = DigestNonces(KEY, OTHER).make(HOST, "0123456789abcdef", made_at)
    assert ours.is_ours(nonce, HOST)
    assert not ours.is_of_this_process(nonce)
    assert not ours.is_fresh(nonce, 1000.0)


@pytest.mark.parametrize("text", ["", "0" * 32, "x", "é" * 60, "0" * 61])
def test_foreign_nonce_is_not_fresh(text: str) -> None:
    assert not DigestNonces(KEY, OURS).is_ours(text, HOST)


def test_altered_nonce_is_not_fresh() -> None:
    ours = DigestNonces(KEY, OURS)
    nonce = ours.make(HOST, "0123456789abcdef", 1000.0)
    for place in range(len(nonce)):
        changed = nonce[:place] + ("1" if nonce[place] == "0" else "0") + nonce[place + 1 :]
        assert not ours.is_ours(changed, HOST)


def test_each_nonce_count_is_accepted_once() -> None:
    ours = DigestNonces(KEY, OURS)
    nonce, other = (ours.make(HOST, token, 1000.0) for token in ("0" * 16, "1" * 16))
    assert [ours.count(nonce, number) for number in (1, 1, 3, 2, 4)] == [True, False, True, False, True]
    assert ours.count(other, 1)


def test_evicted_nonce_is_stale() -> None:
    ours = DigestNonces(KEY, OURS)
    made = [ours.make(HOST, f"{number:016x}", float(number)) for number in range(auth.MOST_COUNTED + 2)]
    assert all([ours.count(nonce, 1) for nonce in made])
    assert len(ours._counts) == auth.MOST_COUNTED
    assert not ours.count(made[0], 2)
    assert not ours.count(made[1], 2)
    assert ours.count(made[2], 2)
