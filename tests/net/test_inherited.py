"""What workers inherit from their parent: descriptors that are open for as long as it wants."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import structlog

from relay.call.settings import Listener
from relay.net import inherited
from relay.net.inherited import Inherited
from tests.support.addresses import RELAY, free

WORKERS = 2


def listener() -> Listener:
    address = free(RELAY)
    return Listener("udp", address.host, address.port, address.host)


async def test_each_worker_has_its_own_sockets_and_all_have_the_same_memory() -> None:
    kept = Inherited(WORKERS)
    await kept.listen(0, listener(), structlog.get_logger())
    first, second = (kept.by_use(worker) for worker in range(WORKERS))
    assert first["region"] == second["region"]
    assert first["mates"] == second["mates"]
    own = [first["own"], second["own"], first["sockets"]["0"], second["sockets"]["0"]]
    assert len(set(own)) == len(own)
    passed_on = kept.descriptors(0)
    assert set(passed_on) == {first["region"], first["own"], first["sockets"]["0"], *first["mates"]}
    kept.close()
    for descriptor in passed_on:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_an_address_that_is_held_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(errno.EADDRINUSE, "in use"), OSError(errno.EADDRINUSE, "in use")]
    open_ports = inherited.open_ports

    def busy_at_first(*arguments: object) -> list[socket.socket]:
        if failures:
            raise failures.pop()
        return open_ports(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(inherited, "open_ports", busy_at_first)
    monkeypatch.setattr(inherited, "AGAIN_S", 0)
    kept = Inherited(WORKERS)
    await kept.listen(0, listener(), structlog.get_logger())
    assert not failures
    kept.close()


@pytest.mark.parametrize("why", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
async def test_one_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch, why: int) -> None:
    def fails(*_: object) -> list[socket.socket]:
        raise OSError(why, "no")

    monkeypatch.setattr(inherited, "open_ports", fails)
    monkeypatch.setattr(inherited, "FREED_S", 0 if why == errno.EADDRINUSE else 3600)
    monkeypatch.setattr(inherited, "AGAIN_S", 0)
    kept = Inherited(WORKERS)
    with pytest.raises(OSError, match="no"):
        await kept.listen(0, listener(), structlog.get_logger())
    kept.close()
