"""Several targets of one peer: order of trial, and the delay caused by a dead one."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.model.settings import Health, Target
from relay.peers.peers import TargetReport
from relay.sip.message import Flow
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, hang_up
from tests.ladder.settings import CALLER_HOST, SECOND_HOST, A, B, X, peer
from tests.ladder.side import Side

FIRST, THIRD = "127.0.0.22", "127.0.0.24"
HOSTS = (FIRST, SECOND_HOST, THIRD)


class Targets(Ladder):
    """One peer with three targets, tried in this order."""

    def __init__(self, **health: float) -> None:
        targets = tuple(Target(host, 5060, "udp", host, priority) for priority, host in enumerate(HOSTS))
        sources = tuple(ip_network(host) for host in HOSTS)
        carrier = peer(
            "carrier",
            FIRST,
            targets=targets,
            sources=sources,
            health=Health(**health),  # type: ignore[arg-type]
        )
        super().__init__(peers=(peer("pbx", CALLER_HOST), carrier, peer("second", "127.0.0.25")))
        for host, name in zip(HOSTS[1:], ("carol", "dave"), strict=True):
            self.side(host, name)

    def called(self) -> Side:
        """The hosts that got an INVITE."""
        (side,) = [side for side in self.sides.values() if side.inbox and side is not self.caller]
        side.get("INVITE")
        return side

    def call(self) -> Side:
        """Make a call; returns the side that gets the INVITE."""
        self.caller.call_id += "x"
        self.caller.tag += "x"
        self.caller.calls(X)
        return self.called()

    def give_up(self, side: Side) -> None:
        side.refuses(486)
        self.caller.is_refused(486)

    def states(self) -> list[str]:
        return [target.state for target in self.targets()]

    def targets(self) -> tuple[TargetReport, ...]:
        (carrier,) = [peer for peer in self.engine.peers(self.now) if peer.peer == "carrier"]
        return carrier.targets

    def starts_pings(self) -> None:
        self.engine.locate({}, self.now)
        self.perform()

    def events(self) -> list[tuple[str, object]]:
        return [(note.event, note.fields["target"]) for note in self.notes if note.event.startswith("target.")]


@pytest.fixture
def ladder() -> Targets:
    return Targets()


def test_dead_target_then_503_then_answer(ladder: Targets) -> None:
    """Failover adds no_progress_s for the dead target, and nothing for the 503."""
    began = ladder.now
    ladder.caller.calls(X)
    first = ladder.called()
    ladder.run(6.0)
    first.inbox.clear()
    second = ladder.called()
    second.refuses(503, headers="Retry-After: 120\r\n")
    third = ladder.called()
    assert ladder.now - began == 6.0
    third.accepts(body=ANSWER)
    ladder.caller.is_answered()
    assert (ladder.record.peer_out, ladder.record.callee_leg_call_id) == ("carrier", third.call_id)
    assert third.invite is not None
    assert third.invite.uri == f"sip:{B[2:]}@{THIRD}"
    assert ladder.states() == ["up", "aside", "up"]  # a single failure does not change the state
    ladder.callee = third
    hang_up(ladder)


def test_unreachable_target_causes_no_delay(ladder: Targets) -> None:
    ladder.unreachable = {("udp", FIRST), ("udp", SECOND_HOST)}
    ladder.give_up(ladder.call())
    ladder.settle()


def test_target_is_tried_last_after_two_failures_and_first_again_later(ladder: Targets) -> None:
    ladder.unreachable = {("udp", FIRST)}
    for _ in range(3):
        side = ladder.call()
        assert side.host == SECOND_HOST
        ladder.give_up(side)
    assert ladder.states() == ["aside", "up", "up"]
    assert ladder.events() == [("target.aside", f"udp:{FIRST}:5060")]
    assert ladder.notes[-1].fields == {
        **{"peer": "carrier", "target": f"udp:{FIRST}:5060", "reason": "no_answer", "for_s": 30.0}
    }
    ladder.unreachable = {("udp", SECOND_HOST), ("udp", THIRD)}
    side = ladder.call()
    assert side.host == FIRST  # last, but not never
    ladder.give_up(side)
    ladder.unreachable.clear()
    ladder.run(30)
    side = ladder.call()
    assert side.host == FIRST
    ladder.give_up(side)
    ladder.run(200)


def test_silence_counts_as_a_failure(ladder: Targets) -> None:
    for _ in range(2):
        side = ladder.call()
        assert side.host == FIRST
        ladder.run(6.0)
        side.inbox.clear()
        ladder.give_up(ladder.called())
    assert ladder.states() == ["aside", "up", "up"]
    ladder.callee.inbox.clear()
    assert ladder.call().host == SECOND_HOST


def test_retry_after_sets_the_target_aside_and_a_plain_503_does_not(ladder: Targets) -> None:
    side = ladder.call()
    side.refuses(503)
    ladder.give_up(ladder.called())
    assert ladder.states() == ["up", "up", "up"]
    side = ladder.call()
    assert side.host == FIRST
    side.refuses(503, headers="Retry-After: 20\r\n")
    ladder.give_up(ladder.called())
    assert ladder.events() == [("target.aside", f"udp:{FIRST}:5060")]
    ladder.run(19.9)
    side = ladder.call()
    assert side.host == SECOND_HOST
    ladder.give_up(side)
    ladder.run(0.1)
    side = ladder.call()
    assert side.host == FIRST
    ladder.give_up(side)
    ladder.run(200)


def test_lost_connection_fails_over(ladder: Targets) -> None:
    side = ladder.call()
    ladder.transport_fails(side.flow)
    assert ladder.called().host == SECOND_HOST


def test_next_peer_is_tried_after_the_last_target() -> None:
    ladder = Targets()
    ladder.restart(routes=(type(ladder.settings.routes[0])("", ("carrier", "second")),))
    ladder.side("127.0.0.25", "erin")
    ladder.unreachable = {("udp", host) for host in HOSTS}
    assert ladder.call().host == "127.0.0.25"


# -- pings


def pinged(ladder: Targets) -> list[Side]:
    return [side for side in ladder.sides.values() if side.inbox and side is not ladder.caller]


def answer_pings(ladder: Targets, status: int = 200, but: str = "", **answer: str) -> None:
    for side in pinged(ladder):
        if side.host == but:
            side.inbox.clear()
        while side.inbox:
            side.expects("OPTIONS", status, **answer)


def test_pings_contain_no_numbers(ladder: Targets) -> None:
    ladder = Targets(ping_s=10)
    ladder.starts_pings()
    ladder.run(1.0)
    assert len(pinged(ladder)) == 3
    request = ladder.callee.get_request("OPTIONS")
    assert [name for name, _ in request.headers] == [
        *("via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "content-length")
    ]
    assert (request.uri, request.get("to")) == (f"sip:{FIRST}", f"<sip:{FIRST}>")


def test_unresponsive_target_is_down_until_it_responds() -> None:
    ladder = Targets(ping_s=10, down_after=2, up_after=2)
    ladder.starts_pings()
    ladder.run(1.0)
    answer_pings(ladder, but=FIRST)
    ladder.run(10)
    assert ladder.states() == ["up", "up", "up"]
    answer_pings(ladder, but=FIRST)
    ladder.run(10)
    assert ladder.states() == ["down", "up", "up"]
    answer_pings(ladder, but=FIRST)
    side = ladder.call()
    assert side.host == SECOND_HOST
    ladder.give_up(side)
    ladder.run(3.9)  # the pending OPTIONS is retransmitted
    answer_pings(ladder)
    assert ladder.states() == ["down", "up", "up"]
    ladder.run(10)
    answer_pings(ladder)
    assert ladder.states() == ["up", "up", "up"]
    assert ladder.events() == [("target.down", f"udp:{FIRST}:5060"), ("target.up", f"udp:{FIRST}:5060")]


def test_new_dns_targets_are_pinged_at_the_next_interval() -> None:
    ladder = Targets(ping_s=10, down_after=1)
    ladder.starts_pings()
    ladder.run(0.1)
    answer_pings(ladder)
    ladder.engine.locate({"carrier": (Target(THIRD, 5070, "udp", "carrier.example"),)}, ladder.now)
    ladder.perform()
    assert pinged(ladder) == []
    ladder.run(10)
    (third,) = pinged(ladder)
    assert (third.host, third.inbox[0][1].port) == (THIRD, 5070)
    assert third.get_request("OPTIONS").uri == "sip:carrier.example"


@pytest.mark.parametrize("contact", ["", "<sip:bob@carrier.example>"])
def test_dialog_with_a_target_located_by_srv_goes_to_its_address(contact: str) -> None:
    """The address of the name itself is another host's."""
    carrier = peer("carrier", FIRST, targets=(Target("carrier.example", 5060, "udp", "carrier.example", search="srv"),))
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), carrier))
    ladder.engine.locate({"carrier": (Target(FIRST, 5070, "udp", "carrier.example"),)}, ladder.now)
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=ANSWER, contact=contact)
    assert [flow for _, flow in ladder.callee.inbox] == [Flow(0, "udp", FIRST, 5070)]
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)


