"""Two people with real softphones talk through the relay; what each was shown is read from the phone itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.support.addresses import Address
from tests.support.relay_process import A, B, RelayProcess, Setup, X, Y
from tests.support.sip_text import user_of
from tests.support.sipp_calls import BACK, FORTH, Direction
from tests.support.softphones import Baresip, Linphone, Pjsua, SoftPhone
from tests.support.waiting import PATIENCE_S

# No phone binds the connections it opens to its address: on loopback they come from here.
STREAM_SOURCE = "127.0.0.1"
PAIRS = {
    "pjsua2_and_pjsua2": (Pjsua, Pjsua),
    "pjsua2_and_baresip": (Pjsua, Baresip),
    "baresip_and_pjsua2": (Baresip, Pjsua),
    "baresip_and_baresip": (Baresip, Baresip),
    "linphone_and_pjsua2": (Linphone, Pjsua),
    "pjsua2_and_linphone": (Pjsua, Linphone),
}


async def talk(relay: RelayProcess, caller: SoftPhone, callee: SoftPhone, direction: Direction) -> None:
    """A whole call, the caller hanging up; each phone showed its user 700 numbers alone."""
    caller.dial(direction.dialled, relay.setup.relay)
    seen_by_caller = await caller.expect("CALL_ESTABLISHED")
    seen_by_callee = await callee.expect("CALL_ESTABLISHED")
    assert user_of(seen_by_caller["peeruri"]) == direction.dialled
    assert user_of(seen_by_callee["peeruri"]) == direction.shown
    caller.hang_up()
    await callee.expect("CALL_CLOSED")
    await caller.expect("CALL_CLOSED")


def assert_each_knows_only_itself(caller: SoftPhone, callee: SoftPhone) -> None:
    """The phones keep every SIP message they see."""
    for phone, other in ((caller, callee), (callee, caller)):
        assert phone.number in phone.everything()
        assert other.number not in phone.everything()
        assert str(other.local) not in phone.everything()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("pair", PAIRS)
async def test_two_phones_talk_both_ways(start_relay: StartRelay, tmp_path: Path, pair: str, transport: str) -> None:
    setup = Setup(transport=transport, caller_sources=[STREAM_SOURCE])
    relay = start_relay(setup)
    relay.bind()
    of_a, of_b = PAIRS[pair]
    async with of_a(tmp_path, setup.caller, A, transport) as a, of_b(tmp_path, setup.callee, B, transport) as b:
        await talk(relay, a, b, FORTH)
        await talk(relay, b, a, BACK)
        assert_each_knows_only_itself(a, b)
    assert [(record["outcome"], record["caller"]) for record in by_time(relay)] == [
        ("answered", f"86{A}"),
        ("answered", f"86{B}"),
    ]


async def test_axyb_shows_each_side_the_number_of_the_other(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = Setup()
    relay = start_relay(setup)
    relay.bind("AXYB", x=X, y=Y)
    async with Pjsua(tmp_path, setup.caller, A) as a, Baresip(tmp_path, setup.callee, B) as b:
        await talk(relay, a, b, Direction("a calls b", A, B, dialled=X, shown=Y))
        await talk(relay, b, a, Direction("b calls a", B, A, dialled=Y, shown=X, backwards=True))
        assert_each_knows_only_itself(a, b)


async def hold_and_resume(phone: SoftPhone, other: SoftPhone) -> None:
    phone.command("hold")
    held = await other.expect("CALL_MEDIA")
    await phone.expect("CALL_MEDIA")  # until its re-INVITE is answered it may not send another
    phone.command("resume")
    resumed = await other.expect("CALL_MEDIA")
    await phone.expect("CALL_MEDIA")
    assert held["direction"] != resumed["direction"]


async def test_phones_hold_resume_and_send_digits(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = Setup()
    relay = start_relay(setup)
    relay.bind()
    async with Pjsua(tmp_path, setup.caller, A) as a, Pjsua(tmp_path, setup.callee, B) as b:
        a.dial(X, setup.relay)
        await a.expect("CALL_ESTABLISHED")
        await b.expect("CALL_ESTABLISHED")
        await hold_and_resume(a, b)
        a.command("digits", "7")
        assert (await b.expect("CALL_DTMF"))["param"] == "7"
        b.hang_up()
        await a.expect("CALL_CLOSED")
        assert_each_knows_only_itself(a, b)
    (record,) = by_time(relay)
    assert (record["outcome"], record["ended_by"]) == ("answered", "callee")


async def test_stranger_with_a_phone_gets_no_call(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = Setup()
    relay = start_relay(setup)
    relay.bind()
    stranger = Address("127.0.0.66", setup.caller.port)
    async with Pjsua(tmp_path, stranger, A) as phone:
        phone.dial(X, setup.relay)
        assert (await phone.expect("CALL_CLOSED"))["status"] == 403


def by_time(relay: RelayProcess) -> list[dict[str, object]]:
    """The records once all calls have ended: a phone that hangs up does not wait for the answer."""
    until_s = time.monotonic() + PATIENCE_S
    while None in [record["outcome"] for record in relay.calls()]:
        assert time.monotonic() < until_s
    return sorted(relay.calls(), key=lambda record: record["received_at"])
