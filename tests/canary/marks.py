"""The marks of the two sides in the tests."""

from __future__ import annotations

from relay.privacy.canary import Marks

ALICE = Marks(
    "alicemark",
    "13800000001",
    "13711112222",
    1_380_000_000,
    "127.0.0.11",
    "10.11.12.13",
    "2001:db8:a11c::1",
    "46000a11ce",
)
BOB = Marks(
    "bobmark", "13900000002", "13722223333", 1_390_000_000, "127.0.0.22", "10.22.12.13", "2001:db8:b0b::1", "460000b0b0"
)
