"""HEP as sngrep and tshark read it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.store.captures import Captures
from relay.store.sealing.sealer import load_key
from tests.interop.conftest import StartRelay
from tests.support.addresses import CALLEE, RELAY, Address, free
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import A, B, RelayProcess, Setup
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.outside


@contextmanager
def sngrep(address: Address, file: Path) -> Iterator[None]:
    """`sngrep -L`, which writes what it gets to a capture file."""
    listen = ("-L", f"udp:{address}")
    command = ["sngrep", "-F", "-N", "-q", *listen, "-O", str(file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def listens(address: Address) -> bool:
    table = Path("/proc/net/udp").read_text()
    packed = bytes(map(int, address.host.split("."))).hex().upper()
    return f": {''.join(reversed([packed[at : at + 2] for at in (0, 2, 4, 6)]))}:{address.port:04X} " in table


def seen(file: Path) -> list[dict[str, Any]]:
    """The SIP messages of a capture file, as tshark dissects them."""
    fields = ("ip.src", "ip.dst", "sip.Method", "sip.Status-Code", "sip.Call-ID", "sip.CSeq.method", "sip.msg_hdr")
    columns = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-r", str(file), "-T", "json", *columns, "-Y", "sip && !_ws.malformed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    return [
        {name: values[0] for name, values in packet["_source"]["layers"].items()} for packet in json.loads(done.stdout)
    ]


async def test_sngrep_and_tshark_read_both_sides_of_a_masked_call_which_is_kept_if_armed(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    collector, file = free("127.0.0.61"), tmp_path / "hep.pcap"
    more = f'\n[capture]\nkeep = "armed"\n[hep]\nserver = "udp:{collector}"\n'
    setup = Setup(api=free(RELAY), callees=[free(CALLEE)], more=more)
    stopped = RelayProcess(tmp_path, setup)
    stopped.bind()
    assert stopped.command("capture", "arm", "--number", A, "--for", "1h").returncode == 0
    with sngrep(collector, file):
        await until(lambda: listens(collector))
        relay = start_relay(setup)
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callees[0]) as callee:
            call = Call(relay, caller, callee)
            await call.answer()
            await call.hang_up()
            await until_seen(lambda: ended(file))
        relay.stop()
    (call_id,) = (record["call_id"] for record in relay.calls())
    store = relay.folder / "relay.db"
    with closing(Captures(store, load_key(relay.folder / "relay.key"))) as captures:
        kept = captures.load(call_id)
    assert kept is not None and kept.lost == 0
    relay.start()
    messages = seen(file)
    sides = by_side(messages)
    assert len(sides) == len(kept.dialogs) == 2
    assert len(messages) == len(kept.messages)
    for said in sides.values():
        what = [message.get("sip.Method") or message["sip.Status-Code"] for message in said]
        assert [each for each in what if each != "100"] == ["INVITE", "200", "ACK", "BYE", "200"]
    assert {message["ip.src"] for message in messages} == {"192.0.2.1", "198.51.100.1", "203.0.113.1"}
    data = file.read_bytes()
    for secret in (A, B, relay.setup.caller.host, CALLEE, RELAY):
        assert secret[-10:].encode() not in data


def by_side(messages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        found.setdefault(message["sip.Call-ID"], []).append(message)
    return found


def ended(file: Path) -> bool:
    """Whether both sides have had the answer to a BYE."""
    return sum(each.get("sip.Status-Code") == "200" and each["sip.CSeq.method"] == "BYE" for each in seen(file)) == 2
