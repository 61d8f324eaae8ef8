"""Calls in somebody else's name, and a search for the other party's number, over real sockets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.interop.conftest import PASSWORD, StartRelay, running_relay
from tests.support import postgres
from tests.support.addresses import CALLEE, SECOND_CALLEE, Address, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, Neighbour, RelayProcess, Setup, X
from tests.support.sip_text import SipText

pytestmark = pytest.mark.outside

OWN = "13700000005"
DEFAULTS = {"caller_caps": ["3/5m"], "number_caps": []}


def with_phone(password_file: Path) -> Setup:
    login = f'login = {{username = "{OWN}", password_file = "{password_file}"}}'
    return Setup(policy=DEFAULTS, more=f'\n[[peer]]\nname = "phone"\n{login}\n')


@asynccontextmanager
async def registered(relay: RelayProcess) -> AsyncIterator[Phone]:
    async with Phone(free(SECOND_CALLEE)) as phone:
        leg = Leg.calling(phone, relay.setup.relay, OWN, OWN)
        leg.target = f"sip:{relay.setup.relay}"
        await leg.request("REGISTER")
        challenge = await phone.expect(401)
        await leg.request("REGISTER", [_proof(challenge["www-authenticate"], leg.target)])
        await phone.expect(200, "REGISTER")
        yield phone


def _proof(challenge: str, uri: str) -> str:
    """RFC 7616 3.4."""
    nonce = re.findall(r'nonce="([^"]+)"', challenge)[0]
    secret, asked = _hash(f"{OWN}:relay700:{PASSWORD}"), _hash(f"REGISTER:{uri}")
    response = _hash(f"{secret}:{nonce}:00000001:ours:auth:{asked}")
    return (
        f'Authorization: Digest username="{OWN}", realm="relay700", nonce="{nonce}", uri="{uri}", algorithm=SHA-256,'
        f' response="{response}", qop=auth, nc=00000001, cnonce="ours"'
    )


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


async def final(phone: Phone, relay: Address, caller: str) -> SipText:
    """The final answer to a call to X in that name."""
    leg = Leg.calling(phone, relay, caller, X)
    branch = await leg.request("INVITE", body=SDP)
    while (answer := await phone.expect("SIP/2.0 ")).status < 200:
        pass
    leg.learn(answer)
    await leg.request("ACK", cseq=leg.cseq, branch=branch)
    return answer


async def put_through(relay: RelayProcess, caller: Phone, callee: Phone) -> None:
    call = Call(relay, caller, callee)
    await call.answer()
    await call.hang_up()


def alike(answer: SipText) -> list[str]:
    """What of an answer does not name the request."""
    names = {"via", "from", "to", "call-id", "cseq"}
    return [answer.first_line, *(f"{name}: {value}" for name, value in answer.headers if name not in names)]


async def test_a_phone_that_is_logged_in_calls_in_nobody_else_s_name(
    start_relay: StartRelay, password_file: Path
) -> None:
    """It learns nothing of who is bound, and what it tries uses up nothing of the parties'."""
    relay = start_relay(with_phone(password_file))
    relay.bind()
    async with (
        registered(relay) as phone,
        Phone(relay.setup.caller) as real,
        Phone(relay.setup.callee) as callee,
    ):
        spoofed = [await final(phone, relay.setup.relay, A) for _ in range(3)]
        others = [await final(phone, relay.setup.relay, caller) for caller in (B, "13700000006", "13700000007")]
        assert {answer.status for answer in spoofed + others} == {403}
        assert len({tuple(alike(answer)) for answer in spoofed + others}) == 1
        for _ in range(3):
            await put_through(relay, real, callee)
        assert not callee.take_arrived()
    records = relay.calls()
    forged = [record for record in records if record["peer_in"] == "phone"]
    assert {(record["outcome"], record["end_reason"], record["binding_id"]) for record in forged} == {
        ("caller_not_allowed", "caller_not_of_peer", None)
    }
    assert [record["outcome"] for record in records].count("answered") == 3


async def test_a_phone_that_searches_for_the_other_party_s_number_is_stopped(
    start_relay: StartRelay, password_file: Path
) -> None:
    relay = start_relay(with_phone(password_file))
    relay.bind()
    candidates = [f"1390000{number:04}" for number in range(16)]  # B's is among them
    assert B in candidates
    async with (
        registered(relay) as phone,
        Phone(relay.setup.caller) as real,
        Phone(relay.setup.callee) as callee,
    ):
        answers = [await final(phone, relay.setup.relay, caller) for caller in candidates]
        assert [answer.status for answer in answers] == [403] * 10 + [503] * 6
        assert 0 < int(answers[-1]["retry-after"]) <= 10
        await put_through(relay, real, callee)
    told = relay.wait_for_event("peer.refused_too_often")
    assert (told["peer"], told["number"], told["waits_s"]) == ("phone", X, {"number": 10.0})


async def test_a_search_by_a_peer_that_is_believed_ends_and_others_go_on(start_relay: StartRelay) -> None:
    """A carrier whose customers forge their numbers. A calls meanwhile by another one."""
    other = free(SECOND_CALLEE)
    setup = Setup(policy=DEFAULTS, more=Neighbour("other", other).toml())
    relay = start_relay(setup)
    relay.bind()
    async with Phone(setup.caller) as searching, Phone(other) as real, Phone(setup.callee) as callee:
        strangers = [f"1360000{number:04}" for number in range(10)]
        assert {(await final(searching, setup.relay, caller)).status for caller in strangers} == {403}
        statuses = {(await final(searching, setup.relay, caller)).status for caller in ("13600000099", A, B)}
        assert statuses == {503}
        assert not callee.take_arrived()
        await put_through(relay, real, callee)
    assert relay.statistics()["refused_too_often"] == {"number": 1}


async def test_guesses_that_a_server_is_asked_at_once_tell_no_more_than_one_by_one(tmp_path: Path) -> None:
    with postgres.new_url() as url:
        setup = Setup(policy=DEFAULTS, store={"url": url, "node": "a", "key_file": "relay.key"})
        with running_relay(tmp_path, setup) as relay:
            relay.bind()
            async with Phone(setup.caller) as searching, Phone(setup.callee) as callee:
                callers = [*(f"1360000{number:04}" for number in range(40)), A]
                for caller in callers:
                    await Leg.calling(searching, setup.relay, caller, X).request("INVITE", body=SDP)
                statuses: Counter[int] = Counter()
                while statuses.total() < len(callers):
                    status = (await searching.expect("SIP/2.0 ")).status
                    statuses[status] += status >= 200
                assert +statuses == {403: 10, 503: 31}
                assert not callee.take_arrived()


async def test_a_changed_list_of_numbers_holds_after_a_reload(start_relay: StartRelay) -> None:
    relay = start_relay(Setup(policy=DEFAULTS))
    relay.bind()
    text = relay.config.read_text()
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        for numbers, is_allowed in (('["137*"]', False), ('["1000-1999", "138*"]', True)):
            relay.config.write_text(text.replace('numbers = "any"', f"numbers = {numbers}", 1))
            assert relay.command("reload").returncode == 0
            if is_allowed:
                await put_through(relay, caller, callee)
            else:
                assert (await final(caller, relay.setup.relay, A)).status == 403


def test_a_peer_without_numbers_is_warned_of_at_the_start(start_relay: StartRelay) -> None:
    address = free(CALLEE)
    relay = start_relay(Setup(trunk=f'uri = "sip:{address};transport=udp"\nsources = ["{address.host}/32"]\n'))
    assert relay.wait_for_event("config.warning")["problem"].startswith("peer[1].numbers: missing: trunk may claim")
