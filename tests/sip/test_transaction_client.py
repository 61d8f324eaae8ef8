"""Client transactions in virtual time: figures 5 and 6 of RFC 3261, as amended by RFC 6026. T1 is 0.5 s."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from relay.sip.message import Flow, Response
from relay.sip.timers import Timings
from tests.sip.virtual_time import BRANCH, TCP, UDP, Call, Data, World, response

INVITE_TIMES = [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
BYE_TIMES = [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]


@pytest.fixture
def world() -> World:
    return World()


# -- every request


@pytest.mark.parametrize(("method", "times"), [("INVITE", INVITE_TIMES), ("BYE", BYE_TIMES)])
def test_request_is_retransmitted_until_it_times_out(world: World, method: str, times: list[float]) -> None:
    """Timers A and B: doubling intervals; timers E and F: intervals up to T2."""
    transaction = world.request(method)
    world.run_out()
    assert world.times_of(method.encode()) == times
    assert world.heard == [(32.0, "timeout")]
    assert transaction.done
    assert world.is_empty


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
def test_request_is_sent_once_on_a_reliable_flow_and_times_out(world: World, method: str) -> None:
    world.request(method, TCP)
    world.run_out()
    assert world.times_of(method.encode()) == [0.0]
    assert world.heard == [(32.0, "timeout")]
    assert world.is_empty


# -- INVITE


def test_lost_invite_and_lost_100_cost_one_retransmission_each(world: World) -> None:
    world.request("INVITE")  # lost
    world.advance_to(1.6)  # the 100 to the INVITE at 0.5 s is lost, the one at 1.5 s arrives
    world.answer(100)
    world.advance_to(31.9)
    assert world.times_of(b"INVITE") == [0.0, 0.5, 1.5]
    assert world.heard == [(1.6, 100)]


def test_provisional_response_stops_timers_a_and_b(world: World) -> None:
    invite = world.request("INVITE")
    assert not invite.proceeding
    world.answer(100)
    world.answer(180)
    world.answer(180)
    assert len(world.timers) == 0
    world.advance_to(3600.0)
    assert world.times_of(b"INVITE") == [0.0]
    assert [what for _, what in world.heard] == [100, 180, 180]
    assert invite.proceeding
    assert not invite.done


@pytest.mark.parametrize(("status", "sent"), [(487, [b"ACK 487"]), (200, [])])
def test_adopted_invite_is_not_sent_again_and_gets_its_response(world: World, status: int, sent: list[bytes]) -> None:
    invite = world.take_up()
    assert invite.proceeding
    invite.abandon(world.now)
    assert world.answer(status)
    assert world.heard == [(0.0, status)]
    world.run_out()
    assert [data for _, data, _ in world.sent] == sent
    assert world.is_empty


@pytest.mark.parametrize("flow", [UDP, TCP])
def test_adopted_invite_fails_64_t1_after_its_cancel(world: World, flow: Flow) -> None:
    world.take_up(flow).abandon(world.now)
    world.run_out()
    assert world.heard == [(32.0, "timeout")]
    assert not world.sent
    assert world.is_empty


def test_every_2xx_is_reported_until_timer_m(world: World) -> None:
    invite = world.request("INVITE")
    world.answer(180)
    world.answer(200)
    assert invite.done
    world.advance_to(4.0)
    world.answer(200)  # retransmitted: our ACK was lost
    world.advance_to(31.9)
    world.answer(202)  # of another fork
    assert [what for _, what in world.heard] == [180, 200, 200, 202]
    world.advance_to(32.0)
    assert world.answer(200) is False
    assert world.is_empty
    assert world.times_of(b"INVITE") == [0.0]  # the ACK to a 2xx is the user's


def test_timer_m_runs_on_reliable_flows_too(world: World) -> None:
    world.request("INVITE", TCP)
    world.answer(200)
    world.advance_to(31.9)
    assert world.answer(200) is True
    world.run_out()
    assert world.now == 32.0
    assert world.is_empty


def test_2xx_without_a_provisional_response_is_accepted(world: World) -> None:
    world.request("INVITE")
    world.answer(200)
    world.run_out()
    assert world.heard == [(0.0, 200)]
    assert world.times_of(b"INVITE") == [0.0]


@pytest.mark.parametrize("status", [300, 302, 401, 486, 503, 603])
def test_refusal_is_acknowledged_each_time_and_reported_once(world: World, status: int) -> None:
    invite = world.request("INVITE")
    world.answer(100)
    world.advance_to(1.0)
    world.answer(status)
    assert invite.done
    for when in (1.5, 2.5, 4.5, 31.9):  # the ACK is lost: remote timer G
        world.advance_to(when)
        assert world.answer(status) is True
    ack = b"ACK %d" % status
    assert world.times_of(ack) == [1.0, 1.5, 2.5, 4.5, 31.9]
    assert {flow for _, data, flow in world.sent if data == ack} == {UDP}
    assert world.heard == [(0.0, 100), (1.0, status)]
    world.run_out()
    assert world.now == 33.0  # timer D
    assert world.answer(status) is False
    assert world.is_empty


def test_ack_is_built_once_and_sent_before_the_report(world: World) -> None:
    built: list[int] = []
    sent_before: list[int] = []

    def ack(refusal: Response) -> bytes:
        built.append(refusal.status)
        return b"ACK"

    def heard(_: Response, __: float) -> None:
        sent_before.append(len(world.sent))

    world.layer.request("INVITE", BRANCH, b"INVITE", UDP, heard, lambda *_: None, 0.0, ack)
    world.answer(486)
    world.answer(486)
    assert built == [486]
    assert sent_before == [2]  # the INVITE and the ACK


def test_invite_without_an_ack_builder_sends_nothing_on_a_refusal(world: World) -> None:
    heard: list[int] = []
    world.layer.request(
        "INVITE", BRANCH, b"INVITE", UDP, lambda refusal, _: heard.append(refusal.status), lambda *_: None, 0.0
    )
    world.answer(486)
    world.answer(486)
    assert heard == [486]
    assert [data for _, data, _ in world.sent] == [b"INVITE"]


def test_timer_d_is_zero_on_a_reliable_flow(world: World) -> None:
    world.request("INVITE", TCP)
    world.answer(486)
    assert world.times_of(b"ACK 486") == [0.0]
    assert world.heard == [(0.0, 486)]
    assert world.is_empty


def test_timer_d_is_32_seconds_even_if_t1_is_short() -> None:
    world = World(Timings(t1=0.01))
    world.request("INVITE")
    world.answer(486)
    world.run_out()
    assert world.now == 32.0


@pytest.mark.parametrize(
    ("final", "late"), [*((486, late) for late in (100, 180, 200)), *((200, late) for late in (100, 180, 486))]
)
def test_after_the_final_response_others_are_absorbed(world: World, final: int, late: int) -> None:
    world.request("INVITE")
    world.answer(final)
    sent = len(world.sent)
    assert world.answer(late) is True
    assert [what for _, what in world.heard] == [final]
    assert len(world.sent) == sent


def test_cancelled_invite_fails_after_64_t1_without_a_response(world: World) -> None:
    invite = world.request("INVITE")
    world.answer(180)
    world.advance_to(10.0)
    invite.abandon(10.0)
    world.advance_to(20.0)
    invite.abandon(20.0)  # does not postpone it
    world.answer(180)  # nor does this
    world.run_out()
    assert world.heard[-1] == (42.0, "timeout")
    assert world.is_empty


@pytest.mark.parametrize(("status", "end"), [(487, 43.0), (200, 43.0)])
def test_cancelled_invite_completes_normally_when_answered(world: World, status: int, end: float) -> None:
    """200: the answer crossed the CANCEL. 487: the CANCEL was in time."""
    invite = world.request("INVITE")
    world.answer(180)
    world.advance_to(10.0)
    invite.abandon(10.0)
    world.advance_to(11.0)
    world.answer(status)
    world.run_out()
    assert world.heard[-1] == (11.0, status)
    assert world.now == end
    assert world.is_empty


def test_abandon_has_no_effect_before_a_provisional_and_after_the_final_response(world: World) -> None:
    invite = world.request("INVITE")
    world.advance_to(5.0)
    invite.abandon(5.0)
    world.run_out()
    assert world.times_of(b"INVITE") == INVITE_TIMES
    assert world.heard == [(32.0, "timeout")]

    answered = World()
    invite = answered.request("INVITE")
    answered.answer(200)
    answered.advance_to(5.0)
    invite.abandon(5.0)
    answered.run_out()
    assert answered.now == 32.0
    assert answered.heard == [(0.0, 200)]


# -- other requests


def test_timer_e_is_t2_after_a_provisional_response(world: World) -> None:
    bye = world.request("BYE")
    world.advance_to(0.6)
    world.answer(100, "BYE")
    assert bye.proceeding
    world.run_out()
    assert world.times_of(b"BYE") == [0.0, 0.5, 1.5, 5.5, 9.5, 13.5, 17.5, 21.5, 25.5, 29.5]
    assert world.heard == [(0.6, 100), (32.0, "timeout")]
    assert world.is_empty


@pytest.mark.parametrize("status", [200, 302, 481, 503])
@pytest.mark.parametrize("provisional", [True, False])
def test_final_response_to_a_bye_is_reported_once_and_absorbed_until_timer_k(
    world: World, status: int, provisional: bool
) -> None:
    bye = world.request("BYE")
    if provisional:
        world.answer(100, "BYE")
    world.advance_to(1.0)
    world.answer(status, "BYE")
    assert bye.done
    world.advance_to(5.9)
    assert world.answer(status, "BYE") is True
    assert world.heard[-1] == (1.0, status)
    world.run_out()
    assert world.now == 6.0  # T4
    assert world.times_of(b"BYE") == [0.0, 0.5]
    assert world.is_empty


def test_timer_k_is_zero_on_a_reliable_flow(world: World) -> None:
    world.request("BYE", TCP)
    world.answer(200, "BYE")
    assert world.heard == [(0.0, 200)]
    assert world.is_empty


def test_every_provisional_response_is_reported(world: World) -> None:
    world.request("UPDATE")
    world.answer(100, "UPDATE")
    world.answer(183, "UPDATE")
    assert [what for _, what in world.heard] == [100, 183]


# -- failures of the transport


@pytest.mark.parametrize(
    ("method", "provisional", "flow"),
    [
        ("INVITE", False, UDP),
        ("INVITE", False, TCP),
        *[("BYE", provisional, flow) for provisional in (False, True) for flow in (UDP, TCP)],
    ],
)
def test_unanswered_transaction_fails_once_when_its_flow_fails(
    world: World, method: str, provisional: bool, flow: Flow
) -> None:
    transaction = world.request(method, flow)
    if provisional:
        world.answer(100, method)
    world.advance_to(0.2)
    world.layer.transport_failed(flow, 0.2)
    world.layer.transport_failed(flow, 0.2)
    assert world.heard[-1:] == [(0.2, "transport")]
    assert world.heard.count((0.2, "transport")) == 1
    assert transaction.done
    assert transaction.proceeding is provisional  # decides whether another way may be tried
    assert world.answer(200, method) is False
    assert world.is_empty


def written(method: str, branch: str) -> bytes:
    return f"{method} sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch={branch};rport\r\nFrom: x".encode()


def test_icmp_error_fails_only_the_transaction_that_it_quotes(world: World) -> None:
    for branch in ("z9hG4bK-a", "z9hG4bK-b"):
        world.request("INVITE", UDP, branch)
    world.layer.transport_failed(UDP, 0.0, written("INVITE", "z9hG4bK-a"))
    assert world.heard == [(0.0, "transport")]
    assert world.answer(180, branch="z9hG4bK-a") is False
    assert world.answer(180, branch="z9hG4bK-b") is True


@pytest.mark.parametrize(
    ("quote", "flow"),
    [
        (written("INVITE", "z9hG4bK-of-another"), UDP),
        (written("BYE", BRANCH), UDP),
        (written("INVITE", BRANCH), UDP._replace(port=5070)),
        (written("INVITE", BRANCH).partition(BRANCH.encode())[0], UDP),
        (written("INVITE", BRANCH).partition(b";rport")[0], UDP),
        (b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=" + BRANCH.encode() + b"\r\n", UDP),
        (b"", UDP),
        (b"\xff\x00", UDP),
    ],
    ids=["branch", "method", "address", "before the branch", "cut in the branch", "response", "nothing", "noise"],
)
def test_icmp_error_that_quotes_no_request_of_ours_is_ignored(world: World, quote: bytes, flow: Flow) -> None:
    """Anybody may send one: it names our address and the peer's, but only who has seen the request knows the branch."""
    transaction = world.request("INVITE")
    world.layer.transport_failed(flow, 0.0, quote)
    assert not transaction.done
    assert world.answer(180) is True


