"""Two workers of one relay: what they count together, and what one must know of the other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from relay.call.actions import Registered
from relay.call.counts import ANNOUNCING
from relay.call.engine import Engine
from relay.call.routing import Refusal, Route
from relay.call.settings import Account, Announcements, Limits, Quota
from relay.net.shared import SharedCounts, make_region
from relay.sip.flow import Flow
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import CALLEE_HOST, CALLER_HOST, A, B, Ladder, X, Y, connect, hang_up, peer
from tests.ladder.test_logins import (
    CARRIER,
    PBX,
    PHONE,
    PHONE_HOST,
    asks_to_register,
    challenged,
    credentials,
    registers,
)

BUSY = Refusal("number_busy", 503, 42, 5)
SECRET = bytes(range(16))
WORKERS = 2


class Worker(Ladder):
    """The ladder of one of them."""

    def __init__(self, crew: Crew, index: int, *arguments: object, **settings: object) -> None:
        self._crew = crew
        self.index = index
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]

    def _make_tokens(self) -> Iterator[str]:
        for token in super()._make_tokens():
            yield f"{self.index:x}{token[1:]}"

    def _start(self) -> Engine:
        counts = SharedCounts(self._crew.region, self.index, WORKERS)
        return Engine(self.settings, lambda: next(self._tokens), 1_800_000_000.0, counts, SECRET)

    def tell_mates(self, told: Registered) -> None:
        self._crew.told.append(told)
        if not self._crew.holds_words:
            self.mates_hear(told)

    def mates_hear(self, told: Registered) -> None:
        for worker in self._crew.workers:
            if worker is not self:
                worker.engine.registered(told, worker.now)
                worker.perform()
        if told.token:
            self.engine.mates_know(told.token, self.now)
            self.perform()


class Crew:
    """Both of them, with the same settings and the same peers; each side has a user agent at each."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        self.region = make_region(WORKERS)
        self.told: list[Registered] = []
        self.holds_words = False
        self.workers: list[Worker] = []
        self.workers = [Worker(self, index, *arguments, **settings) for index in range(WORKERS)]

    def __enter__(self) -> list[Worker]:
        return self.workers

    def __exit__(self, *_: object) -> None:
        os.close(self.region)
        for worker in self.workers:
            worker.settle()


def is_refused(worker: Ladder, outcome: str) -> None:
    """A further call there; that which the caller is in stays as it is."""
    caller, names = worker.caller, ("call_id", "tag", "cseq", "remote_tag", "from_uri", "to_uri", "target")
    before = {name: getattr(caller, name) for name in names}
    caller.call_id += "x"
    caller.tag += "x"
    caller.calls(X)
    caller.is_refused(503)
    vars(caller).update(before)
    assert [record.outcome for record, _ in worker.records.values() if record.sip_status == 503][-1] == outcome


def is_taken(worker: Ladder) -> None:
    worker.caller.call_id += "y"
    worker.caller.tag += "y"
    connect(worker)


@pytest.mark.parametrize(
    "settings",
    [
        {"peers": (peer("pbx", CALLER_HOST, quota_in=Quota(max_calls=1)), peer("carrier", CALLEE_HOST))},
        {"peers": (peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, quota_out=Quota(max_calls=1)))},
        {"limits": Limits(max_calls_per_peer=1)},
        {"limits": Limits(max_calls=1)},
    ],
)
def test_a_limit_of_calls_holds_for_both_together(settings: dict[str, object]) -> None:
    with Crew(**settings) as (first, second):
        connect(first)
        is_refused(second, "over_limit")
        first.caller.sends("BYE")
        first.callee.expects("BYE")
        first.caller.get(200)
        is_taken(second)
        is_refused(first, "over_limit")
        hang_up(second)


def test_a_call_that_is_not_answered_yet_counts_too() -> None:
    with Crew(limits=Limits(max_calls=1)) as (first, second):
        first.caller.calls(X)
        first.callee.expects("INVITE", 180)
        first.caller.get(180)
        is_refused(second, "over_limit")
        first.callee.accepts(body=ANSWER)
        first.caller.is_answered()
        is_refused(second, "over_limit")
        hang_up(first)


@pytest.mark.parametrize("way", ["quota_in", "quota_out"])
def test_a_rate_of_a_peer_holds_for_both_together(way: str) -> None:
    pbx, carrier = peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST)
    slow = {way: Quota(max_cps=1)}
    pbx = peer("pbx", CALLER_HOST, **slow) if way == "quota_in" else pbx
    carrier = peer("carrier", CALLEE_HOST, **slow) if way == "quota_out" else carrier
    with Crew(peers=(pbx, carrier)) as (first, second):
        connect(first)
        is_refused(second, "over_limit")
        second.run(1.1)
        is_taken(second)
        for worker in (first, second):
            hang_up(worker)


