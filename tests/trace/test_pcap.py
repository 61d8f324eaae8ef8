"""The ladder as pcap: tshark opens it, finds each message, and nothing malformed."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from relay.trace.ladder import Ladder as Shown
from relay.trace.ladder import build_ladder, operator_view
from relay.trace.pcap import ladder_pcap
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.ladder import connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST
from tests.trace.test_ladder_join import SCENARIOS, basic, retransmitted, shown

FIELDS = ("frame.time_epoch", "ip.src", "ip.dst", "sip.Method", "sip.Status-Code", "_ws.malformed", "udp.payload")


def dissect(data: bytes, tmp_path: Path) -> list[dict[str, str]]:
    """The fields of each packet, by tshark."""
    file = tmp_path / "call.pcap"
    file.write_bytes(data)
    fields = [part for name in FIELDS for part in ("-e", name)]
    asked = ["tshark", "-n", "-r", str(file), "-T", "json", *fields]
    done = subprocess.run(asked, capture_output=True, check=True, timeout=60)
    packets: list[Any] = json.loads(done.stdout)
    return [{name: values[0] for name, values in packet["_source"]["layers"].items()} for packet in packets]


def check(packets: list[dict[str, str]], *ladders: Shown) -> None:
    assert len(packets) == sum(1 + len(row.again_at_us) for ladder in ladders for row in ladder.rows)
    for packet in packets:
        assert "_ws.malformed" not in packet, packet
        assert "sip.Method" in packet or "sip.Status-Code" in packet, packet


@pytest.mark.parametrize("reveal", [False, True], ids=["masked", "clear"])
def test_tshark_finds_each_message(reveal: bool, tmp_path: Path) -> None:
    """Of all scenarios, in one file: it takes a second to start."""
    ladders = [shown(play(), operator_view(reveal=reveal)) for play in SCENARIOS]
    files = [ladder_pcap(ladder) for ladder in ladders]
    data = files[0] + b"".join(file[24:] for file in files[1:])
    check(dissect(data, tmp_path), *ladders)


def test_revealed_messages_are_byte_for_byte_those_on_the_wire(tmp_path: Path) -> None:
    ladder = retransmitted()
    packets = dissect(ladder_pcap(shown(ladder, operator_view(reveal=True))), tmp_path)
    payloads = [packet["udp.payload"].replace(":", "") for packet in packets]
    assert sorted(payloads) == sorted(message.data.hex() for message in ladder.messages)
    assert {packet["ip.src"] for packet in packets} >= {CALLER_HOST, CALLEE_HOST}


def test_stuffed_call_is_masked_and_valid(tmp_path: Path) -> None:
    canary = CanaryLadder(multipart=True)
    connect(canary)
    hang_up(canary)
    ladder = shown(canary)
    data = ladder_pcap(ladder)
    check(dissect(data, tmp_path), ladder)
    assert not ALICE.found_in(data) + BOB.found_in(data)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
@pytest.mark.parametrize("host", ["192.0.2.7", "[2001:db8::7]"])
def test_streams_and_ipv6(transport: str, host: str, tmp_path: Path) -> None:
    call = basic().captured()
    local = host.replace("7", "1")
    messages = tuple(
        each._replace(transport=transport, remote=f"{host}:5061", local=f"{local}:5061") for each in call.messages
    )
    ladder = build_ladder(call._replace(messages=messages), None, operator_view(reveal=True))
    check(dissect(ladder_pcap(ladder), tmp_path), ladder)


def test_readers_do_not_cut_long_messages() -> None:
    """They cut frames at the length in the file's head (pcap-savefile(5))."""
    call = basic().captured()
    long = call.messages[0]._replace(data=call.messages[0].data + b"a" * 70_000)
    data = ladder_pcap(build_ladder(call._replace(messages=(long,)), None, operator_view(reveal=True)))
    (snaplen,) = struct.unpack_from("<I", data, 16)
    (length,) = struct.unpack_from("<I", data, 24 + 8)
    assert snaplen >= length > 65_000
