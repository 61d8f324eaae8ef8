"""Random loss, duplicates, reordering and failures: no transaction and no timer is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.sip.flow import Flow
from relay.sip.transaction import ClientTransaction, ServerTransaction
from tests.sip.virtual_time import TCP, UDP, World, request, response


class Wire:
    """Network that applies the next fate to each packet: each number is a copy's delay in seconds, an empty fate is a
    loss. Once the fates are used up every packet arrives, so that scripts end."""

    def __init__(self, fates: list[list[float]]) -> None:
        self._fates = iter(fates)
        self.due: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0

    def carry(self, now: float, arrive: Callable[[float], None]) -> None:
        for delay in next(self._fates, [0.01]):
            self._serial += 1
            self.due.append((now + delay, self._serial, arrive))


class Ladder:
    """A client and a server that act as the engine: the client acknowledges 2xx, the server retransmits them."""

    def __init__(self, method: str, plan: list[tuple[float, int]], fates: list[list[float]], flow: Flow) -> None:
        """`plan`: the server's responses, with their delay in seconds after the request."""
        self.wire = Wire(fates)
        self.client = World(on_send=self._to_server)
        self.server = World(on_send=self._to_client)
        self.method, self.plan, self.flow = method, plan, flow
        self.acknowledged = False

    def _to_server(self, data: bytes) -> None:
        self.wire.carry(self.client.now, lambda at: self._at_server(data, at))

    def _to_client(self, data: bytes) -> None:
        self.wire.carry(self.server.now, lambda at: self._at_client(data, at))

    def run(self) -> None:
        sent = self.client.request(self.method, self.flow)
        self.client.timers.set(90.0, sent.abandon)  # rings too long: its final response was lost
        while (when := self._next()) is not None:
            for world in (self.client, self.server):
                world.advance_to(when)
            arrived = sorted(item[:2] for item in self.wire.due if item[0] <= when)
            for key in arrived:
                item = next(item for item in self.wire.due if item[:2] == key)
                self.wire.due.remove(item)
                item[2](when)

    def _next(self) -> float | None:
        times = [self.client.timers.next(), self.server.timers.next(), *(item[0] for item in self.wire.due)]
        return min((when for when in times if when is not None), default=None)

    def _at_server(self, data: bytes, now: float) -> None:
        method = data.split()[0].decode()
        message = request(method)
        transaction = self.server.layer.find_server(message)
        if transaction is not None:
            transaction.receive(message, now)
        elif method == "ACK":
            self.acknowledged = True
        else:
            transaction = self.server.layer.serve(message, self.flow)
            for after, status in self.plan:
                self._respond_later(transaction, status, now + after)

    def _respond_later(self, transaction: ServerTransaction, status: int, when: float) -> None:
        def give(now: float) -> None:
            transaction.respond(status, str(status).encode(), now)
            if self.method == "INVITE" and 200 <= status < 300 and not self.acknowledged and now < when + 32:
                self.server.timers.set(now + 1.0, give)

        self.server.timers.set(when, give)

    def _at_client(self, data: bytes, now: float) -> None:
        status = int(data)
        self.client.layer.receive_response(response(status, self.method), now)
        if self.method == "INVITE" and 200 <= status < 300 and (now, status) in self.client.heard:
            self._to_server(b"ACK")

    @property
    def verdicts(self) -> set[int | str]:
        """The final outcomes reported to the client's user."""
        return {what for _, what in self.client.heard if isinstance(what, str) or what >= 200}