def test_the_calls_of_a_binding_at_its_two_numbers_count_together() -> None:
    caps = (("binding b1", 1, BUSY),)
    routes = {
        (X, A): Route("b1", "AXYB", "firm", "order-1", B, Y, caps=caps),
        (Y, A): Route("b1", "AXYB", "firm", "order-1", B, X, caps=caps),
    }
    with Crew(routes) as (first, second):
        first.caller.calls(Y)
        first.callee.get("INVITE")
        is_refused(second, "number_busy")
        first.callee.refuses(486)
        first.caller.is_refused(486)
        is_taken(second)
        hang_up(second)


def test_our_own_invite_that_comes_back_to_the_other_worker() -> None:
    """RFC 3261 16.3, 4: the number in it may be another's."""
    with Crew() as (first, second):
        first.caller.calls(X)
        first.callee.get("INVITE")
        via = b"Via: SIP/2.0/UDP 127.0.0.22:5060;branch=z9hG4bKloop\r\n"
        second.deliver(first.callee.received[-1].replace(b"Via:", via + b"Via:", 1), second.callee.flow)
        second.callee.get(482)
        first.callee.refuses(486)
        first.caller.is_refused(486)


def test_a_worker_in_the_place_of_one_that_died_counts_the_calls_that_it_takes_up() -> None:
    with Crew(limits=Limits(max_calls=2)) as (first, second):
        connect(first)
        second.caller.invites(X)  # it dies with the worker
        second.caller.get(100)
        second.callee.get("INVITE")
        is_refused(first, "over_limit")
        second.restart()
        is_taken(second)
        is_refused(first, "over_limit")
        second.restart()
        for side in (second.caller, second.callee):
            side.expects("OPTIONS")
        is_refused(first, "over_limit")
        hang_up(second)
        hang_up(first)


def test_each_keeps_its_part_of_what_bounds_it_alone() -> None:
    limits = Limits(max_calls=7, max_pending_lookups=5, max_transactions=9, stranger_answers_per_s=0)
    with Crew(limits=limits) as workers:
        for worker in workers:
            for _ in range(2):
                assert worker.engine.settings.limits == Limits(
                    max_calls=7, max_pending_lookups=3, max_transactions=5, stranger_answers_per_s=0
                )
                worker.engine.reload(worker.settings, {}, worker.now)


class AnnouncingLadder(AnchoredLadder):
    """Of the first worker, while a refused caller of the second one hears why."""

    def _start(self) -> Engine:
        region = make_region(WORKERS)
        counts = SharedCounts(region, 0, WORKERS)
        SharedCounts(region, 1, WORKERS).stages.begin(ANNOUNCING)
        os.close(region)
        return Engine(self.settings, lambda: next(self._tokens), 0.0, counts, SECRET)


@pytest.mark.parametrize(("most", "answer"), [(1, 403), (2, 183)])
def test_refused_callers_who_hear_why_count_together(most: int, answer: int) -> None:
    ladder = AnnouncingLadder(routes={}, announcements=Announcements(refused=True, max_at_once=most))
    ladder.caller.calls(X)
    ladder.caller.get(answer)


def test_the_first_worker_alone_registers_at_trunks() -> None:
    trunk = peer("carrier", CALLEE_HOST, account=Account("relay", "secret"), registers=True)
    with Crew(peers=(PBX, trunk)) as (first, second):
        for worker in (first, second):
            worker.engine.locate({}, worker.now)
            worker.perform()
        second.callee.gets_nothing()
        first.callee.expects("REGISTER")
        first.engine.unregister(first.now)
        first.perform()
        first.callee.expects("REGISTER")


# -- peers that register: REGISTER requests go to the first worker


@pytest.fixture
def called() -> Iterator[Crew]:
    crew = Crew(callee_host=PHONE_HOST, peers=(PBX, PHONE), tried=("phone",))
    with crew:
        yield crew


def test_a_peer_that_registers_at_the_first_worker_is_called_by_the_second(called: Crew) -> None:
    first, second = called.workers
    assert registers(first.callee).status == 200
    assert [told.expires_at for told in called.told] == [1100.0]
    connect(second)
    hang_up(second)
    assert [note.event for note in first.notes] == ["login.registered"]
    assert not second.notes
    assert [worker.engine.statistics()["logins"] for worker in called.workers] == [1, 0]


@pytest.mark.parametrize("expires", ["100", "0"])
def test_its_register_is_answered_once_the_second_worker_knows(called: Crew, expires: str) -> None:
    """Whoever has the 200 may be called, whichever worker carries the call; or he is called no more."""
    first = called.workers[0]
    registers(first.callee)
    called.holds_words = True
    asks_to_register(first.callee, expires=expires)
    line = credentials(first.callee, "REGISTER", challenged(first.callee)["SHA-256"])
    asks_to_register(first.callee, line, expires=expires)
    first.callee.sends_again("REGISTER")
    first.callee.gets_nothing()
    first.mates_hear(called.told[-1])
    first.callee.get(200)
    first.callee.sends_again("REGISTER")
    first.callee.get(200)
    assert len(called.told) == 2