def test_response_to_a_call_counts_as_alive() -> None:
    ladder = Targets(ping_s=60, down_after=1)
    ladder.unreachable = {("udp", host) for host in HOSTS}
    ladder.starts_pings()
    ladder.run(1.0)
    assert ladder.states() == ["down"] * 3
    ladder.unreachable.clear()
    ladder.give_up(ladder.call())
    assert ladder.states() == ["up", "down", "down"]


@pytest.mark.parametrize(
    ("status", "state"), [(200, "up"), (404, "up"), (405, "up"), (501, "up"), (408, "down"), (503, "down")]
)
def test_ping_response_status_decides_health(status: int, state: str) -> None:
    ladder = Targets(ping_s=10, down_after=1)
    ladder.starts_pings()
    ladder.run(1.0)
    answer_pings(ladder, status)
    assert ladder.states() == [state] * 3


def test_503_with_retry_after_to_a_ping_sets_the_target_aside() -> None:
    ladder = Targets(ping_s=10, down_after=1)
    ladder.starts_pings()
    ladder.run(1.0)
    answer_pings(ladder, 503, headers="Retry-After: 30\r\n")
    ladder.run(10)
    answer_pings(ladder)
    assert ladder.states() == ["aside"] * 3
    first, *_ = ladder.targets()
    assert first.target == f"udp:{FIRST}:5060"
    assert 29 * 1000 < (first.aside_until or 0) - (ladder.now + 1_800_000_000 - 10) * 1000 < 31 * 1000


def test_pings_rarer_than_timer_f_are_counted_once_each() -> None:
    ladder = Targets(ping_s=60, down_after=2)
    ladder.starts_pings()
    ladder.run(59)
    assert ladder.states() == ["up"] * 3
    ladder.run(60)
    assert ladder.states() == ["down"] * 3


def test_transport_errors_of_pings_count_at_once() -> None:
    ladder = Targets(ping_s=10, down_after=1)
    ladder.unreachable.add(("udp", FIRST))
    ladder.starts_pings()
    ladder.run(1.0)
    assert ladder.states() == ["down", "up", "up"]
    assert A[2:] not in str(ladder.notes)