@pytest.mark.parametrize("flow", [UDP, TCP])
def test_proceeding_invite_survives_the_failure_of_its_flow(world: World, flow: Flow) -> None:
    """The response may come on a new connection (RFC 3261 18.2.2); an ICMP error may be forged."""
    transaction = world.request("INVITE", flow)
    world.answer(180, "INVITE")
    world.layer.transport_failed(flow, 0.2)
    assert not transaction.done
    assert world.answer(486, "INVITE") is True
    assert [what for _, what in world.heard] == [180, *(["lost"] if flow is TCP else []), 486]


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
@pytest.mark.parametrize("status", [200, 486])
def test_answered_transaction_does_not_fail(world: World, method: str, status: int) -> None:
    world.request(method)
    world.answer(status, method)
    world.layer.transport_failed(UDP, 0.0)
    assert world.heard == [(0.0, status)]
    assert world.answer(status, method) is True


def test_only_transactions_of_the_failed_flow_fail(world: World) -> None:
    world.request("INVITE", TCP, "z9hG4bK-a")
    world.request("INVITE", TCP._replace(connection=8), "z9hG4bK-b")
    world.request("INVITE", UDP, "z9hG4bK-c")
    world.request("BYE", TCP, "z9hG4bK-d")
    world.layer.transport_failed(TCP, 0.0)
    assert world.heard == [(0.0, "transport")] * 2
    assert world.answer(180, branch="z9hG4bK-a") is False
    assert world.answer(180, branch="z9hG4bK-b") is True
    assert world.answer(180, branch="z9hG4bK-c") is True


