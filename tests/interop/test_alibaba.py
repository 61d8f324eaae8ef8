"""A call over a binding that Alibaba's SDK made, through a relay that serves its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import Client, in_china
from tests.interop.conftest import running_relay
from tests.support.addresses import RELAY, free
from tests.support.alibaba import receiving
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import A, B, RelayProcess, Setup

pytestmark = pytest.mark.outside


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    listen = free(RELAY)
    setup = Setup(api=free(RELAY), more=f'\n[compat.alibaba]\nlisten = "{listen}"\n')
    with running_relay(tmp_path, setup) as relay:
        relay.wait_for_event("backend.ready")
        relay.wait_for_event("api.listening", matching=lambda event: event["port"] == listen.port)
        yield relay


async def test_a_call_over_a_binding_that_the_sdk_made(relay: RelayProcess) -> None:
    """Its record is pushed to a receiver of Alibaba's, and is the same in a comparison."""
    made = relay.answer("keys", "make", "--business", "default", "--json")
    address = relay.setup.more.partition('"')[2].partition('"')[0]
    client = Client(address, made["id"], made["access_key_secret"])
    given = {"pool_key": "default", "expiration": in_china(hours=1), "order_id": "order-1", "out_id": "cart 9"}
    bound = client.ask("BindAxb700", tel_a=A, tel_b=B, **given)
    assert bound["Code"] == "OK", bound
    x = bound["Data"]["SecretNo"]
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee, receiving() as receiver:
        relay.answer("webhooks", "make", receiver.url, "--format", "alibaba", "--parties", "clear", "--json")
        call = Call(relay, caller, callee, number=x)
        await call.answer()
        await call.hang_up()
        await receiver.until(lambda: len(receiver.arrays) == 1)
    [[report]] = receiver.arrays
    assert (report["sub_id"], report["out_id"], report["pool_key"]) == (bound["Data"]["SubsId"], "cart 9", "default")
    assert (report["phone_no"], report["peer_no"], report["call_type"], report["release_dir"]) == (A, B, 0, 1)
    (relay.folder / "there.json").write_text(json.dumps([report]))
    compared = relay.command("compare", "there.json", "--provider", "alibaba")
    assert compared.stdout.startswith("1 same, 0 missing here, 0 missing there"), compared
    unbound = client.ask("UnbindSubs700", pool_key="default", subs_id=bound["Data"]["SubsId"], tel_x=x)
    assert unbound["Code"] == "OK", unbound
