"""Who means harm, over real sockets: banned, visibly and reversibly. What it costs is bounded, and good calls go on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import PASSWORD, StartRelay, running_relay
from tests.interop.floods import MORE_BYTES, connect, flooded, good_call, is_closed_by_relay, send_datagrams
from tests.support.addresses import CALLER, STRANGER, free
from tests.support.certificates import write_certificate
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X

METHODS = (
    "INVITE ACK BYE CANCEL OPTIONS REGISTER MESSAGE SUBSCRIBE NOTIFY PUBLISH REFER INFO PRACK UPDATE DANCE".split()
)
FLOOD = 15_000  # messages
CALLS = 500
BAN_AFTER = 100
PHONE = "127.0.0.44"  # where the peer that logs in is


def request(
    method: str,
    source: str,
    number: int,
    more: str = "",
    *,
    dialled: str = X,
    transport: str = "UDP",
    body: bytes = b"",
) -> bytes:
    head = (
        f"{method} sip:{dialled}@127.0.0.10 SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} {source}:5060;branch=z9hG4bKabuse{number};rport\r\n"
        f"From: <sip:mallory@{source}>;tag=m{number}\r\nTo: <sip:{X}@127.0.0.10>\r\nCall-ID: abuse{number}@{source}\r\n"
        f"CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:mallory@{source}>\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def of_every_method(source: str, count: int, transport: str = "UDP") -> Iterator[bytes]:
    for number in range(count):
        yield request(METHODS[number % len(METHODS)], source, number, transport=transport)


def noise(count: int) -> Iterator[bytes]:
    """What scanners, other protocols and broken programs send."""
    draw = random.Random(700)
    for number in range(count):
        yield (
            b"\0",
            b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x00\x01\x00\x00!\x12\xa4B" + draw.randbytes(12),  # STUN
            draw.randbytes(200),
            b"SIP/2.0 200 OK\r\n\r\n",
            b"INVITE sip:x SIP/2.0\r\nVia: " + b"," * 2000 + b"\r\n\r\n",
        )[number % 7]


def bans(relay: RelayProcess) -> dict[str, dict[str, Any]]:
    """By address, as an operator sees them."""
    done = relay.command("bans", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {ban["address"]: ban for ban in map(json.loads, done.stdout.splitlines())}


async def status_of(host: str, relay: RelayProcess) -> int | None:
    """What a fresh request from there is answered; None: nothing, though another address is answered meanwhile."""
    async with Phone(free(host)) as phone, Phone(free("127.0.0.67")) as other:
        for each in (phone, other):
            await each.send(request("INFO", each.local.host, random.getrandbits(60)), relay.setup.relay)
        await other.expect(403)
        arrived = [response.status for response in phone.take_arrived()]
        assert arrived in ([], [403])
        return arrived[0] if arrived else None


# -- floods


@pytest.mark.parametrize(
    "flood", [lambda: of_every_method(STRANGER, FLOOD), lambda: noise(FLOOD)], ids=["sip", "noise"]
)
async def test_a_flood_over_udp(start_relay: StartRelay, tmp_path: Path, flood: Callable[[], Iterator[bytes]]) -> None:
    relay = start_relay()
    await flooded(relay, tmp_path, lambda: send_datagrams(STRANGER, relay.setup.relay, flood()))
    statistics = relay.statistics()
    assert statistics["datagrams_banned"] > FLOOD / 2, "most of the flood never came to the relay"
    read = sum(statistics.get(name, 0) for name in ("strangers", "malformed", "responses_stray"))
    assert read <= BAN_AFTER * 2, "what is not read costs next to nothing"
    assert list(bans(relay)) == [STRANGER]
    assert await status_of(STRANGER, relay) is None
    assert relay.command("bans", "lift", STRANGER).returncode == 0
    assert await status_of(STRANGER, relay) == 403
    await asyncio.to_thread(relay.wait_for_event, "source.unbanned")  # the log is written behind the answers
    events = [event["event"] for event in relay.events() if str(event.get("event", "")).startswith("source.")]
    assert events == ["source.banned", "source.unbanned"]


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_flood_over_connections(start_relay: StartRelay, tmp_path: Path, transport: str) -> None:
    certificate = write_certificate(tmp_path)
    table = f'\n[tls]\ncertificate = "{certificate[0]}"\nkey = "{certificate[1]}"\n'
    relay = start_relay(Setup(more=table))
    at = relay.setup.relay if transport == "tcp" else free("127.0.0.10")
    if transport == "tls":
        relay.stop()
        relay.config.write_text(relay.config.read_text().replace("listen = [", f'listen = ["tls:{at}", ', 1))
        relay.start()
    tls = ssl.create_default_context(cafile=str(certificate[0])) if transport == "tls" else None

    async def flood() -> None:
        """Connects again and again, until it is not even let in."""
        sent = b"".join(of_every_method(STRANGER, BAN_AFTER * 5, transport.upper()))
        for _ in range(10):
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(*at, local_addr=(STRANGER, 0), ssl=tls)
                writer.write(sent)
                assert await is_closed_by_relay(reader)
                writer.close()

    await flooded(relay, tmp_path, flood)
    assert relay.statistics()["strangers"] <= BAN_AFTER
    assert list(bans(relay)) == [STRANGER]
    _, peer = await connect(CALLER, relay)
    peer.close()


async def test_keep_alives_without_end(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay()

    async def flood() -> None:
        for _ in range(20):
            with suppress(ConnectionError):
                reader, writer = await connect(STRANGER, relay)
                writer.write(b"\r\n\r\n" * 100_000)
                assert await is_closed_by_relay(reader)
                writer.close()

    await flooded(relay, tmp_path, flood)
    assert list(bans(relay)) == [STRANGER]


# -- connections that do nothing


async def test_ten_thousand_idle_connections(start_relay: StartRelay, tmp_path: Path) -> None:
    """From a hundred addresses: few of strangers get in, and they go when they have said nothing for a while."""
    relay = start_relay(Setup(more="\n[streams]\nmax_strangers = 200\nmessage_timeout_s = 2\n"))

    async def flood() -> None:
        readers, writers = [], []
        for number in range(10_000):
            with suppress(ConnectionError):
                reader, writer = await connect(f"127.7.0.{number % 100 + 1}", relay)
                readers.append(reader)
                writers.append(writer)
            if number % 1000 == 0:
                assert relay.statistics()["streams_from_strangers"] <= 200
        closed = await asyncio.gather(*map(is_closed_by_relay, readers))
        assert all(closed)
        for writer in writers:
            writer.close()

    await flooded(relay, tmp_path, flood)
    assert relay.statistics()["streams_from_strangers"] == 0
    _, peer = await connect(CALLER, relay)
    peer.close()


async def test_one_address_leaves_the_other_strangers_their_places(start_relay: StartRelay) -> None:
    relay = start_relay()
    held = [await connect(STRANGER, relay) for _ in range(500)]
    for _, writer in held:
        writer.write(b"\r\n\r\n")
    reader, writer = await connect("127.0.0.67", relay)
    writer.write(request("OPTIONS", "127.0.0.67", 1, transport="TCP"))
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"SIP/2.0 403")
    for _, each in (*held, (reader, writer)):
        each.close()


async def test_slow_senders(start_relay: StartRelay, tmp_path: Path) -> None:
    """A byte now and then, so that no connection is ever idle."""
    relay = start_relay(Setup(more="\n[streams]\nmessage_timeout_s = 2\n"))

    async def drip() -> None:
        with suppress(ConnectionError):
            reader, writer = await connect(STRANGER, relay)
            closed = asyncio.ensure_future(is_closed_by_relay(reader))
            for byte in request("OPTIONS", STRANGER, 1, transport="TCP"):
                writer.write(bytes([byte]))
                await asyncio.wait([closed], timeout=0.2)
                if closed.done():
                    break
            assert await closed
            writer.close()

    async def flood() -> None:
        await asyncio.gather(*(drip() for _ in range(50)))

    await flooded(relay, tmp_path, flood)
    assert list(bans(relay)) == [STRANGER]


# -- peers that log in


class Guesser:
    """Somebody who tries passwords, as a phone would give them (RFC 2617 with MD5)."""

    def __init__(self, phone: Phone, relay: RelayProcess) -> None:
        self._phone = phone
        self._relay = relay
        self._number = random.getrandbits(60)

    async def tries(self, password: str) -> int:
        """The status; 0 where nothing comes: there are only so many challenges a second, or none."""
        await self._sends("")
        try:
            challenge = await self._phone.expect(401, timeout_s=1)
        except AssertionError:
            return 0
        await self._sends(self._credentials(challenge["www-authenticate"], password))
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                return (await self._phone.expect_call(f"abuse{self._number}@{self._phone.local.host}")).status
        return 0

    async def _sends(self, more: str) -> None:
        self._number += 1
        contact = f"Contact: <sip:1001@{self._phone.local}>\r\nExpires: 120\r\n"
        text = request("REGISTER", self._phone.local.host, self._number).decode()
        text = re.sub(r"Contact: .*\r\n", lambda _: contact + more, text, count=1)
        await self._phone.send(
            text.replace(":5060;branch", f":{self._phone.local.port};branch").encode(), self._relay.setup.relay
        )

    @staticmethod
    def _credentials(challenge: str, password: str) -> str:
        realm, nonce = (re.search(f'{name}="([^"]*)"', challenge) for name in ("realm", "nonce"))
        assert realm and nonce
        uri = f"sip:{X}@127.0.0.10"

        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        response = md5(f"{md5(f'1001:{realm[1]}:{password}')}:{nonce[1]}:00000001:c:auth:{md5(f'REGISTER:{uri}')}")
        return (
            f'Authorization: Digest username="1001",realm="{realm[1]}",nonce="{nonce[1]}",uri="{uri}",qop=auth,'
            f'nc=00000001,cnonce="c",algorithm=MD5,response="{response}"\r\n'
        )


@asynccontextmanager
async def with_login(start_relay: StartRelay, password_file: Path) -> AsyncIterator[tuple[RelayProcess, Phone]]:
    """A relay with a peer that logs in, and that peer's phone."""
    login = f'login = {{username = "1001", password_file = "{password_file}"}}\n'
    setup = Setup(sip={"login_algorithms": ["MD5"]}, more=f'\n[[peer]]\nname = "phone"\n{login}')
    async with Phone(free(PHONE)) as phone:
        yield start_relay(setup), phone