def test_transactions_of_a_failed_flow_fail_in_the_order_of_their_requests(world: World) -> None:
    failed: list[int] = []
    for n in range(20):
        fail = lambda _, now, n=n: failed.append(n)  # noqa: E731
        world.layer.request("BYE", f"z9hG4bK-{n}", b"bye", TCP, lambda *_: None, fail, 0.0)
    world.layer.transport_failed(TCP, 0.0)
    assert failed == list(range(20))


def test_new_request_may_be_sent_on_the_failed_flow_from_the_callback(world: World) -> None:
    def try_again(_: str, now: float) -> None:
        world.request("BYE", TCP, "z9hG4bK-second")

    world.layer.request("BYE", "z9hG4bK-first", b"first", TCP, lambda *_: None, try_again, 0.0)
    world.layer.transport_failed(TCP, 0.0)
    assert world.heard == []  # the second one is not drawn into the failure that came before it
    world.layer.transport_failed(TCP, 1.0)
    assert world.heard == [(1.0, "transport")]
    assert world.is_empty


# -- what is kept


@pytest.mark.parametrize("provisional", [True, False])
@pytest.mark.parametrize(("method", "status"), [("INVITE", 486), ("BYE", 200), ("BYE", 481)])
def test_completed_transaction_holds_neither_call_nor_message(
    world: World, method: str, status: int, provisional: bool
) -> None:
    call, data, answer = Call(), Data(b"x"), response(status, method)
    holders = sys.getrefcount(answer)
    world.layer.request(method, BRANCH, data, UDP, call.receive, call.fail, 0.0, call.ack)
    if provisional:
        world.answer(100, method)
    world.layer.receive_response(answer, 0.0)
    assert sys.getrefcount(answer) == holders
    seen, gone = weakref.ref(call), data.gone
    world.sent.clear()
    del call, data
    gc.collect()
    assert seen() is None
    assert gone == ["x"]
    assert len(world.layer) == 1


@pytest.mark.parametrize("provisional", [True, False])
def test_accepted_invite_does_not_hold_its_request(world: World, provisional: bool) -> None:
    data = Data(b"x")
    world.layer.request("INVITE", BRANCH, data, UDP, lambda *_: None, lambda *_: None, 0.0)
    if provisional:
        world.answer(100)
    world.answer(200)
    gone = data.gone
    world.sent.clear()
    del data
    assert gone == ["x"]
    assert len(world.layer) == 1


def test_call_is_released_after_timer_m_even_if_the_transaction_is_held(world: World) -> None:
    call = Call()
    invite = world.layer.request("INVITE", BRANCH, b"x", UDP, call.receive, call.fail, 0.0, call.ack)
    world.answer(200)
    world.run_out()
    seen = weakref.ref(call)
    del call
    gc.collect()
    assert seen() is None
    assert invite.done