def test_a_register_that_changes_nothing_waits_for_nobody(called: Crew) -> None:
    """RFC 3261 10.2.3: without a Contact it asks where the peer is."""
    first = called.workers[0]
    registers(first.callee)
    called.holds_words = True
    asks_to_register(first.callee)
    line = credentials(first.callee, "REGISTER", challenged(first.callee)["SHA-256"])
    first.callee.sends("REGISTER", headers=line)
    assert first.callee.get_response(200).get("contact") == f"{first.callee.contact};expires=100"
    assert len(called.told) == 1


def test_its_requests_are_its_own_at_the_second_worker_too() -> None:
    with Crew(caller_host=PHONE_HOST, peers=(PHONE, CARRIER)) as (first, second):
        registers(first.caller)
        connect(second)
        assert second.record.peer_in == "phone"
        hang_up(second)


def test_it_is_gone_at_both_when_its_time_is_over(called: Crew) -> None:
    first, second = called.workers
    registers(first.callee)
    for worker in called.workers:
        worker.run(101)
        assert not worker.engine.peers(worker.now)[1].registered
    assert [note.event for note in first.notes] == ["login.registered", "login.ended"]
    assert not second.notes
    assert len(called.told) == 1


def test_it_goes_on_when_it_registers_again(called: Crew) -> None:
    first, second = called.workers
    registers(first.callee)
    for worker in called.workers:
        worker.run(50)
    registers(first.callee)
    for worker in called.workers:
        worker.run(99)
        assert worker.engine.peers(worker.now)[1].registered
    connect(second)
    hang_up(second)


def test_it_is_gone_at_both_when_it_leaves(called: Crew) -> None:
    first = called.workers[0]
    registers(first.callee)
    registers(first.callee, expires="0")
    assert not any(worker.engine.peers(worker.now)[1].registered for worker in called.workers)
    assert called.told[-1].expires_at is None


def test_a_connection_that_either_finds_lost_is_lost_for_both(called: Crew) -> None:
    first, second = called.workers
    for worker in called.workers:
        worker.callee.flow = Flow(1, "tcp", PHONE_HOST, 40_000, 5)
    registers(first.callee)
    second.transport_fails(first.callee.flow)
    assert not any(worker.engine.peers(worker.now)[1].registered for worker in called.workers)
    assert first.notes[-1].fields == {"peer": "phone", "reason": "connection"}


def test_a_connection_that_was_lost_before_it_registered_anew_is_told_in_vain(called: Crew) -> None:
    first = called.workers[0]
    registers(first.callee)
    gone = called.told[0]._replace(expires_at=None)
    first.engine.registered(gone._replace(flow=Flow(1, "tcp", PHONE_HOST, 1, 4)), first.now)
    first.engine.registered(gone._replace(contact="sip:before@there"), first.now)
    connect(first)
    hang_up(first)


def test_what_is_told_of_a_peer_that_does_not_log_in_or_is_over_changes_nothing(called: Crew) -> None:
    second = called.workers[1]
    told = Registered("phone", "sip:bob@127.0.0.44", second.callee.flow, 1100.0)
    for other in (
        told._replace(peer="pbx"),
        told._replace(peer="nobody"),
        told._replace(expires_at=None),
        told._replace(expires_at=1000.0),
    ):
        second.engine.registered(other, second.now)
    assert not second.engine.peers(second.now)[1].registered
    assert second.engine.next_timeout() is None


def test_a_challenge_of_one_worker_is_answered_at_the_other() -> None:
    with Crew(caller_host=PHONE_HOST, peers=(PHONE, CARRIER)) as (first, second):
        first.caller.invites(X)
        challenge = challenged(first.caller)["SHA-256"]
        second.caller.invites(X, headers=credentials(first.caller, "INVITE", challenge))
        is_declined(second)


def test_wrong_passwords_of_one_source_count_together() -> None:
    with Crew(caller_host=PHONE_HOST, peers=(PHONE, CARRIER), limits=Limits(stranger_answers_per_s=1000)) as workers:
        for turn in range(10):
            asks(workers[turn % 2], password="wrong")
            workers[turn % 2].caller.get(401)
        for worker in workers:
            asks(worker)  # not even looked at
            worker.caller.get(401)
        for worker in workers:
            worker.run(61)
        for worker in workers:
            asks(worker)
            is_declined(worker)


def asks(worker: Ladder, password: str = "secret") -> None:
    """An INVITE with the credentials that were asked for."""
    caller = worker.caller
    caller.call_id += "x"
    caller.tag += "x"
    caller.invites(X)
    challenge = challenged(caller)["SHA-256"]
    caller.invites(X, headers=credentials(caller, "INVITE", challenge, password=password))


def is_declined(worker: Ladder) -> None:
    """It goes through, and the callee wants none of it."""
    worker.caller.get(100)
    worker.callee.get("INVITE")
    worker.callee.refuses(486)
    worker.caller.is_refused(486)
