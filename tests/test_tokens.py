"""Tokens are random, long enough, and do not repeat over the pools they are cut from."""

from __future__ import annotations

import re
from itertools import islice

from relay.tokens import DIGITS, tokens


def test_tokens_are_hexadecimal_and_none_comes_twice() -> None:
    several = list(islice(tokens(), 2000))
    assert all(re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", token) for token in several)
    assert len(set(several)) == len(several)


def test_a_workers_tokens_begin_with_its_digit_and_are_random_beyond() -> None:
    for worker, made in ((0, tokens()), (0, tokens(0)), (7, tokens(7)), (15, tokens(15))):
        several = list(islice(made, 2000))
        assert all(re.fullmatch(f"{worker:x}[0-9a-f]{{{DIGITS - 1}}}", token) for token in several)
        assert len(set(several)) == len(several)
        for place in range(1, DIGITS):
            assert {token[place] for token in several} == set("0123456789abcdef")
