"""A malformed header in any message of a call: nothing is raised or left behind."""

from __future__ import annotations

import re
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.message import Flow
from tests.ladder.phones import Callee, Caller, LossyLadder, Phone

HEADERS = (
    "Via From To Call-ID CSeq Contact Content-Type Content-Length Max-Forwards Require Supported Allow RSeq RAck"
    " Session-Expires Min-SE Record-Route Reason P-Asserted-Identity X-Other"
).split()
GARBAGE = (
    *("", ",", ";", "<", ">", '"', "\\", "=", "*", "%", "[::", ";;;", "\x00", "\xff\xfe"),
    *("-1", "99999999999999999999", "a b c", "INVITE", "1 INVITE", "1 BYE", "x" * 2000),
    *("sip:", "<sip:@>", "<tel:110>", "<sip:bob@127.0.0.22>;tag="),
)


class TamperedLadder(LossyLadder):
    """From `first` on, `count` messages to the relay have the header replaced or added."""

    def __init__(self, first: int, count: int, header: str, value: str) -> None:
        super().__init__([])
        self._first, self._count = first, count
        self._line = f"{header}: {value}\r\n".encode("utf-8", "surrogateescape")
        self._find = re.compile(rb"(?mi)^%b:.*\r\n" % header.encode())
        self._delivered = 0

    def deliver(self, data: bytes, flow: Flow) -> None:
        if self._first <= self._delivered < self._first + self._count:
            head, blank, body = data.partition(b"\r\n\r\n")
            start, _, lines = (head + b"\r\n").partition(b"\r\n")
            lines = self._line + self._find.sub(b"", lines)
            data = start + b"\r\n" + lines + blank[2:] + body
        self._delivered += 1
        super().deliver(data, flow)

    def _send(self, data: bytes, flow: Flow) -> None:
        """The relay echoes the malformed header, which the checks of the wire cannot parse."""
        phone = self.sides[flow.host]
        assert isinstance(phone, Phone)

        def arrive() -> None:
            with suppress(ParseError):
                phone.receive(data)

        self.after(0.01, arrive)


@settings(max_examples=300)
@given(
    first=st.integers(0, 25),
    count=st.sampled_from([1, 1, 2, 1000]),
    header=st.sampled_from(HEADERS),
    value=st.sampled_from(GARBAGE) | st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20),
    callee_ends=st.booleans(),
)
@example(first=0, count=1, header="Require", value='"', callee_ends=False)
@example(first=0, count=1, header="From", value="<sip:a@b>;tag", callee_ends=False)
def test_malformed_header_in_any_message_leaves_nothing_behind(
    first: int, count: int, header: str, value: str, callee_ends: bool
) -> None:
    ladder = TamperedLadder(first, count, header, value)
    caller, callee = ladder.caller, ladder.callee
    assert isinstance(caller, Caller)
    assert isinstance(callee, Callee)
    callee.rings_s = 1.0
    caller.call()
    for when, event in (
        (2.0, lambda: caller.ask("INFO", body=b"1", content_type="application/dtmf") if caller.up else None),
        (3.0, caller.hold),
        (4.0, callee.hold),
        (5.0, lambda: callee.ask("UPDATE", headers=f"Contact: {callee.contact}\r\n") if callee.up else None),
        (6.0, callee.bye if callee_ends else caller.bye),
        (40.0, caller.cancel),
        (150.0, caller.bye),
        (151.0, callee.bye),
    ):
        ladder.after(when, event)
    ladder.run(160.0)
    ladder.engine.hang_up_all(ladder.now)  # every BYE may have been malformed
    ladder.perform()
    ladder.run(400.0)
    ladder.check_nothing_left()
    assert all(record.ended_at is not None for record, _ in ladder.records.values())
