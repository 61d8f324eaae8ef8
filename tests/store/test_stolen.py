"""The content of a stolen database file (it shows no number)."""

from __future__ import annotations

import re
from contextlib import closing

from relay.model.actions import Commit
from relay.model.numbers import Parties
from relay.service.groups import make_group
from relay.service.placement import BindRules
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.store.conftest import Disk
from tests.support.stored import Y, binding, end, ended_record, live_record, put

RULES = BindRules(parties=Parties(foreign=re.compile("44[0-9]{10}")))
CALLER, CALLEE, THIRD = "8613812344321", "8675598765432", "447700900987"


async def test_file_and_log_have_no_plain_real_number_and_no_text_of_a_peer(disk: Disk) -> None:
    texts = {"order_id": "canary 13812344321", "consent": "canary consent", "user_data": "canary 13812344321"}
    put(disk.path, disk.sealer, binding("b1", a=CALLER, b=CALLEE, **texts), binding("b2", a=CALLER, b=THIRD, x=Y))
    end(disk.path, disk.sealer, "b2")
    with closing(Writer(disk.path, disk.sealer)) as writer:
        name, members = "canary riders of 13812344321", [CALLER, f"+{THIRD}"]
        writer.run(RELAY, lambda unit: make_group(unit, name, RULES, "default", members))
    journal = sqlite_journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    parties = {"caller": CALLER, "callee": CALLEE, "caller_leg_call_id": "canary-13812344321@device"}
    for record, dialogs in [
        (live_record("c1", **parties), b"canary sip:13812344321@device"),
        (live_record("c2", **parties), b"canary sip:13812344321@device"),
        (ended_record("c1", **parties), None),
        (ended_record("c3", number_dialled=THIRD, number_shown=CALLER, caller=CALLER, callee=THIRD), None),
        (ended_record("c4", number_dialled="12345", **parties), None),
    ]:
        journal.queue.append(Commit(0, record, dialogs), lambda _: None)
    await journal.close()
    # The part common to all notations, as text, as UTF-16, and as integers in a column.
    needles = [number[2:] for number in (CALLER, CALLEE, THIRD)]
    raw = disk.raw()
    for needle in needles:
        assert needle.encode() not in raw
        assert needle.encode("utf-16-le") not in raw
    for number in (CALLER, CALLEE, THIRD, *needles):
        assert int(number).to_bytes(8) not in raw
        assert int(number).to_bytes(6) not in raw
    assert b"canary" not in raw
    assert b"b1" in raw  # plain data is there, so this is the right file
