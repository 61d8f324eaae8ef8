"""Signatures of the relay's HTTP requests."""

from __future__ import annotations

import hashlib
import hmac

from relay.net.verify import signature_header


def test_time_and_body_are_signed() -> None:
    expected = hmac.new(b"secret", b"1800000000.{}", hashlib.sha256).hexdigest()
    assert signature_header("secret", 1_800_000_000, b"{}") == f"t=1800000000,v1={expected}"
    assert signature_header("secret", 1_800_000_001, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
    assert signature_header("other", 1_800_000_000, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
