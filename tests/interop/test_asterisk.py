"""Calls between two Asterisks, each with the configuration of config/asterisk, and the relay between them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.test_softphones import assert_each_knows_only_itself
from tests.support.addresses import Address, free
from tests.support.asterisk import Asterisk, Robot, share_of_tone, write_tone
from tests.support.relay_process import A, B, RelayProcess, Setup, X, Y
from tests.support.rtpengine import Rtpengine, media_table
from tests.support.softphones import Pjsua

B2 = "13900000003"
TONE_OF_A, TONE_OF_B = 440, 1300  # Hz
PHONE_A, PHONE_B = "127.0.0.12", "127.0.0.24"  # softphones behind the PBXs
CALLS_AT_ONCE = 50


class BetweenPbxs(Setup):
    """The relay.toml that config/asterisk/pjsip.conf asks for."""

    def toml(self, folder: Path) -> str:
        return super().toml(folder).replace("\nsources = ", '\nidentity = "pai"\nsend_pai = true\nsources = ')


@asynccontextmanager
async def pbxs(
    relay: RelayProcess,
    folder: Path,
    robots: Sequence[Robot] = (),
    *,
    changes: Mapping[str, str] | None = None,
    callee_changes: Mapping[str, str] | None = None,
    phones: tuple[Address, Address] | None = None,
) -> AsyncIterator[tuple[Asterisk, Asterisk]]:
    """The caller's PBX and the callee's. When both have ended, neither has written a number of the other's anywhere."""
    setup = relay.setup
    phone_a, phone_b = ({A: phones[0]}, {B: phones[1]}) if phones else ({}, {})
    callee_changes = callee_changes or changes
    async with (
        Asterisk(folder / "a", setup.caller, setup.relay, changes=changes, phones=phone_a) as a,
        Asterisk(folder / "b", setup.callee, setup.relay, changes=callee_changes, phones=phone_b, robots=robots) as b,
    ):
        yield a, b
    assert_each_knows_its_own_numbers(a, b)


def assert_each_knows_its_own_numbers(a: Asterisk, b: Asterisk) -> None:
    for pbx, own, other in ((a, "13800", "13900"), (b, "13900", "13800")):
        written = re.sub("0x[0-9a-f]+|ssrc=[0-9]+", "drawn", pbx.everything())
        # Whole numbers: five digits alone are now and then a port for media, or the thread that wrote a line.
        assert not re.search(rf"{other}\d{{6}}", written), f"the PBX of {own} wrote {other}"
        assert own in written
        assert X[:11] in written
        assert pbx.records


async def test_check_itself_sees_a_leak(tmp_path: Path) -> None:
    """Without the relay between them the callee's PBX logs the caller's number."""
    ends = Setup()
    async with (
        Asterisk(tmp_path / "a", ends.caller, relay=ends.callee) as a,
        Asterisk(tmp_path / "b", ends.callee, relay=ends.relay) as b,
    ):
        await a.call(A, X, "wait")
        await a.expect("Hangup", Channel="PJSIP/relay700-.*")
    with pytest.raises(AssertionError, match="the PBX of 13900 wrote 13800"):
        assert_each_knows_its_own_numbers(a, b)


async def test_each_side_hears_the_other(start_relay: StartRelay, tmp_path: Path) -> None:
    await speak_and_listen(start_relay(BetweenPbxs()), tmp_path)


