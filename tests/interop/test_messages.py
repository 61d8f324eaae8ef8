"""Text messages between real phones through the relay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.test_softphones import STREAM_SOURCE, assert_each_knows_only_itself, by_time
from tests.support.relay_process import A, B, RelayProcess, Setup, X, Y
from tests.support.sip_text import user_of
from tests.support.sipp import Sipp
from tests.support.softphones import Pjsua, SoftPhone

pytestmark = pytest.mark.outside

SMS = "\n[sms]\nenabled = true\n"


async def text(relay: RelayProcess, sender: SoftPhone, number: str, words: str) -> int:
    """The status that the sender's phone shows."""
    sender.command("text", f"sip:{number}@{relay.setup.relay}{sender._transport_parameter} {words}")
    return int((await sender.expect("MESSAGE_STATUS"))["status"])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_two_phones_text_each_other(start_relay: StartRelay, tmp_path: Path, transport: str) -> None:
    setup = Setup(transport=transport, caller_sources=[STREAM_SOURCE], more=SMS)
    relay = start_relay(setup)
    relay.bind("AXYB", x=X, y=Y)
    async with Pjsua(tmp_path, setup.caller, A, transport) as a, Pjsua(tmp_path, setup.callee, B, transport) as b:
        assert await text(relay, a, X, "到门口了 in 2 minutes") == 200
        seen = await b.expect("MESSAGE")
        assert (user_of(seen["peeruri"]), seen["text"]) == (Y, "到门口了 in 2 minutes")
        assert await text(relay, b, Y, "好") == 200
        seen = await a.expect("MESSAGE")
        assert (user_of(seen["peeruri"]), seen["text"]) == (X, "好")
        assert await text(relay, b, Y, "139 0000 0002") == 403
        assert await text(relay, b, X, "not mine") == 403
        assert_each_knows_only_itself(a, b)
    records = by_time(relay)
    assert {record["kind"] for record in records} == {"message"}
    assert [record["outcome"] for record in records] == ["delivered", "delivered", "number_in_text", "no_binding"]
    assert [record["text_bytes"] for record in records] == [25, 3, 13, 8]
    assert relay.verify().startswith("4 records intact")
    assert relay.wait_for_event("message.ended")["outcome"] == "delivered"
    assert "in 2 minutes" not in relay.log()


async def test_numbers_in_a_text_are_masked_where_that_is_configured(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = Setup(more=f'{SMS}numbers = "mask"\n')
    relay = start_relay(setup)
    relay.bind()
    async with Pjsua(tmp_path, setup.caller, A) as a, Pjsua(tmp_path, setup.callee, B) as b:
        assert await text(relay, a, X, f"call {A}, not {B}") == 200
        assert (await b.expect("MESSAGE"))["text"] == "call 138****0001, not 139****0002"
        assert A not in b.everything()
    assert [record["outcome"] for record in relay.calls()] == ["delivered"]


async def test_sipp_texts_a_phone_as_often_as_a_call_might_be_made(start_relay: StartRelay, tmp_path: Path) -> None:
    setup = Setup(more=SMS, policy={"caller_caps": ["2/5m"]})
    relay = start_relay(setup)
    relay.bind()
    async with Pjsua(tmp_path, setup.callee, B) as b:
        for number, status in enumerate((200, 200, 403), 1):
            ladder = f"> MESSAGE text=hello{number}\n< {status}"
            Sipp(
                tmp_path, f"sender{number}", ladder, setup.caller, calls_to=setup.relay, numbers=[(A, X)]
            ).finish()  # fmt: skip
        assert [(await b.expect("MESSAGE"))["text"].strip() for _ in range(2)] == ["hello1", "hello2"]
    assert [record["outcome"] for record in by_time(relay)] == ["delivered", "delivered", "frequency_caller"]


def test_one_that_is_under_way_is_waited_for_at_the_end(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup(more=SMS))
    relay.start()
    relay.bind()
    receiver = Sipp(tmp_path, "receiver", "< MESSAGE\npause 1000\n> 200", relay.setup.callee)
    sender = Sipp(
        tmp_path, "sender", "> MESSAGE text=hello\n< 200", relay.setup.caller,
        calls_to=relay.setup.relay, numbers=[(A, X)],
    )  # fmt: skip
    while not receiver.traffic().received:
        assert sender._process.poll() is None
    assert relay.stop() == 0
    sender.finish()
    receiver.finish()
    assert by_time(relay)[0]["outcome"] == "delivered"


def test_a_phone_that_takes_no_messages_says_so(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(more=SMS))
    relay.bind()
    receiver = Sipp(tmp_path, "receiver", "< MESSAGE\n> 488", relay.setup.callee)
    sender = Sipp(
        tmp_path, "sender", "> MESSAGE text=hello\n< 488", relay.setup.caller,
        calls_to=relay.setup.relay, numbers=[(A, X)],
    )  # fmt: skip
    sender.finish()
    assert receiver.finish().received[0].uri == f"sip:{B}@{relay.setup.callee}"
    assert by_time(relay)[0]["end_reason"] == "sip_488"
