from __future__ import annotations

import asyncio
from pathlib import Path

import asyncio_dgram
import pytest

from relay.defence.bans import Bans
from relay.errors import ConfigError
from relay.model.settings import Limits, Listener, Settings
from relay.net.pace import Pace
from relay.net.settings import StreamLimits, TlsFiles
from relay.net.transports import Transports
from relay.sip.flow import Flow
from tests.net.support import address_of, settings_for
from tests.support.addresses import free

PATIENCE_S = 10


class Opened:
    def __init__(self, settings: Settings, tls: TlsFiles | None = None) -> None:
        self.settings = settings
        self.messages: asyncio.Queue[tuple[bytes, Flow]] = asyncio.Queue()
        self.failed: asyncio.Queue[Flow] = asyncio.Queue()
        self.transports = Transports(settings, StreamLimits(), tls)

    async def open(self) -> None:
        await self.transports.open(
            lambda data, flow: self.messages.put_nowait((data, flow)), self.failed.put_nowait, Bans(Limits()), Pace()
        )


async def test_each_transport_carries_messages_of_its_own_listener() -> None:
    opened = Opened(settings_for("udp", "tcp", "udp"))
    await opened.open()
    for index, transport in enumerate(("udp", "tcp", "udp")):
        message = f"OPTIONS sip:{index} SIP/2.0\r\nContent-Length: 0\r\n\r\n".encode()
        opened.transports.send(
            message, Flow(0 if transport == "udp" else 1, transport, *address_of(opened.settings, index))
        )
        data, flow = await asyncio.wait_for(opened.messages.get(), PATIENCE_S)
        assert (data, flow.listener, flow.transport) == (message, index, transport)
    await opened.transports.close()


async def test_each_transport_carries_several_messages_at_once() -> None:
    opened = Opened(settings_for("udp", "tcp"))
    await opened.open()
    messages = [f"OPTIONS sip:{number} SIP/2.0\r\nContent-Length: 0\r\n\r\n".encode() for number in range(3)]
    for index, transport in enumerate(("udp", "tcp")):
        opened.transports.send_all(messages, Flow(index, transport, *address_of(opened.settings, index)))
        heard = [(await asyncio.wait_for(opened.messages.get(), PATIENCE_S))[0] for _ in messages]
        assert sorted(heard) == messages
    await opened.transports.close()


async def test_every_failed_listener_is_reported_and_none_is_left_open() -> None:
    first = Opened(settings_for("udp", "tcp"))
    await first.open()
    taken = first.settings.listeners
    good = settings_for("udp").listeners[0]
    elsewhere = Listener("udp", "203.0.113.7", free("127.0.0.1").port, "203.0.113.7")
    second = Opened(Settings((good, *taken, elsewhere), (), (), ()))
    with pytest.raises(ConfigError) as caught:
        await second.open()
    place = f"{taken[0].host}:{taken[0].port}", f"{taken[1].host}:{taken[1].port}"
    assert caught.value.problems == [
        f"sip.listen[1]: udp:{place[0]} is in use: stop the other program, or choose another port",
        f"sip.listen[2]: tcp:{place[1]} is in use: stop the other program, or choose another port",
        f"sip.listen[3]: udp:203.0.113.7:{elsewhere.port}: this machine has no such address (see `ip address`)",
    ]
    again = await asyncio_dgram.bind((good.host, good.port))
    again.close()
    await first.transports.close()


async def test_missing_tls_files_are_reported_before_anything_is_opened(tmp_path: Path) -> None:
    opened = Opened(settings_for("udp"), TlsFiles(tmp_path / "c", tmp_path / "k"))
    with pytest.raises(ConfigError, match=r"tls\.certificate: cannot read"):
        await opened.open()


async def test_an_unreachable_name_fails_as_written() -> None:
    opened = Opened(settings_for("udp", host="127.0.0.1"))
    await opened.open()
    gone = free("127.0.0.1")
    wanted = Flow(0, "udp", "localhost", gone.port)
    opened.transports.send(b"hello", wanted)
    failed = {await asyncio.wait_for(opened.failed.get(), PATIENCE_S) for _ in range(2)}
    assert failed == {wanted, wanted._replace(host="127.0.0.1")}
    await opened.transports.close()


async def test_datagrams_waiting_for_resolution_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.net.transports.MAX_RESOLVING", 2)
    opened = Opened(settings_for("udp"))
    await opened.open()
    flows = [Flow(0, "udp", f"host-{number}.invalid", 5060) for number in range(3)]
    for flow in flows:
        opened.transports.send(b"hello", flow)
    assert opened.failed.get_nowait() == flows[2]
    await opened.transports.close()
