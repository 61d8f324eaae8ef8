from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from relay.net import listening
from relay.net.listening import StreamListener
from tests.support.addresses import Address, free


class Accepted:
    def __init__(self, host: str) -> None:
        self.address = free(host)
        self.sockets: asyncio.Queue[tuple[socket.socket, tuple[str, int]]] = asyncio.Queue()
        self.listener = StreamListener(lambda connected, address: self.sockets.put_nowait((connected, address)))


@pytest.fixture(params=["127.0.0.10", "::1"])
async def accepted(request: pytest.FixtureRequest) -> AsyncIterator[Accepted]:
    made = Accepted(request.param)
    made.listener.open(*made.address)
    yield made
    made.listener.close()


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_an_accepted_connection_comes_with_its_address(accepted: Accepted) -> None:
    with socket.create_connection(accepted.address) as client:
        connected, address = await asyncio.wait_for(accepted.sockets.get(), 10)
        with connected:
            assert Address(*address) == Address(*client.getsockname()[:2])
            assert not connected.getblocking()


async def test_an_address_in_use_is_an_error(accepted: Accepted) -> None:
    with pytest.raises(OSError, match="in use"):
        StreamListener(lambda connected, address: None).open(*accepted.address)


async def test_nothing_is_accepted_after_close(accepted: Accepted) -> None:
    accepted.listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(accepted.address)


@pytest.mark.usefixtures("few_descriptors")
async def test_accepting_pauses_without_descriptors(accepted: Accepted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PAUSE_S", 0.01)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with socket.create_connection(accepted.address) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        accepted.listener._accept()
        assert accepted.sockets.empty()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connected, _ = await asyncio.wait_for(accepted.sockets.get(), 10)
        connected.close()
