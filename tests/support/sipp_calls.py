"""A call flow through the relay between two SIPps, and the check of what each side may see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.addresses import CALLEE_MEDIA, CALLER_MEDIA, Address
from tests.support.call_flow import CallFlow
from tests.support.relay_process import A, B, RelayProcess, X
from tests.support.sip_text import user_of
from tests.support.sipp import Sipp, Traffic


@dataclass(frozen=True)
class Direction:
    """Caller, number, callee, and what the callee must be shown."""

    name: str
    caller: str
    callee: str
    dialled: str = X
    shown: str = X
    backwards: bool = False  # from the callee's address to the caller's

    def addresses(self, relay: RelayProcess) -> tuple[Address, Address]:
        """The addresses of the caller and the callee."""
        ends = (relay.setup.caller, relay.setup.callee)
        return (ends[1], ends[0]) if self.backwards else ends


FORTH = Direction("a calls b", A, B)
BACK = Direction("b calls a", B, A, backwards=True)


def run_flow(
    relay: RelayProcess,
    folder: Path,
    flow: CallFlow,
    direction: Direction = FORTH,
    *,
    transport: str = "udp",
    calls: int = 1,
    rate: float = 10,
    timeout_s: int = 30,
    numbers: Sequence[tuple[str, str]] = (),
    caller_options: Iterable[str] = (),
) -> tuple[Traffic, Traffic]:
    """The traffic of the caller and the callee. Raises SippFailed unless both followed their ladders."""
    caller_address, callee_address = direction.addresses(relay)
    same_media = ":" in caller_address.host
    callee = Sipp(
        folder, "callee", flow.callee, callee_address,
        media=None if same_media else CALLEE_MEDIA, transport=transport, calls=calls, timeout_s=timeout_s,
    )  # fmt: skip
    caller = Sipp(
        folder, "caller", flow.caller, caller_address,
        calls_to=relay.setup.relay, numbers=numbers or [(direction.caller, direction.dialled)],
        media=None if same_media else CALLER_MEDIA, transport=transport,
        calls=calls, rate=rate, timeout_s=timeout_s, options=caller_options,
    )  # fmt: skip
    try:
        return caller.finish(timeout_s + 10), callee.finish(timeout_s + 10)
    finally:
        caller.stop()
        callee.stop()


def assert_masked(relay: RelayProcess, direction: Direction, caller: Traffic, callee: Traffic) -> None:
    """Neither side received a number, a signalling address or a Call-ID of the other."""
    caller_address, callee_address = direction.addresses(relay)
    for message in callee.received:
        if message.status == 0 and message.method == "INVITE" and not message.tag:
            assert user_of(message["from"]) == direction.shown
            assert message.uri.partition(":")[2].startswith(direction.callee)
    call_ids = {message["call-id"] for message in caller.sent}
    _assert_absent(callee.raw_received, [direction.caller, str(caller_address), *call_ids], caller_address, "callee")
    call_ids = {message["call-id"] for message in callee.received}
    _assert_absent(caller.raw_received, [direction.callee, str(callee_address), *call_ids], callee_address, "caller")


def _assert_absent(raw: bytes, secrets: list[str], other: Address, reader: str) -> None:
    if ":" not in other.host:  # over IPv6 all ends share ::1 and differ only by port
        secrets.append(other.host)
    for secret in secrets:
        assert secret.encode() not in raw, f"the {reader} was sent {secret}"


def assert_carried(flow: CallFlow, caller: Traffic, callee: Traffic) -> None:
    """The flow's words crossed, in the messages that start as given."""
    for traffic, expected in ((callee, flow.callee_gets), (caller, flow.caller_gets)):
        for start, words in expected:
            found = [message.text for message in traffic.received if message.first_line.startswith(start)]
            assert any(words in text for text in found), f"no {words} in any {start}: {found}"


def assert_recorded(record: dict[str, object], flow: CallFlow, direction: Direction) -> None:
    """The call record is as expected."""
    assert record["outcome"] == flow.outcome
    assert record["sip_status"] == flow.status
    if flow.ended_by is not None:
        assert record["ended_by"] == flow.ended_by
    assert record["number_dialled"] == direction.dialled
    assert record["number_shown"] == direction.shown
    assert (record["caller"], record["callee"]) == (f"86{direction.caller}", f"86{direction.callee}")
    assert record["received_at"]
    assert record["ended_at"]
    assert (record["answered_at"] is not None) == (flow.outcome == "answered")
