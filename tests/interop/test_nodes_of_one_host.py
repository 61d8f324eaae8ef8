"""Two nodes of one host behind Kamailio, as docs/NODES.md has them: one is killed under load, and no call is lost.

SIPp places calls through Kamailio all the time. First the node is started again at once, as systemd does; then it stays
away until the other one has taken over its calls, and comes back while these are up.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support import postgres
from tests.support.addresses import CALLEE, CALLER, RELAY, free
from tests.support.kamailio import Kamailio
from tests.support.relay_process import A, B, RelayProcess, Setup
from tests.support.sip_text import SipText
from tests.support.sipp import Sipp, Traffic
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

MANUAL = Path(__file__).parents[2] / "docs" / "NODES.md"
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
EDGE, SECOND_RELAY = "127.0.0.30", "127.0.0.9"
NUMBERS = [f"70010000001{n:04}" for n in range(1, 21)]  # enough for each node to have some
CALLS_PER_SECOND = 10
HELD_MS = 20_000  # longer than it takes to notice that a node is gone
UP = 20  # calls at each node before anything happens
TOO_MANY = 100_000  # calls: SIPp is told when it is enough
TIMEOUT_S = 280

# Nothing is shed for having waited, and the numbers are called again and again.
FOR_THE_TEST = """
[limits]
shed_lag_ms = 0

[policy]
caller_caps = []
number_caps = []
refused_per_number = 0
refused_per_caller = 0

[log]
format = "json"
"""

CALLER_LADDER = f"""
    > INVITE sdp
    < 100?
    < 180?
    < 200
    > ACK
    pause {HELD_MS}
    > BYE
    < 481? last
    < 408? last
    < 200
"""
CALLEE_LADDER = """
    < INVITE
    > 180
        [last_Record-Route:]
    > 200 sdp
        [last_Record-Route:]
    < ACK
    < BYE
    > 200
    timewait 4000
"""


class Node(Setup):
    """The manual's configuration, at the addresses of this test; `caller` is Kamailio."""

    def toml(self, folder: Path) -> str:
        text = EXAMPLE
        for there, here in (
            ("[sip]\n", "[sip]\nt1_ms = 200\n"),
            ("ping_s = 30\n", ""),  # its timer is none that is left behind
            ("192.0.2.11:5060", str(self.relay)),
            ("192.0.2.30:5060", str(self.caller)),
            ("127.0.0.1:8700", str(self.api)),
            ("postgresql:///relay700?host=/run/postgresql", self.store["url"]),
            ('node = "a"', f'node = "{folder.name}"'),
        ):
            assert text.count(there) == 1, there
            text = text.replace(there, here)
        return text + FOR_THE_TEST


