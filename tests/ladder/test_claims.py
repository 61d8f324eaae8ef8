"""Callers that a peer may not assert, and peers refused too often, with the call policy that decides it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model.actions import Commit, LookUp
from relay.model.call import CallRecord
from relay.model.settings import Account, CallerNumbers, Peer
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import LookupResult
from relay.policy.rules import RefusalCaps, Rules
from tests.ladder.ladder import Ladder, answer
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, A, B, X, Y, peer
from tests.ladder.side import Side
from tests.ladder.test_logins import PHONE_HOST, asks_to_register, challenged, credentials, registers
from tests.policy.cases import BOUND, FOUND

C = "8613700000003"
RULES = Rules(refusal_caps=RefusalCaps(of_number=3, of_caller=5))
BINDING = {A: BOUND, B: BOUND._replace(party="b")}  # on X


class Gated(Ladder):
    """A ladder whose look-ups pass the call policy, over a store with one binding; it lists the look-ups."""

    def __init__(self, *peers: Peer, rules: Rules = RULES, **settings: object) -> None:
        super().__init__(peers=peers, **settings)  # type: ignore[arg-type]
        self.asked: list[tuple[str, str]] = []
        self.gate = CallPolicy(self._fetch, rules, lambda _: None)

    def _fetch(self, number: str, caller: str, unix_s: float) -> LookupResult:
        self.asked.append((number, caller))
        bound = BINDING.get(caller) if number == X else None
        return FOUND._replace(bound=bound, is_own=bound is not None, caller_hash=caller.encode())

    def _answer_store(self, action: Commit | LookUp) -> None:
        if isinstance(action, Commit):
            super()._answer_store(action)
            return
        unix_s = self.now + self._clock_offset_s
        self.gate.route(action, unix_s, lambda token, answer: self.engine.routed(token, answer, self.now))

    @property
    def newest(self) -> CallRecord:
        return list(self.records.values())[-1][0]


def pbx(*numbers: str, host: str = CALLER_HOST, name: str = "pbx", **changes: object) -> Peer:
    return peer(name, host, numbers=CallerNumbers(frozenset(numbers)), **changes)


CARRIER = peer("carrier", CALLEE_HOST)  # any caller


def calls(side: Side, caller: str, number: str = X) -> None:
    side.call_id += "x"
    side.tag += "x"
    side.calls(number, caller=caller)


def refused(side: Side, status: int) -> str | None:
    """Retry-After."""
    answer = side.get_response(status)
    side.acks_refusal()
    return answer.get("retry-after")


def is_forged(ladder: Gated) -> None:
    record = ladder.newest
    assert (record.sip_status, record.outcome, record.end_reason) == (403, "caller_not_allowed", "caller_not_of_peer")
    assert (record.peer_in, record.q850_cause, record.binding_id, record.business) == ("pbx", 21, None, None)


def test_listed_caller_is_connected() -> None:
    ladder = Gated(pbx(A), CARRIER)
    calls(ladder.caller, "13800000001")
    ladder.callee.get("INVITE")
    answer(ladder)


@pytest.mark.parametrize("caller", ["13800000001", "+8613900000002", "13700000009"])
def test_unlisted_caller_is_refused_without_a_look_up(caller: str) -> None:
    ladder = Gated(pbx(C), CARRIER)
    ladder.numbers_pass = True  # the caller gets its own number back
    calls(ladder.caller, caller)
    refused(ladder.caller, 403)
    is_forged(ladder)
    assert ladder.asked == []
    ladder.settle()


def test_asserted_caller_is_the_one_looked_up() -> None:
    """With asserted identities From is ignored, and vice versa."""
    ladder = Gated(pbx(C, identity="pai"), CARRIER)
    ladder.caller.calls(X, caller="13700000003", headers="P-Asserted-Identity: <sip:13800000001@pbx>\r\n")
    refused(ladder.caller, 403)
    is_forged(ladder)
    ladder = Gated(pbx(C), CARRIER)
    ladder.caller.calls(X, caller="13800000001", headers="P-Asserted-Identity: <sip:13700000003@pbx>\r\n")
    refused(ladder.caller, 403)
    is_forged(ladder)


def test_caller_with_digits_added_is_not_among_those_of_a_prefix() -> None:
    numbers = CallerNumbers(prefixes=("86138",))
    ladder = Gated(peer("pbx", CALLER_HOST, numbers=numbers), CARRIER, other_numbers="forward")
    ladder.numbers_pass = True  # the caller gets its own number back
    for number in (X, "13900000002"):
        calls(ladder.caller, "+861380000000199", number)
        refused(ladder.caller, 403)
        is_forged(ladder)
    assert ladder.asked == []
    ladder.callee.gets_nothing()
    calls(ladder.caller, "13800000001")
    ladder.callee.get("INVITE")


def test_text_message_of_an_unlisted_caller_is_refused() -> None:
    ladder = Gated(pbx(C), CARRIER, sms=True)
    ladder.caller.texts(X, caller="13800000001")
    ladder.caller.get(403)
    is_forged(ladder)
    assert (ladder.newest.kind, ladder.asked) == ("message", [])


def test_forwarded_call_of_an_unlisted_caller_is_refused() -> None:
    ladder = Gated(pbx(C), CARRIER, other_numbers="forward")
    calls(ladder.caller, "13800000001", "13900000002")
    refused(ladder.caller, 403)
    is_forged(ladder)
    ladder.callee.gets_nothing()
    ladder.numbers_pass = True
    calls(ladder.caller, "13700000003", "13900000002")
    ladder.callee.get("INVITE")


@pytest.mark.parametrize(
    "caller", [X, "+700100000010001", "700-1000-0001-0001", "700999999990001", "1064899", "86700100000010001"]
)
def test_forwarded_call_with_a_700_caller_is_refused(caller: str) -> None:
    """A 700 number is never a valid caller of a forwarded call."""
    ladder = Gated(peer("pbx", CALLER_HOST), CARRIER, other_numbers="forward", legacy=frozenset({"1064899"}))
    ladder.numbers_pass = True  # the caller gets its own number back
    calls(ladder.caller, caller, "13900000002")
    refused(ladder.caller, 403)
    is_forged(ladder)
    ladder.callee.gets_nothing()
    ladder.settle()


def test_reloaded_list_applies_to_the_next_call() -> None:
    ladder = Gated(pbx(C), CARRIER)
    calls(ladder.caller, "13800000001")
    refused(ladder.caller, 403)
    ladder.engine.reload(replace(ladder.settings, peers=(pbx(A), CARRIER)), {}, ladder.now)
    calls(ladder.caller, "13800000001")
    ladder.callee.get("INVITE")


# -- peers that log in


def phone(*numbers: str, username: str = "1001") -> Peer:
    claims = CallerNumbers(frozenset(numbers))
    return Peer("pbx", (), tcp_allowed=False, sources=(), login=Account(username, "secret"), numbers=claims)


def test_registered_phone_may_assert_only_its_numbers() -> None:
    ladder = Gated(phone(C), CARRIER, caller_host=PHONE_HOST)
    registers(ladder.caller)
    calls(ladder.caller, "13800000001")
    refused(ladder.caller, 403)
    is_forged(ladder)
    calls(ladder.caller, "13700000003")
    refused(ladder.caller, 403)
    assert ladder.newest.outcome == "no_binding"


def test_reloaded_list_applies_to_a_registered_phone() -> None:
    ladder = Gated(phone(C), CARRIER, caller_host=PHONE_HOST)
    registers(ladder.caller)
    ladder.engine.reload(replace(ladder.settings, peers=(phone(A), CARRIER)), {}, ladder.now)
    calls(ladder.caller, "13800000001")
    ladder.callee.get("INVITE")


@pytest.mark.parametrize(
    ("user", "status"),
    [("1001", 200), ("13700000003", 200), ("+8613700000003", 200), ("alice", 200), ("13800000001", 403), ("1002", 403)],
)
def test_register_for_another_number_is_refused(user: str, status: int) -> None:
    ladder = Gated(phone(C), CARRIER, caller_host=PHONE_HOST)
    side = ladder.caller
    asks_to_register(side)
    line = credentials(side, "REGISTER", challenged(side)["MD5"])
    side.to_uri, side.remote_tag = f"sip:{user}@{side.relay}", ""
    side.sends("REGISTER", headers=f"Contact: {side.contact}\r\nExpires: 100\r\n{line}")
    side.get(status)
    assert ladder.engine.statistics()["logins"] == (1 if status == 200 else 0)


# -- refused attempts


def strangers(side: Side, count: int) -> None:
    for number in range(count):
        calls(side, f"136{number:08}")
        refused(side, 403)


def test_peer_over_max_refused_is_refused_without_a_look_up() -> None:
    ladder = Gated(peer("pbx", CALLER_HOST), CARRIER)
    strangers(ladder.caller, 3)
    asked = len(ladder.asked)
    for caller in ("13800000001", "13600000099"):
        calls(ladder.caller, caller)
        assert refused(ladder.caller, 503) == "10"
        record = ladder.newest
        assert (record.outcome, record.end_reason, record.q850_cause) == ("over_limit", "refused_too_often", 42)
        assert (record.binding_id, record.routed_at) == (None, None)
    assert len(ladder.asked) == asked
    ladder.callee.gets_nothing()
    ladder.run(10)
    calls(ladder.caller, "13600000099")
    refused(ladder.caller, 403)
    calls(ladder.caller, "13800000001")
    assert refused(ladder.caller, 503) == "20"
    ladder.run(20)
    calls(ladder.caller, "13800000001")
    ladder.callee.get("INVITE")


def test_other_peers_are_not_affected_by_max_refused() -> None:
    ladder = Gated(peer("pbx", CALLER_HOST), CARRIER, peer("second", SECOND_HOST))
    strangers(ladder.caller, 3)
    real = ladder.side(SECOND_HOST, "carol")
    calls(real, "13800000001")
    ladder.callee.get("INVITE")


def test_refused_text_messages_count_towards_max_refused() -> None:
    ladder = Gated(peer("pbx", CALLER_HOST), CARRIER, sms=True)
    strangers(ladder.caller, 3)
    ladder.caller.texts(X, caller="13800000001")
    assert ladder.caller.get_response(503).get("retry-after") == "10"


def test_call_of_a_700_number_has_no_binding() -> None:
    ladder = Gated(peer("pbx", CALLER_HOST), CARRIER)
    calls(ladder.caller, Y)
    refused(ladder.caller, 403)
    assert (ladder.newest.outcome, ladder.newest.caller) == ("no_binding", Y)
