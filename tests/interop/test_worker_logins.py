"""A peer that logs in at one of two workers: from its 200 on it is called by both, whatever befalls them meanwhile."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.addresses import CALLEE, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import RelayProcess, Setup
from tests.support.waiting import until
from tests.support.workers import NUMBERS, A, StartWorkers, kill

pytestmark = pytest.mark.outside

PASSWORD = "open-sesame"


@pytest.fixture
def relay(start_workers: StartWorkers, tmp_path: Path) -> RelayProcess:
    password_file = tmp_path / "password"
    password_file.touch(0o600)
    password_file.write_text(f"{PASSWORD}\n")
    login = f'login = {{username = "1001", password_file = "{password_file}"}}\n'
    return start_workers(Setup(trunk=login, sip={"t1_ms": 200}))


@pytest.fixture
async def phone() -> AsyncIterator[Phone]:
    async with Phone(free(CALLEE)) as phone:
        yield phone


class Login:
    """The phone's REGISTER, which the first worker has taken and the second one, stopped, has not heard of."""

    def __init__(self, relay: RelayProcess, phone: Phone) -> None:
        self.relay = relay
        self._leg = self._registering(phone)
        self._phone = phone
        self._proof: list[str] = []
        self._branch = ""

    def _registering(self, phone: Phone) -> Leg:
        leg = Leg.calling(phone, self.relay.setup.relay, "1001", "1001")
        leg.target = f"sip:{self.relay.setup.relay}"
        return leg

    async def challenge(self) -> None:
        await self._leg.request("REGISTER")
        challenge = await self._phone.expect(401)
        self._proof = [_proof(challenge["www-authenticate"], self._leg.target)]

    async def answer(self) -> None:
        self._branch = await self._leg.request("REGISTER", self._proof)

    async def begin(self) -> None:
        await self.challenge()
        os.kill(self.relay.worker_pids()[1], signal.SIGSTOP)
        await self.answer()
        other = self._registering(self._phone)
        await other.request("REGISTER")
        await self._phone.expect_call(other.call_id)  # all that the first worker had to send before has come
        assert not self._phone.take_arrived()

    async def send_again(self) -> None:
        await self._leg.request("REGISTER", self._proof, branch=self._branch, cseq=self._leg.cseq)

    async def is_called(self) -> None:
        """By the second worker."""
        await self._phone.expect(200, "REGISTER")
        async with Phone(self.relay.setup.caller) as caller:
            call = Call(self.relay, caller, self._phone, A, NUMBERS[1])
            await call.answer()
            await call.hang_up()


def _proof(challenge: str, uri: str) -> str:
    """RFC 7616 3.4."""
    nonce = re.findall(r'nonce="([^"]+)"', challenge)[0]
    secret, asked = _hash(f"1001:relay700:{PASSWORD}"), _hash(f"REGISTER:{uri}")
    response = _hash(f"{secret}:{nonce}:00000001:ours:auth:{asked}")
    return (
        f'Authorization: Digest username="1001", realm="relay700", nonce="{nonce}", uri="{uri}", algorithm=SHA-256,'
        f' response="{response}", qop=auth, nc=00000001, cnonce="ours"'
    )


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


async def test_its_200_waits_for_the_second_worker(relay: RelayProcess, phone: Phone) -> None:
    login = Login(relay, phone)
    await login.begin()
    os.kill(relay.worker_pids()[1], signal.SIGCONT)
    await login.is_called()


async def test_its_200_does_not_wait_for_a_worker_that_dies(relay: RelayProcess, phone: Phone) -> None:
    login = Login(relay, phone)
    await login.begin()
    kill(relay, 1)
    await login.is_called()


async def test_it_has_its_200_of_the_successor_where_the_first_dies(relay: RelayProcess, phone: Phone) -> None:
    login = Login(relay, phone)
    await login.begin()
    kill(relay, 0)
    os.kill(relay.worker_pids()[1], signal.SIGCONT)
    await login.send_again()
    await login.is_called()


async def test_a_successor_knows_of_it_before_it_takes_the_first_call(relay: RelayProcess, phone: Phone) -> None:
    login = Login(relay, phone)
    await login.challenge()
    before = _workers(relay)
    kill(relay, 1)
    await until(lambda: _workers(relay) - before)
    (successor,) = _workers(relay) - before
    os.kill(successor, signal.SIGSTOP)  # long before it listens
    await login.answer()
    await phone.expect(200, "REGISTER")
    async with Phone(relay.setup.caller) as caller:
        call = Call(relay, caller, phone, A, NUMBERS[1])
        await call.leg.request("INVITE", body=SDP)  # waits in the socket that it inherits
        os.kill(successor, signal.SIGCONT)
        await phone.expect("INVITE")


def _workers(relay: RelayProcess) -> set[int]:
    children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()}