class Host:
    """Its two nodes, and the load."""

    def __init__(self, folder: Path, url: str) -> None:
        self.edge, self.pbx, self.carrier = free(EDGE), free(CALLER), free(CALLEE)
        self.url = url
        self.folder = folder
        self.first, self.second = self._node("a", RELAY), self._node("b", SECOND_RELAY)

    def _node(self, name: str, host: str) -> RelayProcess:
        own = self.folder / name
        own.mkdir()
        return RelayProcess(own, Node(free(host), self.edge, [], api=free(host), store={"url": self.url}))

    def start(self) -> None:
        """The first makes the key, and the second gets a copy. The backend of the first is the one that works."""
        self.first.start()
        self.first.wait_for_event("backend.ready")
        shutil.copy(self.first.folder / "relay.key", self.second.folder)
        self.second.start()
        self.first.import_bindings([(number, A, B) for number in NUMBERS])

    def load(self) -> tuple[Sipp, Sipp]:
        """The caller and the callee. Either answers the question whether it is still there (-aa)."""
        options = ["-aa", "-l", str(TOO_MANY)]
        callee = Sipp(
            self.folder, "callee", CALLEE_LADDER, self.carrier, calls=TOO_MANY, timeout_s=TIMEOUT_S, options=options
        )
        caller = Sipp(
            self.folder, "caller", CALLER_LADDER, self.pbx, calls_to=self.edge,
            numbers=[(A, number) for number in NUMBERS], calls=TOO_MANY, rate=CALLS_PER_SECOND,
            timeout_s=TIMEOUT_S, options=options,
        )  # fmt: skip
        return caller, callee

    def up_at(self, name: str) -> set[str]:
        """The calls of a node, by call_id, as the store has them."""
        with psycopg.connect(self.url) as store:
            return {call_id for (call_id,) in store.execute("SELECT call_id FROM live_call WHERE node = %s", [name])}

    def serves_the_api(self) -> bool:
        """Whether the second node does; a node that stands by answers 503."""
        api = self.second.setup.api
        with urllib.request.urlopen(f"http://{api}/openapi.json", timeout=10) as answer:
            return bool(answer.status == 200)

    async def busy(self, besides: set[str]) -> None:
        """Each node has got calls besides these."""
        await until_seen(lambda: all(len(self.up_at(name) - besides) >= UP for name in ("a", "b")))

    async def is_killed_and_started(self) -> set[str]:
        """The calls that were up there: they are those of the node that is back, unless that took 5 s and more."""
        mark = len(self.second.log().splitlines())
        await asyncio.to_thread(self.first.kill)
        calls = self.up_at("a")
        began = len(self.first.log().splitlines())
        await asyncio.to_thread(self.first.start)
        restored = self.first.wait_for_event("relay.ready", after=began)["calls_restored"]
        if not restored:
            restored = self.second.wait_for_event("node.taken_over", after=mark)["calls"]
        assert restored == len(calls) >= UP
        await asyncio.to_thread(self.second.wait_for_event, "backend.ready", after=mark)
        assert await asyncio.to_thread(self.serves_the_api)
        return calls

    async def is_killed_and_stays_away(self) -> set[str]:
        """The calls that were up there: they are the other node's, and so are all that come until it is back."""
        mark, before = len(self.second.log().splitlines()), self.up_at("b")
        await asyncio.to_thread(self.first.kill)
        calls = self.up_at("a")
        taken = await asyncio.to_thread(self.second.wait_for_event, "node.taken_over", after=mark)
        assert taken["calls"] == len(calls) >= UP
        await until_seen(lambda: len(self.up_at("b") - before - calls) >= UP)
        assert self.up_at("a") == set()
        await asyncio.to_thread(self.first.start)
        await until_seen(lambda: self.up_at("a"))
        return calls


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with postgres.new_url() as url, ExitStack() as stack:
        made = Host(tmp_path, url)
        for node in (made.first, made.second):
            stack.callback(node.stop_if_running)
        made.start()
        yield made


@pytest.mark.timeout(TIMEOUT_S + 60)
async def test_a_node_that_is_killed_under_load_loses_no_call(host: Host, tmp_path: Path) -> None:
    relays = host.first.setup.relay, host.second.setup.relay
    async with Kamailio(tmp_path / "edge", host.edge, relays, host.carrier, host.pbx):
        caller, callee = await asyncio.to_thread(host.load)
        try:
            await host.busy(set())
            in_progress = [await host.is_killed_and_started()]
            await host.busy(in_progress[0])
            in_progress.append(await host.is_killed_and_stays_away())
            caller.no_more_calls()
            calls = await asyncio.to_thread(caller.finish, TIMEOUT_S)
            for node in (host.first, host.second):
                await asyncio.to_thread(node.wait_until_idle, 60)
        except BaseException:
            print(host.first.log_tail(), host.second.log_tail())
            raise
        finally:
            caller.stop()
            callee.stop()
    host.first.verify()
    check(host.first.calls(), calls, callee.traffic(), in_progress)
    for node in (host.first, host.second):
        assert node.stop() == 0
        node.assert_nothing_in_clear()
        assert "Traceback" not in node.log()


