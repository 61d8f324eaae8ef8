"""Random tokens of messages."""

from __future__ import annotations

import re
from itertools import islice

from relay.net.tokens import DIGITS, tokens


def test_tokens_are_hexadecimal_random_in_each_digit_and_unique() -> None:
    several = list(islice(tokens(), 2000))
    assert all(re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", token) for token in several)
    assert len(set(several)) == len(several)
    for place in range(DIGITS):
        assert {token[place] for token in several} == set("0123456789abcdef")