async def test_guessed_passwords(start_relay: StartRelay, tmp_path: Path, password_file: Path) -> None:
    async with with_login(start_relay, password_file) as (relay, phone), Phone(free(STRANGER)) as stranger:
        await asyncio.to_thread(relay.bind)
        assert await Guesser(phone, relay).tries(PASSWORD) == 200
        guessed = 0
        while not bans(relay):
            guessed += await Guesser(stranger, relay).tries(f"guess{guessed}") == 401
        assert guessed <= BAN_AFTER / 10
        assert await Guesser(stranger, relay).tries(PASSWORD) == 0
        assert {ban["address"]: ban["reason"] for ban in bans(relay).values()} == {STRANGER: "wrong password"}
        await good_call(relay, tmp_path, "during")
        assert await Guesser(phone, relay).tries(PASSWORD) == 200


async def test_a_flood_in_the_name_of_a_phone_that_has_not_registered(
    start_relay: StartRelay, tmp_path: Path, password_file: Path
) -> None:
    """Its source is forged: the nonces go to the phone. When the flood is over the phone is heard."""
    async with with_login(start_relay, password_file) as (relay, phone):
        forged = (request("REGISTER", PHONE, number) for number in range(FLOOD))
        await flooded(relay, tmp_path, lambda: send_datagrams(PHONE, relay.setup.relay, forged))
        # What is dropped while the relay is behind is not among them: at times more than half of it.
        assert relay.statistics()["datagrams_banned"] > FLOOD / 5, "a flood is not read"
        assert bans(relay) == {}
        while await Guesser(phone, relay).tries(PASSWORD) != 200:  # until the second is over
            phone.take_arrived()
        assert relay.statistics()["logins"] == 1


