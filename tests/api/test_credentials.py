"""Parsing of Authorization headers, and replay protection of signed requests."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from relay.api.auth import AHEAD_S, BEHIND_S, Bearer, Nonces, Signed, read_authorization, signature
from relay.errors import Refused

SECRET = "A" * 43
NONCE = "0123456789abcdef"
SIGNED = Signed("0123456789ab", 1_000, NONCE, "ab" * 32)


def test_a_bearer_key_is_parsed() -> None:
    assert read_authorization(f"bearer rk_0123456789ab_{SECRET}") == Bearer("0123456789ab", SECRET)


def test_a_signed_request_is_parsed_with_and_without_quotes() -> None:
    parts = f"ts=1000, nonce={NONCE}, sig={'AB' * 32}"
    assert read_authorization(f"RELAY700 key=0123456789ab, {parts}") == SIGNED
    assert read_authorization(f'relay700 key="0123456789ab",{parts}') == SIGNED


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic dTpw",
        "Bearer",
        f"Bearer rk_0123456789ab_{SECRET}x",
        f"Bearer rk_0123456789AB_{SECRET}",
        "RELAY700 key=a",
        f"RELAY700 key=a, ts=1, nonce={NONCE}",
        f"RELAY700 key=a, key=b, ts=1, nonce={NONCE}, sig=00",
        f"RELAY700 key=a, ts=-1, nonce={NONCE}, sig=00",
        "RELAY700 key=a, ts=1, nonce=short, sig=00",
        f"RELAY700 key=a, ts=1, nonce={'n' * 65}, sig=00",
        f"RELAY700 key=a, ts=٣, nonce={NONCE}, sig=00",
    ],
)
def test_a_malformed_authorization_header_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        read_authorization(header)
    assert refused.value.kind == "unauthorised"


def test_the_signature_covers_method_target_time_nonce_and_body() -> None:
    key = hashlib.sha256(SECRET.encode()).digest()
    text = "POST\n/v1/bindings?a=b\n1000\n" + NONCE + "\n" + hashlib.sha256(b"{}").hexdigest()
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    assert signature(key, "POST", "/v1/bindings?a=b", 1000, NONCE, b"{}") == expected


def admit(nonces: Nonces, signed: Signed, now_s: float) -> None:
    nonces.check(signed, now_s)
    nonces.keep(signed)


def test_a_nonce_is_accepted_once_per_key() -> None:
    nonces = Nonces(started_s=0)
    admit(nonces, SIGNED, 1_000)
    admit(nonces, SIGNED._replace(key_id="another"), 1_000)
    for later_s in (0, 1, BEHIND_S):
        with pytest.raises(Refused, match="nonce"):
            admit(nonces, SIGNED, 1_000 + later_s)


def test_a_nonce_is_kept_as_long_as_its_time_is_valid() -> None:
    """Also if the client's clock is ahead."""
    nonces = Nonces(started_s=0)
    ahead = SIGNED._replace(ts=1_000 + AHEAD_S)
    admit(nonces, ahead, 1_000)
    for second in range(BEHIND_S + 3 * AHEAD_S):
        with pytest.raises(Refused):
            admit(nonces, ahead, 1_000 + second)


@pytest.mark.parametrize("now_s", [1_000 - AHEAD_S - 1, 1_000 + BEHIND_S + 1])
def test_a_time_out_of_range_is_refused(now_s: int) -> None:
    with pytest.raises(Refused) as refused:
        admit(Nonces(started_s=0), SIGNED, now_s)
    assert refused.value.kind == "replayed"


def test_a_request_that_may_predate_the_start_is_refused() -> None:
    """The last such request: accepted just before the start, from a client with the maximum lead."""
    nonces = Nonces(started_s=1_000)
    with pytest.raises(Refused):
        admit(nonces, SIGNED._replace(ts=1_000 + AHEAD_S - 1), 1_000.5)
    admit(nonces, SIGNED._replace(ts=1_000 + AHEAD_S), 1_000.5)


def test_a_nonce_is_refused_after_the_clock_was_set_forward_and_back() -> None:
    nonces = Nonces(started_s=0)
    admit(nonces, SIGNED, 1_000)
    admit(nonces, SIGNED._replace(ts=4_600, nonce="f" * 16), 4_600)  # forgets the first
    with pytest.raises(Refused):
        admit(nonces, SIGNED, 1_010)
    admit(nonces, SIGNED._replace(ts=1_020, nonce="e" * 16), 1_020)
