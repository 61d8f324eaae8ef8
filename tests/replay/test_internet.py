from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.replay.internet import MAX_ASSEMBLING, Fragments, IpPayload
from tests.replay.packets import CALLEE, CALLEE6, CALLER, CALLER6, ipv4, ipv6, ipv6_fragment, udp

MORE = 0x2000
WHOLE = udp(bytes(range(40)))  # 48 bytes


def test_ipv4_payload_without_the_padding_of_short_frames() -> None:
    assert Fragments().receive(ipv4(WHOLE) + b"padding") == IpPayload(CALLER, CALLEE, 17, WHOLE)


def test_ipv4_options_are_no_payload() -> None:
    packet = ipv4(b"\x01\x01\x01\x01" + WHOLE)
    assert Fragments().receive(b"\x46" + packet[1:]) == IpPayload(CALLER, CALLEE, 17, WHOLE)


def test_ipv6_payload_behind_extension_headers() -> None:
    hop_by_hop, destination = struct.pack(">BB6x", 60, 0), struct.pack(">BB14x", 17, 1)
    packet = ipv6(hop_by_hop + destination + WHOLE, 0)
    assert Fragments().receive(packet) == IpPayload(CALLER6, CALLEE6, 17, WHOLE)


V4 = [ipv4(WHOLE[:16], flags=MORE), ipv4(WHOLE[16:32], flags=MORE | 2), ipv4(WHOLE[32:], flags=4)]
V6 = [
    ipv6_fragment(WHOLE[:16], 0, more=True),
    ipv6_fragment(WHOLE[16:32], 16, more=True),
    ipv6_fragment(WHOLE[32:], 32, more=False),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize(("pieces", "ends"), [(V4, (CALLER, CALLEE)), (V6, (CALLER6, CALLEE6))])
def test_fragments_in_any_order(pieces: list[bytes], ends: tuple[str, str], order: tuple[int, ...]) -> None:
    fragments = Fragments()
    *early, last = [fragments.receive(pieces[number]) for number in order]
    assert early == [None, None]
    assert last == IpPayload(*ends, 17, WHOLE)


def test_repeated_fragment_changes_nothing() -> None:
    fragments = Fragments()
    assert [fragments.receive(piece) for piece in (V4[0], V4[0], V4[2])] == [None] * 3
    assert fragments.receive(V4[1]) == IpPayload(CALLER, CALLEE, 17, WHOLE)


def test_fragments_of_two_datagrams_do_not_mix() -> None:
    fragments = Fragments()
    other = udp(b"other".ljust(24))
    assert fragments.receive(V4[0]) is None
    assert fragments.receive(ipv4(other[:16], identity=2, flags=MORE)) is None
    assert fragments.receive(ipv4(other[16:], identity=2, flags=2)) == IpPayload(CALLER, CALLEE, 17, other)


def test_ipv6_fragments_of_two_datagrams_do_not_mix() -> None:
    fragments = Fragments()
    other = udp(b"other".ljust(24))
    assert fragments.receive(V6[0]) is None
    assert fragments.receive(ipv6_fragment(other[:16], 0, more=True, identity=8)) is None
    assert fragments.receive(ipv6_fragment(other[16:], 16, more=False, identity=8)) == IpPayload(
        CALLER6, CALLEE6, 17, other
    )


def test_identity_may_come_again_for_another_datagram() -> None:
    fragments = Fragments()
    for _ in range(2):
        assert [fragments.receive(piece) for piece in V4] == [None, None, IpPayload(CALLER, CALLEE, 17, WHOLE)]


def test_fragments_whose_others_never_come_are_given_up() -> None:
    fragments = Fragments()
    fragments.receive(V4[0])
    for identity in range(2, 2 + MAX_ASSEMBLING):
        fragments.receive(ipv4(WHOLE[:16], identity=identity, flags=MORE))
    assert fragments.receive(V4[1]) is None
    assert fragments.receive(V4[2]) is None


@given(st.sampled_from([b"\x45", b"\x4f", b"\x60"]), st.binary(max_size=120))
def test_no_bytes_raise(start: bytes, rest: bytes) -> None:
    Fragments().receive(start + rest)
