from __future__ import annotations

import socket

import pytest

from relay.net.burst import MOST, Burst, parse_source


@pytest.mark.parametrize(
    ("family", "host", "other"),
    [(socket.AF_INET, "127.0.0.10", "127.0.0.11"), (socket.AF_INET6, "::1", "::1")],
)
def test_waiting_datagrams_are_read_in_order_with_their_sources(
    family: socket.AddressFamily, host: str, other: str
) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as end,
        socket.socket(family, socket.SOCK_DGRAM) as one,
        socket.socket(family, socket.SOCK_DGRAM) as another,
    ):
        end.bind((host, 0))
        one.bind((other, 0))
        another.bind((other, 0))
        sent = [(b"a", one), (b"", another), (bytes(65_000), one), (b"\r\n\r\n", another), *[(b"b", one)] * MOST]
        for data, peer in sent:
            peer.sendto(data, end.getsockname())
        burst = Burst(end)
        first, rest, nothing = burst.read(), burst.read(), burst.read()
        assert len(first) == MOST
        assert nothing == []
        read = [(data, parse_source(family, source)) for data, source in first + rest]
        assert read == [(data, peer.getsockname()[:2]) for data, peer in sent]
