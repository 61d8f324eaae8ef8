"""Whole calls between two phones through a running relay, and what each side saw of the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import RelayProcess
from tests.support.sip_text import SipText


class Ends(NamedTuple):
    """A relay and the phones on both its sides. Numbers 86138... are at `left`, 86139... at `right`."""

    relay: RelayProcess
    left: Phone
    right: Phone

    def phones(self, caller: str) -> tuple[Phone, Phone]:
        """The caller's phone and the callee's."""
        return (self.left, self.right) if caller.startswith("138") else (self.right, self.left)


class Seen(NamedTuple):
    """One call as its two ends saw it."""

    shown: str  # caller number seen by the callee
    called: str  # callee's number in the INVITE to it
    by_caller: bytes  # all that the caller's phone received
    by_callee: bytes


class Talk(NamedTuple):
    """A live call."""

    phone: Phone  # the caller's
    other: Phone
    near: Leg
    far: Leg
    invite: SipText  # as received by the callee

    async def hang_up(self) -> None:
        """Hang up on the caller's side."""
        await self.near.request("BYE")
        await self.far.answer(await self.other.expect("BYE"), 200)
        await self.phone.expect(200, "BYE")

    async def is_hung_up(self) -> None:
        """Wait for a hang-up by the relay."""
        for phone, leg in ((self.phone, self.near), (self.other, self.far)):
            bye = await phone.expect("BYE")
            assert bye["call-id"] == leg.call_id
            await leg.answer(bye, 200)


async def connect(ends: Ends, caller: str, number: str) -> Talk:
    """Make a call that is answered."""
    phone, other = ends.phones(caller)
    leg = Leg.calling(phone, ends.relay.setup.relay, caller, number)
    await leg.request("INVITE", body=SDP)
    invite = await other.expect("INVITE")
    far = Leg.called(other, ends.relay.setup.relay, invite)
    await far.answer(invite, 180)
    await phone.expect(180)
    await far.answer(invite, 200, body=SDP)
    leg.learn(await phone.expect(200, "INVITE"))
    await leg.request("ACK", cseq=1)
    await other.expect("ACK")
    return Talk(phone, other, leg, far, invite)


async def call(ends: Ends, caller: str, number: str) -> Seen:
    """Make a call that is answered and hung up by the caller."""
    phone, other = ends.phones(caller)
    marks = len(phone.raw_received), len(other.raw_received)
    talk = await connect(ends, caller, number)
    await talk.hang_up()
    by_caller, by_callee = phone.raw_received[marks[0] :], other.raw_received[marks[1] :]
    return Seen(user_of(talk.invite["from"]), user_of(talk.invite.uri), bytes(by_caller), bytes(by_callee))


async def refused(ends: Ends, caller: str, number: str, *, anonymous: bool = False) -> SipText:
    """The final answer to a failed call."""
    phone, other = ends.phones(caller)
    leg = Leg.calling(phone, ends.relay.setup.relay, "anonymous" if anonymous else caller, number)
    branch = await leg.request("INVITE", body=SDP)
    answer = await phone.expect_call(leg.call_id)
    while answer.status < 200:
        answer = await phone.expect_call(leg.call_id)
    await leg.request("ACK", branch=branch, cseq=1)
    assert not [message for message in other.take_arrived() if message.first_line.startswith("INVITE")]
    return answer


def user_of(value: str) -> str:
    """The user part of a SIP URI, alone or in a name-addr."""
    found = re.search(r"sips?:([^@;>]+)@", value)
    assert found, value
    return found[1]


def assert_sees_none_of(data: bytes, numbers: Iterable[str]) -> None:
    """Assert that a phone received no real number, in any notation."""
    for number in numbers:
        assert number[-10:].encode() not in data, f"a phone saw {number}:\n{data.decode(errors='replace')}"