# -- peers that send nonsense


def broken_descriptions(count: int) -> Iterator[bytes]:
    """Real ones with bytes lost, doubled and changed."""
    draw = random.Random(4566)
    for _ in range(count):
        body = bytearray(SDP)
        for _ in range(draw.randrange(1, 12)):
            at = draw.randrange(len(body))
            match draw.randrange(5):
                case 0:
                    del body[at : at + draw.randrange(20)]
                case 1:
                    body[at:at] = body[at : at + 20] * draw.randrange(1, 30)
                case 2:
                    body[at] = draw.randrange(256)
                case 3:
                    body[at:at] = b"%d" % draw.getrandbits(draw.choice([8, 32, 64, 2000]))
                case _:
                    body[at:at] = draw.choice(
                        [b"\r", b"\n", b"\0", b"\r\n\r\n", b"m=audio 0 RTP/AVP\r\n", b"a=" + b"x" * 3000]
                    )
        yield bytes(body)


async def test_broken_descriptions_of_a_peer(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(sip={"ring_timeout_s": 2, "t1_ms": 50}))
    await asyncio.to_thread(relay.bind)
    await good_call(relay, tmp_path, "before")
    at_first = relay.resident_bytes
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee):
        for body in broken_descriptions(CALLS):
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            await leg.request("INVITE", body=body)
            await caller.expect_call(leg.call_id)  # as fast as they are taken
        statistics = await asyncio.to_thread(relay.wait_until_idle, 60)
    assert statistics["bugs"] == 0
    assert bans(relay) == {}
    assert relay.resident_bytes - at_first < MORE_BYTES
    await good_call(relay, tmp_path, "after")
    outcomes = [record["outcome"] for record in relay.calls()]
    assert len(outcomes) == CALLS + 2
    assert outcomes.count("answered") == 2
    assert relay.verify()