def check(records: list[dict[str, Any]], calls: Traffic, called: Traffic, in_progress: list[set[str]]) -> None:
    """Each call was answered, and has one record, beside those of attempts that a kill ended, or Kamailio, and that it
    made anew. The callee may have answered such an attempt at that moment: it is then hung up.

    `in_progress`: the call_ids of those that were up where a node was killed, at each kill. A BYE that comes before
    anybody has taken its call up is answered 481, or 408 by Kamailio, which waits two seconds for a node. That call
    ends when its sides are asked whether they are there.
    """
    by_caller, by_callee = _by(records, "caller_leg_call_id"), _by(records, "callee_leg_call_id")
    placed = _call_ids(calls.sent, "INVITE")
    assert _call_ids(calls.received, "200", "INVITE") == placed
    assert by_caller.keys() == placed
    answered = {}
    for call_id in placed:
        (answered[call_id],) = [record for record in by_caller[call_id] if record["outcome"] == "answered"]
        others = [record["end_reason"] for record in by_caller[call_id] if record is not answered[call_id]]
        assert others in ([], ["lost_at_restart"], ["cancel"]), by_caller[call_id]
    hung_up_at = _call_ids(called.received, "BYE")
    for call_id in _call_ids(called.received, "ACK"):
        (record,) = by_callee[call_id]
        if record["outcome"] != "answered":
            assert record["end_reason"] in ("lost_at_restart", "cancel"), record
            assert call_id in hung_up_at, record
    hung_up = _call_ids(calls.received, "200", "BYE")
    not_taken_up = _call_ids(calls.received, "481", "BYE") | _call_ids(calls.received, "408", "BYE")
    assert hung_up | not_taken_up == placed
    assert {answered[call_id]["ended_by"] for call_id in hung_up} == {"caller"}
    went_on = {answered[call_id]["call_id"] for call_id in hung_up}
    for of_one_kill in in_progress:
        assert of_one_kill <= {record["call_id"] for record in answered.values()}
        assert len(of_one_kill & went_on) > len(of_one_kill) / 2


def test_calls_that_are_lost_doubled_or_do_not_go_on_are_found() -> None:
    """The book-keeping above must be able to fail."""
    placed = [f"call-{n}" for n in range(3)]
    records = [
        {
            "call_id": f"id-{n}",
            "caller_leg_call_id": call_id,
            "callee_leg_call_id": f"of {call_id}",
            "outcome": "answered",
            "ended_by": "caller",
            "end_reason": "bye",
        }
        for n, call_id in enumerate(placed)
    ]
    lost = {**records[0], "outcome": "failed", "end_reason": "lost_at_restart", "callee_leg_call_id": None}
    sent = [_message("INVITE sip:x SIP/2.0", "1 INVITE", call_id) for call_id in placed]
    got = [_message("SIP/2.0 200 OK", cseq, call_id) for call_id in placed for cseq in ("1 INVITE", "2 BYE")]
    acks = [_message("ACK sip:x SIP/2.0", "1 ACK", f"of {call_id}") for call_id in placed]

    crossed = {**lost, "callee_leg_call_id": "crossed"}
    ack = _message("ACK sip:x SIP/2.0", "1 ACK", "crossed")
    bye = _message("BYE sip:x SIP/2.0", "2 BYE", "crossed")

    def checked(records: list[dict[str, Any]], received: list[SipText] = got, *more: SipText) -> None:
        check(records, Traffic(sent, received, b""), Traffic([], [*acks, *more], b""), [{"id-0", "id-1", "id-2"}])

    checked([*records, lost])
    checked([*records, crossed], got, ack, bye)
    gone = [message for message in got if message.method != "BYE"]
    gone += [_message("SIP/2.0 481 Gone", "2 BYE", call_id) for call_id in placed]
    for broken in (
        (records[1:],),
        ([*records, records[0]],),
        ([*records, {**lost, "end_reason": "bye"}],),
        ([*records, {**lost, "caller_leg_call_id": "another"}],),
        ([{**records[0], "ended_by": "relay"}, *records[1:]],),
        ([{**records[0], "callee_leg_call_id": "another"}, *records[1:]],),
        (records, got[1:]),
        (records, got[:-1]),
        (records, gone),
        ([*records, crossed], got, ack),
        ([*records, {**crossed, "end_reason": "declined"}], got, ack, bye),
    ):
        with pytest.raises((AssertionError, ValueError)):
            checked(*broken)


def _message(first_line: str, cseq: str, call_id: str) -> SipText:
    return SipText(first_line, [("cseq", cseq), ("call-id", call_id)], b"")


def _by(records: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if record[name]:
            found[record[name]].append(record)
    return found


def _call_ids(messages: list[SipText], kind: str, to: str = "") -> set[str]:
    """Of those of that method or status; `to`: of what the response answers."""
    return {
        message["call-id"]
        for message in messages
        if kind == str(message.status or message.method) and message["cseq"].endswith(to)
    }