async def test_with_rtpengine_neither_pbx_learns_an_address_of_the_other(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    async with Rtpengine(tmp_path) as engine:
        relay = start_relay(BetweenPbxs(more=media_table(engine.place)))
        a, b = await speak_and_listen(relay, tmp_path)
    for pbx, other in ((a, b), (b, a)):
        assert engine.control.host in pbx.everything()
        assert other.local.host not in pbx.everything()


async def speak_and_listen(relay: RelayProcess, tmp_path: Path) -> tuple[Asterisk, Asterisk]:
    """In one call the caller speaks and the callee hangs up, in another it is the other way round."""
    relay.bind()
    relay.bind(x=Y, b=B2)
    heard_by_a, heard_by_b = tmp_path / "heard_by_a", tmp_path / "heard_by_b"
    robots = [
        Robot(B, "listen", {"HEARD": str(heard_by_b)}),
        Robot(B2, "speak", {"TONE": write_tone(tmp_path / "b", TONE_OF_B)}),
    ]
    async with pbxs(relay, tmp_path, robots) as (a, b):
        await a.call(A, X, "speak", TONE=write_tone(tmp_path / "a-tone", TONE_OF_A))
        await a.call(A, Y, "listen", HEARD=str(heard_by_a))
        for pbx in (a, b):
            await pbx.expect("Heard")
            await pbx.expect("Hangup", 2, Channel="PJSIP/relay700-.*", Cause="16")
    for heard, told, untold in ((heard_by_b, TONE_OF_A, TONE_OF_B), (heard_by_a, TONE_OF_B, TONE_OF_A)):
        assert share_of_tone(heard.with_suffix(".wav"), told) > 0.9
        assert share_of_tone(heard.with_suffix(".wav"), untold) < 0.01
    ended_by = {record["number_dialled"]: record["ended_by"] for record in relay.calls()}
    assert ended_by == {X: "callee", Y: "caller"}
    return a, b


async def test_channels_and_variables_show_700_numbers(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(BetweenPbxs())
    relay.bind("AXYB", x=X, y=Y)
    async with pbxs(relay, tmp_path, [Robot(B, "wait")]) as (a, b):
        await a.call(A, X, "wait")
        (seen,) = await b.expect("Seen")
        assert seen["Caller"] == f"<{Y}>"
        await a.expect("Seen")
        for pbx, own, shown, others in ((a, A, X, (B, Y)), (b, B, Y, (A, X))):
            (channel,) = await pbx.trunk_channels()
            told = await pbx.command(f"core show channel {channel}")
            assert own in told
            assert shown in told
            assert not [number for number in others if number in told]
        await b.command(f"channel request hangup {channel}")
        for pbx in (a, b):
            await pbx.expect("Hangup", Channel="PJSIP/relay700-.*")


@pytest.mark.parametrize("mode", ["rfc4733", "info"])
async def test_digits_arrive_on_both_sides(start_relay: StartRelay, tmp_path: Path, mode: str) -> None:
    relay = start_relay(BetweenPbxs())
    relay.bind()
    changes = {"dtmf_mode = rfc4733": f"dtmf_mode = {mode}"}
    async with pbxs(relay, tmp_path, [Robot(B, "read", {"DIGITS": "9*0#"})], changes=changes) as (a, b):
        await a.call(A, X, "send", DIGITS="1573")
        await b.expect("Digits", Read="1573")
        await a.expect("Digits", Read=r"9\*0#?")
        assert ("INFO sip:" in a.everything()) == (mode == "info")
        await hang_up_all(a, b)


@pytest.mark.parametrize("by", ["caller", "callee"])
async def test_phone_behind_a_pbx_holds_and_resumes(start_relay: StartRelay, tmp_path: Path, by: str) -> None:
    relay = start_relay(BetweenPbxs())
    relay.bind()
    phones = free(PHONE_A), free(PHONE_B)
    async with (
        pbxs(relay, tmp_path, phones=phones) as (a, b),
        Pjsua(tmp_path, phones[0], A) as phone_a,
        Pjsua(tmp_path, phones[1], B) as phone_b,
    ):
        phone_a.dial(X, a.local)
        await phone_a.expect("CALL_ESTABLISHED")
        await phone_b.expect("CALL_ESTABLISHED")
        phone, other_pbx = (phone_a, b) if by == "caller" else (phone_b, a)
        for command, event in (("hold", "Hold"), ("resume", "Unhold")):
            phone.command(command)
            await other_pbx.expect(event, Channel="PJSIP/relay700-.*")
            await phone.expect("CALL_MEDIA")  # until its re-INVITE is answered it may not send another
        phone_b.hang_up()
        await phone_a.expect("CALL_CLOSED")
        assert_each_knows_only_itself(phone_a, phone_b)


@pytest.mark.parametrize("by", ["caller", "callee"])
async def test_transfer_is_refused_and_the_call_goes_on(start_relay: StartRelay, tmp_path: Path, by: str) -> None:
    relay = start_relay(BetweenPbxs())
    relay.bind()
    caller, callee = ("transfer", "wait") if by == "caller" else ("wait", "transfer")
    changes = {"allow_transfer = no": "allow_transfer = yes"}  # else Asterisk does not even ask
    async with pbxs(relay, tmp_path, [Robot(B, callee)], changes=changes) as (a, b):
        await a.call(A, X, caller, trunk=True)
        asking = a if by == "caller" else b
        await asking.expect("Transferred", Status="FAILURE", Protocol="405")
        assert relay.statistics()["calls_up"] == 1
        await hang_up_all(a, b)
    asked = b if by == "caller" else a
    assert ["REFER sip:" in pbx.everything() for pbx in (asking, asked)] == [True, False]


async def test_interval_of_the_session_timer_is_negotiated(start_relay: StartRelay, tmp_path: Path) -> None:
    """The callee's PBX refuses what the caller's proposes (422), and that asks again with what it was told."""
    relay = start_relay(BetweenPbxs())
    relay.bind()
    line = "allow_subscribe = no"
    shorter, longer = ({line: f"{line}\n{timers}"} for timers in ("timers_sess_expires = 600", "timers_min_se = 1800"))
    async with pbxs(relay, tmp_path, [Robot(B, "wait")], changes=shorter, callee_changes=longer) as (a, b):
        await a.call(A, X, "wait")
        await a.expect("Seen")
        for pbx in (a, b):
            assert "SIP/2.0 422 " in pbx.everything()
            assert "Min-SE: 1800" in pbx.everything()
        await hang_up_all(a, b)
    assert sorted(record["sip_status"] for record in relay.calls()) == [200, 422]


async def test_fifty_calls_at_once_are_not_mixed_up(start_relay: StartRelay, tmp_path: Path) -> None:
    """Each caller sends its callee digits of its own, and gets other ones back."""
    calls = [(f"70010000001{n:04}", f"138000{n:05}", f"139000{n:05}", f"{n:04}") for n in range(1, CALLS_AT_ONCE + 1)]
    relay = start_relay(BetweenPbxs(more="\n[limits]\nshed_lag_ms = 0\n"))  # on a busy machine calls would be shed
    relay.import_bindings([(x, a, b) for x, a, b, _ in calls])
    async with pbxs(relay, tmp_path, [Robot("_13900XXXXXX", "read", {"DIGITS": "8${EXTEN:8}"})]) as (a, b):
        for x, caller, _, digits in calls:
            await a.call(caller, x, "send", DIGITS=digits)
        await a.expect("Digits", CALLS_AT_ONCE)
        assert relay.statistics()["calls_up"] == CALLS_AT_ONCE
        for _, _, callee, digits in calls:
            await a.expect("Digits", Sent=digits, Read=f"8{callee[8:]}")
            await b.expect("Digits", Sent=f"w?8{callee[8:]}", Read=digits)
        await hang_up_all(a, b, CALLS_AT_ONCE)
    assert [record["outcome"] for record in relay.calls()] == ["answered"] * CALLS_AT_ONCE


async def hang_up_all(a: Asterisk, b: Asterisk, count: int = 1) -> None:
    """The caller's PBX ends its calls; both have seen the end of them."""
    await a.command("channel request hangup all")
    await asyncio.gather(*(pbx.expect("Hangup", count, Channel="PJSIP/relay700-.*") for pbx in (a, b)))