SMUGGLED = request("INVITE", CALLER, 99, f"X-Smuggled: {B}\r\n", transport="TCP")
SMUGGLING = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "two lengths, one short": b"l: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "a list": b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED),
    "a sign": b"Content-Length: +%d\r\n\r\n" % len(SMUGGLED),
    "hexadecimal": b"Content-Length: 0x%x\r\n\r\n" % len(SMUGGLED),
    "folded": b"Content-Length:\r\n 0\r\n %d\r\n\r\n" % len(SMUGGLED),
    "a blank before the colon": b"Content-Length : 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "bare LF": b"X: y\nContent-Length: 0\n\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "bare CR": b"X: y\rContent-Length: 0\r\rContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "NUL": b"Content-Length: 0\0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "a vertical tab": b"Content-Length: \x0b0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
    "chunked": b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED),
}


@pytest.fixture(scope="module")
def smuggled_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    with running_relay(tmp_path_factory.mktemp("smuggled"), Setup(sip={"ring_timeout_s": 2})) as relay:
        relay.bind()
        yield relay


@pytest.mark.parametrize("how", SMUGGLING, ids=lambda how: how.replace(" ", "_"))
async def test_what_is_within_a_body_is_no_message(smuggled_to: RelayProcess, how: str) -> None:
    """A first request whose length two readers may take differently, and one that only one of them would see."""
    relay = smuggled_to
    first = request("OPTIONS", CALLER, 1, transport="TCP").replace(b"Content-Length: 0\r\n\r\n", SMUGGLING[how])
    async with Phone(relay.setup.callee) as callee:
        reader, writer = await connect(CALLER, relay)
        writer.write(first + SMUGGLED)
        answered = b""
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(5):
                while b"OPTIONS" not in answered and (part := await reader.read(65_536)):
                    answered += part
        writer.close()
        assert b"abuse99@" not in answered
        assert callee.take_arrived() == []
    assert relay.calls() == []


