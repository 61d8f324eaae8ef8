"""Matching of messages to transactions, and the table of transactions."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.sip.message import Flow, Request, Response
from relay.sip.transaction import ClientTransaction, ServerTransaction
from tests.sip.virtual_time import BRANCH, TCP, UDP, Data, World, request, response


@pytest.fixture
def world() -> World:
    return World()


# -- requests: RFC 3261 17.2.3


def test_new_request_matches_no_transaction(world: World) -> None:
    assert world.layer.find_server(request("INVITE")) is None
    assert world.layer.find_server(request("ACK")) is None
    assert world.layer.find_cancelled(request("CANCEL")) is None


@pytest.mark.parametrize("method", ["INVITE", "BYE", "CANCEL", "OPTIONS", "FOO"])
def test_retransmission_matches_its_transaction(world: World, method: str) -> None:
    transaction = world.serve(method)
    assert world.layer.find_server(request(method)) is transaction


def test_another_branch_sent_by_or_method_is_another_transaction(world: World) -> None:
    world.serve("INVITE")
    assert world.layer.find_server(request("INVITE", "z9hG4bKother")) is None
    assert world.layer.find_server(request("INVITE", sent_by="phone.test:5061")) is None
    assert world.layer.find_server(request("INVITE", sent_by="other.test:5060")) is None
    assert world.layer.find_server(request("BYE")) is None


def test_only_branch_sent_by_and_method_count_with_the_magic_cookie(world: World) -> None:
    invite = world.serve("INVITE")
    assert world.layer.find_server(request("INVITE", to_tag="x", call_id="y", cseq=9, from_tag="z")) is invite


@pytest.mark.parametrize(
    ("protocol", "sent_by"),
    [
        ("SIP/2.0/UDP", "PHONE.test:5060"),
        ("SIP/2.0/UDP", "phone.test : 5060"),
        ("SIP/2.0/UDP ", "phone.test:5060 "),
        ("SIP / 2.0 / UDP", "phone.test: 5060"),
        ("SIP/2.0/UDP\t", "phone.test:5060"),
    ],
)
def test_sent_by_is_compared_without_case_and_blanks(world: World, protocol: str, sent_by: str) -> None:
    invite = world.serve("INVITE")
    assert world.layer.find_server(request("INVITE", sent_by=sent_by, protocol=protocol)) is invite


def test_only_the_topmost_via_counts(world: World) -> None:
    invite = world.serve("INVITE")
    others = "Via: SIP/2.0/UDP behind.test;branch=z9hG4bKx\r\n"
    assert world.layer.find_server(request("INVITE", more=others)) is invite
    assert world.layer.find_server(request("INVITE", f"{BRANCH}, SIP/2.0/UDP behind.test;branch=z9hG4bKx")) is invite
    assert world.layer.find_server(request("INVITE", f"z9hG4bKx, SIP/2.0/UDP phone.test:5060;branch={BRANCH}")) is None


def test_ipv6_neighbours_are_distinguished(world: World) -> None:
    invite = world.layer.serve(request("INVITE", sent_by="[2001:db8::1]:5060"), UDP)
    assert world.layer.find_server(request("INVITE", sent_by="[2001:DB8::1]:5060")) is invite
    assert world.layer.find_server(request("INVITE", sent_by="[2001:db8::2]:5060")) is None


def test_ack_to_a_refusal_matches_the_invite(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(486, b"486", 0.0)
    assert world.layer.find_server(request("ACK", to_tag="ours")) is invite
    assert world.layer.find_server(request("ACK", "z9hG4bKother", to_tag="ours")) is None


def test_ack_to_a_2xx_matches_none_even_with_the_invites_branch(world: World) -> None:
    world.serve("INVITE").respond(200, b"200", 0.0)
    assert world.layer.find_server(request("ACK", to_tag="ours")) is None
    assert world.layer.find_server(request("ACK", "z9hG4bKits-own", to_tag="ours")) is None
    assert world.layer.find_server(request("INVITE")) is not None


def test_cancel_matches_the_invite_and_is_its_own_transaction(world: World) -> None:
    invite = world.serve("INVITE")
    cancel = request("CANCEL")
    assert world.layer.find_server(cancel) is None
    assert world.layer.find_cancelled(cancel) is invite
    served = world.layer.serve(cancel, UDP)
    served.respond(200, b"200 to CANCEL", 0.0)
    invite.respond(487, b"487", 0.0)
    world.receive("CANCEL")  # the 200 was lost
    assert world.times_of(b"200 to CANCEL") == [0.0, 0.0]
    assert world.times_of(b"487") == [0.0]
    world.receive("ACK")
    world.run_out()
    assert world.is_empty


def test_late_cancel_matches_its_invite_until_that_terminates(world: World) -> None:
    """RFC 3261 9.2: it has no effect, but is answered 200, not 481."""
    invite = world.serve("INVITE")
    invite.respond(200, b"200", 0.0)
    assert world.layer.find_cancelled(request("CANCEL")) is invite
    world.run_out()
    assert world.layer.find_cancelled(request("CANCEL")) is None


def test_cancel_does_not_match_another_invite_or_method(world: World) -> None:
    world.serve("INVITE")
    world.layer.serve(request("BYE", "z9hG4bKbye"), UDP)
    assert world.layer.find_cancelled(request("CANCEL", "z9hG4bKother")) is None
    assert world.layer.find_cancelled(request("CANCEL", "z9hG4bKbye")) is None
    assert world.layer.find_cancelled(request("CANCEL", sent_by="other.test")) is None


def test_request_with_a_malformed_via_raises_parse_error(world: World) -> None:
    nameless = Request.of("INVITE", "sip:x", [("call-id", "c")])
    with pytest.raises(ParseError):
        world.layer.find_server(nameless)


# -- RFC 2543: branches without the magic cookie

OLD = [None, "1", "old-1"]


@pytest.mark.parametrize("branch", OLD)
def test_rfc_2543_requests_match_by_all_unchanged_headers(world: World, branch: str | None) -> None:
    invite = world.layer.serve(request("INVITE", branch), UDP)
    assert world.layer.find_server(request("INVITE", branch)) is invite
    for other in (
        request("INVITE", branch, uri="sip:70010000002@relay.test"),
        request("INVITE", branch, from_tag="other"),
        request("INVITE", branch, to_tag="other"),
        request("INVITE", branch, call_id="other"),
        request("INVITE", branch, cseq=2),
        request("INVITE", branch, sent_by="other.test"),
        request("INVITE", "another"),
        request("BYE", branch),
    ):
        assert world.layer.find_server(other) is None


@pytest.mark.parametrize("branch", OLD)
@pytest.mark.parametrize("to_tag", ["", "ours"])
def test_an_rfc_2543_ack_has_the_to_tag_of_the_response(world: World, branch: str | None, to_tag: str) -> None:
    """The INVITE has none if it opens a dialog, and the same one within the dialog."""
    invite = world.layer.serve(request("INVITE", branch, to_tag=to_tag), UDP)
    invite.respond(486, b"486", 0.0)
    assert world.layer.find_server(request("ACK", branch, to_tag="ours")) is invite
    assert world.layer.find_server(request("ACK", branch, to_tag="ours", cseq=2)) is None
    assert world.layer.find_server(request("ACK", branch, to_tag="ours", call_id="other")) is None


@pytest.mark.parametrize("branch", OLD)
def test_rfc_2543_ack_to_a_2xx_matches_none(world: World, branch: str | None) -> None:
    world.layer.serve(request("INVITE", branch), UDP).respond(200, b"200", 0.0)
    assert world.layer.find_server(request("ACK", branch, to_tag="ours")) is None


@pytest.mark.parametrize("branch", OLD)
def test_rfc_2543_cancel_matches_its_invite(world: World, branch: str | None) -> None:
    invite = world.layer.serve(request("INVITE", branch), UDP)
    assert world.layer.find_cancelled(request("CANCEL", branch)) is invite
    assert world.layer.find_cancelled(request("CANCEL", branch, cseq=2)) is None


# -- responses: RFC 3261 17.1.3


def test_response_matches_the_request_with_its_branch_and_method(world: World) -> None:
    world.request("INVITE")
    world.request("CANCEL")
    assert world.answer(200, "CANCEL") is True
    assert world.answer(487, "INVITE") is True
    assert world.heard == [(0.0, 200), (0.0, 487)]


def test_response_without_a_request_is_stray(world: World) -> None:
    world.request("INVITE")
    assert world.answer(200, "INVITE", "z9hG4bKother") is False
    assert world.answer(200, "BYE") is False
    assert world.heard == []


@pytest.mark.parametrize(
    "headers",
    [
        [("cseq", "1 INVITE")],
        [("via", f"SIP/2.0/UDP relay.test;branch={BRANCH}")],
        [("via", f"SIP/2.0/UDP relay.test;branch={BRANCH}"), ("cseq", "one INVITE")],
    ],
)
def test_malformed_response_is_stray(world: World, headers: list[tuple[str, str]]) -> None:
    world.request("INVITE")
    assert world.layer.receive_response(Response.of(200, "OK", headers), 0.0) is False


# -- counts


def test_transactions_are_counted_until_they_terminate(world: World) -> None:
    assert len(world.layer) == 0
    world.serve("INVITE").respond(200, b"", 0.0)
    world.layer.serve(request("INVITE", None), UDP).respond(486, b"", 0.0)
    world.serve("BYE").respond(200, b"", 0.0)
    world.request("INVITE")
    for number in range(3):
        world.request("BYE", branch=f"z9hG4bK{number}")
    assert len(world.layer) == 7
    world.run_out()
    assert len(world.layer) == 0


# -- Server transactions in virtual time: figures 7 and 8 of RFC 3261, as amended by RFC 6026. T1 is 0.5 s

# -- INVITE


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
def test_retransmitted_request_is_absorbed_before_any_response(world: World, method: str) -> None:
    """The look-up is pending, or the commit of the record."""
    world.serve(method)
    world.receive(method)
    assert world.sent == []
    assert len(world.timers) == 0


def test_retransmitted_invite_gets_the_last_provisional_response(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(100, b"100", 0.0)
    world.receive("INVITE")
    invite.respond(180, b"180", 0.0)
    world.receive("INVITE")
    assert [data for _, data, _ in world.sent] == [b"100", b"100", b"180", b"180"]
    assert not invite.answered
    world.advance_to(3600.0)
    assert len(world.sent) == 4  # it sends nothing by itself


def test_responses_go_to_reply_to(world: World) -> None:
    elsewhere = UDP._replace(host="127.0.0.9", port=40_000)  # RFC 3581: the port the request came from
    invite = world.serve("INVITE", elsewhere)
    invite.respond(100, b"100", 0.0)
    world.receive("INVITE")
    invite.respond(486, b"486", 0.0)
    world.advance_to(0.5)
    assert [flow for _, _, flow in world.sent] == [elsewhere] * 4


def test_invites_are_absorbed_and_further_2xx_sent_until_timer_l(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(180, b"180", 0.0)
    invite.respond(200, b"200", 0.0)
    assert invite.answered
    world.advance_to(0.4)
    world.receive("INVITE")
    world.advance_to(0.5)
    invite.respond(200, b"200", 0.5)  # its user retransmits it
    world.advance_to(31.9)
    world.receive("INVITE")
    assert world.times_of(b"200") == [0.0, 0.5]
    assert world.times_of(b"180") == [0.0]
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_l_runs_on_reliable_flows_too(world: World) -> None:
    world.serve("INVITE", TCP).respond(200, b"200", 0.0)
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


@pytest.mark.parametrize(
    ("method", "late"), [*(("INVITE", late) for late in (100, 180, 486)), *(("BYE", late) for late in (100, 200, 500))]
)
def test_other_responses_are_ignored_after_a_2xx(world: World, method: str, late: int) -> None:
    transaction = world.serve(method)
    transaction.respond(200, b"200", 0.0)
    transaction.respond(late, b"late", 0.0)
    assert world.times_of(b"late") == []


@pytest.mark.parametrize("status", [302, 403, 486, 503, 603])
def test_timer_g_retransmits_a_refusal_until_timer_h(world: World, status: int) -> None:
    invite = world.serve("INVITE")
    invite.respond(status, b"no", 0.0)
    assert invite.answered
    world.run_out()
    assert world.times_of(b"no") == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert world.now == 32.0
    assert world.is_empty


def test_refusal_is_repeated_for_each_retransmitted_invite(world: World) -> None:
    invite = world.serve("INVITE")
    invite.respond(100, b"100", 0.0)
    invite.respond(486, b"486", 0.0)
    world.advance_to(0.3)
    world.receive("INVITE")
    world.advance_to(0.6)
    assert world.times_of(b"486") == [0.0, 0.3, 0.5]
    assert world.times_of(b"100") == [0.0]


def test_ack_stops_timers_g_and_h_and_starts_timer_i(world: World) -> None:
    world.serve("INVITE").respond(486, b"486", 0.0)
    world.advance_to(2.0)
    world.receive("ACK")
    world.advance_to(6.9)
    world.receive("ACK")
    world.receive("INVITE")
    assert world.times_of(b"486") == [0.0, 0.5, 1.5]
    world.run_out()
    assert world.now == 7.0  # T4
    assert world.is_empty


def test_refusal_is_sent_once_on_a_reliable_flow_with_timer_h(world: World) -> None:
    world.serve("INVITE", TCP).respond(486, b"486", 0.0)
    world.advance_to(31.9)
    assert world.times_of(b"486") == [0.0]
    assert len(world.layer) == 1
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_i_is_zero_on_a_reliable_flow(world: World) -> None:
    world.serve("INVITE", TCP).respond(486, b"486", 0.0)
    world.receive("ACK")
    assert world.is_empty


@pytest.mark.parametrize("late", [100, 180, 200, 500])
def test_other_responses_are_ignored_after_a_refusal(world: World, late: int) -> None:
    """RFC 3261 17.2.1: the first final response counts. A 200 after a 487 is the CANCEL that won."""
    invite = world.serve("INVITE")
    invite.respond(487, b"487", 0.0)
    invite.respond(late, b"late", 0.0)
    world.receive("ACK")
    invite.respond(late, b"late", 0.0)
    assert world.times_of(b"late") == []


# -- other requests


def test_retransmitted_request_gets_the_last_response(world: World) -> None:
    update = world.serve("UPDATE")
    update.respond(100, b"100", 0.0)
    world.receive("UPDATE")
    update.respond(183, b"183", 0.0)
    world.receive("UPDATE")
    update.respond(200, b"200", 0.0)
    world.receive("UPDATE")
    assert [data for _, data, _ in world.sent] == [b"100", b"100", b"183", b"183", b"200", b"200"]


@pytest.mark.parametrize("status", [200, 302, 481, 500])
@pytest.mark.parametrize("provisional", [True, False])
def test_retransmissions_are_answered_until_timer_j(world: World, status: int, provisional: bool) -> None:
    bye = world.serve("BYE")
    if provisional:
        bye.respond(100, b"100", 0.0)
    bye.respond(status, b"final", 0.0)
    assert bye.answered
    world.advance_to(31.9)
    world.receive("BYE")
    assert world.times_of(b"final") == [0.0, 31.9]  # and never by itself
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_timer_j_is_zero_on_a_reliable_flow(world: World) -> None:
    bye = world.serve("BYE", TCP)
    bye.respond(200, b"200", 0.0)
    assert world.times_of(b"200") == [0.0]
    assert bye.answered
    assert world.is_empty


# -- what is kept


class User:
    """Stands for a call."""


@pytest.mark.parametrize("provisional", [True, False])
@pytest.mark.parametrize(("method", "status"), [("INVITE", 200), ("INVITE", 486), ("BYE", 200), ("BYE", 481)])
def test_answered_transaction_keeps_no_request(world: World, method: str, status: int, provisional: bool) -> None:
    message = request(method)
    holders = sys.getrefcount(message)
    transaction = world.layer.serve(message, UDP)
    if provisional:
        transaction.respond(100, b"100", 0.0)
    assert transaction.request is message
    transaction.respond(status, b"", 0.0)
    assert sys.getrefcount(message) == holders


def test_accepted_invite_keeps_no_response(world: World) -> None:
    """Only its user retransmits the 2xx."""
    ringing, answer = Data(b"180"), Data(b"200")
    invite = world.serve("INVITE")
    invite.respond(180, ringing, 0.0)
    invite.respond(200, answer, 0.0)
    gone = ringing.gone = answer.gone
    world.sent.clear()
    del ringing, answer
    assert sorted(gone) == ["180", "200"]


def test_a_confirmed_invite_keeps_no_response(world: World) -> None:
    refusal = Data(b"486")
    world.serve("INVITE").respond(486, refusal, 0.0)
    world.receive("ACK")
    gone = refusal.gone
    world.sent.clear()
    del refusal
    assert gone == ["486"]
    assert len(world.layer) == 1


ENDS = [("INVITE", 200, False), ("INVITE", 486, False), ("INVITE", 486, True), ("BYE", 200, False)]


@pytest.mark.parametrize(("method", "status", "acknowledged"), ENDS)
def test_terminated_transaction_holds_neither_user_nor_response(
    world: World, method: str, status: int, acknowledged: bool
) -> None:
    user, final = User(), Data(b"final")
    transaction = world.serve(method)
    transaction.user = user
    transaction.respond(status, final, 0.0)
    if acknowledged:
        world.receive("ACK")
    assert transaction.user is user  # a CANCEL may still ask for it
    world.run_out()
    seen, gone = weakref.ref(user), final.gone
    world.sent.clear()
    del user, final
    gc.collect()
    assert seen() is None
    assert gone == ["final"]
    assert transaction.answered


# -- Random loss, duplicates, reordering and failures: no transaction and no timer is left behind


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


@settings(max_examples=150)
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


@settings(max_examples=100)
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


@settings(max_examples=200)
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
    finals = [what for _, what in disorder.world.heard if isinstance(what, str) and what != "lost"]
    assert len(finals) <= len(disorder.sent)