DELAYS = st.lists(st.floats(0.001, 3.0), max_size=3)
FATES = st.lists(DELAYS, max_size=40)
FINALS = st.sampled_from([200, 202, 302, 404, 486, 487, 503, 603])


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["INVITE", "BYE", "UPDATE"]),
    provisionals=st.lists(st.tuples(st.floats(0, 2), st.sampled_from([100, 180, 183])), max_size=3),
    final=st.tuples(st.floats(0, 5), FINALS),
    fates=FATES,
    flow=st.sampled_from([UDP, TCP]),
)
def test_loss_duplicates_and_reordering_leave_nothing_and_give_one_verdict(
    method: str, provisionals: list[tuple[float, int]], final: tuple[float, int], fates: list[list[float]], flow: Flow
) -> None:
    ladder = Ladder(method, [*provisionals, final], fates, flow)
    ladder.run()
    assert ladder.client.is_empty
    assert ladder.server.is_empty
    assert len(ladder.verdicts) <= 1
    assert ladder.verdicts <= {final[1], "timeout"}


@settings(max_examples=100, deadline=None)
@given(final=FINALS, fates=st.lists(DELAYS, max_size=5), method=st.sampled_from(["INVITE", "BYE"]))
def test_five_lost_packets_do_not_lose_the_response_over_udp(final: int, fates: list[list[float]], method: str) -> None:
    """There are more than five tries before the client gives up (timers B, F) and the server forgets (H, J, L)."""
    ladder = Ladder(method, [(0.1, final)], fates, UDP)
    ladder.run()
    assert ladder.verdicts == {final}
    assert ladder.client.is_empty
    assert ladder.server.is_empty


class Disorder:
    """One layer with any event at any time. All messages have one branch, so that they match."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.world = World()
        self.served: list[ServerTransaction] = []
        self.sent: list[ClientTransaction] = []

    def request_comes(self, method: str) -> None:
        message = request(method)
        found = self.world.layer.find_server(message)
        if found is not None:
            found.receive(message, self.world.now)
        elif method != "ACK":
            self.served.append(self.world.layer.serve(message, self.flow))

    def respond(self, status: int) -> None:
        for transaction in self.served:
            transaction.respond(status, b"x", self.world.now)

    def send(self, method: str) -> None:
        if all(transaction.method != method for transaction in self.sent):
            self.sent.append(self.world.request(method, self.flow))

    def response_comes(self, answer: tuple[int, str]) -> None:
        self.world.answer(*answer)

    def abandon(self, _: None) -> None:
        for transaction in self.sent:
            transaction.abandon(self.world.now)

    def transport_fails(self, flow: Flow) -> None:
        self.world.layer.transport_failed(flow, self.world.now)

    def wait(self, seconds: float) -> None:
        self.world.advance_to(self.world.now + seconds)

    def end(self) -> None:
        """Do the duties of the users: a final response, and abandoning a ringing INVITE."""
        self.respond(500)
        self.abandon(None)
        self.world.run_out()


STATUSES = st.sampled_from([100, 180, 200, 302, 486])
STEPS = {
    Disorder.request_comes: st.sampled_from(["INVITE", "ACK", "CANCEL", "BYE", "UPDATE"]),
    Disorder.respond: STATUSES,
    Disorder.send: st.sampled_from(["INVITE", "CANCEL", "BYE"]),
    Disorder.response_comes: st.tuples(STATUSES, st.sampled_from(["INVITE", "CANCEL", "BYE"])),
    Disorder.abandon: st.none(),
    Disorder.transport_fails: st.sampled_from([UDP, TCP]),
    Disorder.wait: st.floats(0, 40),
}
SCRIPTS = st.lists(st.one_of(*(st.tuples(st.just(step), what) for step, what in STEPS.items())), max_size=40)


@settings(max_examples=200, deadline=None)
@given(SCRIPTS, st.sampled_from([UDP, TCP]))
def test_any_messages_in_any_order_leave_nothing_behind(
    script: list[tuple[Callable[[Disorder, Any], None], Any]], flow: Flow
) -> None:
    disorder = Disorder(flow)
    for step, what in script:
        step(disorder, what)
    disorder.end()
    assert disorder.world.is_empty
    assert all(transaction.done for transaction in disorder.sent)
    assert all(transaction.answered for transaction in disorder.served)
    disorder.transport_fails(flow)  # no unanswered transaction is left there
    finals = [what for _, what in disorder.world.heard if isinstance(what, str)]
    assert len(finals) <= len(disorder.sent)