HOSTILE_NUMBERS = [
    "13800000001'; DROP TABLE binding;--",
    "13800000001' OR '1'='1",
    '13800000001") UNION SELECT * FROM key --',
    "$(touch hacked)",
    "`touch hacked`",
    "13800000001|touch hacked",
    "13800000001;touch hacked",
    "../../../../etc/passwd",
    "%00%0d%0aX-Evil:%201",
    "13800000001%27",
    "{0.__class__}",
    "%s%s%s%n",
    "１３８００００００００１",
    "9" * 4000,
    "-1",
    "+",
    "",
]


@pytest.mark.parametrize("place", ["caller", "dialled"])
async def test_numbers_that_try_sql_or_a_shell(start_relay: StartRelay, tmp_path: Path, place: str) -> None:
    relay = start_relay()
    await asyncio.to_thread(relay.bind)
    async with Phone(relay.setup.caller) as caller:
        for hostile in HOSTILE_NUMBERS:
            escaped = re.sub(r"[^A-Za-z0-9%&=+$,;?/._!~*'()-]", lambda sign: f"%{ord(sign[0]) & 0xFF:02x}", hostile)
            for text in {hostile, escaped}:
                numbers = (text, X) if place == "caller" else (A, text)
                leg = Leg.calling(caller, relay.setup.relay, *numbers)
                branch = await leg.request("INVITE", body=SDP)
                answer = await caller.expect_call(leg.call_id)
                while answer.status < 200:
                    answer = await caller.expect_call(leg.call_id)
                assert 400 <= answer.status < 700, text
                leg.learn(answer)
                await leg.request("ACK", branch=branch, cseq=1)
    assert not (relay.folder / "hacked").exists()
    assert "answered" not in {record["outcome"] for record in relay.calls()}
    await good_call(relay, tmp_path, "after")
    assert relay.verify()


def test_numbers_on_the_command_line_that_try_sql_or_a_shell(start_relay: StartRelay) -> None:
    relay = start_relay()
    digits = "１３８００００００００１"  # in any script they are digits
    for hostile in [each for each in HOSTILE_NUMBERS if each and not each.startswith("-") and each != digits]:
        assert relay.command("bind", "AXB", "--a", hostile, "--b", B, "--x", X).returncode == 1, hostile
        assert relay.command("calls", "list", "--number", hostile).returncode == 2, hostile
    assert relay.command("bindings", "list").stdout.count("\n") == 1, "only the heading"
    assert not (relay.folder / "hacked").exists()


# -- what an operator does


async def test_an_operator_bans_an_address_by_himself(start_relay: StartRelay) -> None:
    relay = start_relay()
    assert await status_of(STRANGER, relay) == 403
    done = relay.command("bans", "add", STRANGER, "--for", "1h", "--reason", "case 114")
    assert done.returncode == 0, done.stderr
    assert await status_of(STRANGER, relay) is None
    refused = relay.command("bans", "add", CALLER, "--for", "1h")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "configuration" in refused.stderr
    assert relay.command("bans", "lift", "--all").returncode == 0
    assert await status_of(STRANGER, relay) == 403
    actions = [json.loads(line)["action"] for line in relay.command("audit", "list", "--json").stdout.splitlines()]
    assert {"ban.add", "ban.lift"} <= set(actions)
