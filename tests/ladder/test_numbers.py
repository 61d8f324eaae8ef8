"""Numbers shown: binding modes, notations, asserted identities, and forwarded numbers."""

from __future__ import annotations

from typing import Any

import pytest

from relay.model.call import Route
from tests.ladder.ladder import Ladder, answer, bye, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, A, B, X, Y, peer

AXYB = {
    (X, A): Route("b2", "AXYB", "firm", "order-2", B, Y),
    (Y, B): Route("b2", "AXYB", "firm", "order-2", A, X),
}


def with_peers(pbx: dict[str, Any] | None = None, carrier: dict[str, Any] | None = None, **settings: object) -> Ladder:
    peers = (peer("pbx", CALLER_HOST, **(pbx or {})), peer("carrier", CALLEE_HOST, **(carrier or {})))
    return Ladder(peers=peers, **settings)


def test_callee_sees_the_other_number_of_the_binding() -> None:
    ladder = Ladder(AXYB)
    connect(ladder)
    invite = ladder.callee.invite
    assert invite is not None
    assert invite.from_.uri_text == f"sip:{Y}@127.0.0.10"
    assert invite.contact is not None
    assert invite.contact.uri_text == f"sip:{Y}@127.0.0.10:5060"
    ok = ladder.caller.last()
    assert ok.contact is not None
    assert ok.contact.uri_text == f"sip:{X}@127.0.0.10:5060"
    record = ladder.record
    assert (record.number_dialled, record.number_shown, record.caller, record.callee) == (X, Y, A, B)
    assert (record.binding_id, record.mode, record.business, record.order_id) == ("b2", "AXYB", "firm", "order-2")
    hang_up(ladder)


@pytest.mark.parametrize("caller", ["13800000001", "+8613800000001", "008613800000001", "8613800000001"])
@pytest.mark.parametrize("dialled", [X, f"+86{X}", f"86{X}"])
def test_numbers_in_any_notation(ladder: Ladder, caller: str, dialled: str) -> None:
    ladder.caller.calls(dialled, caller=caller)
    ladder.callee.expects("INVITE", 486)
    ladder.caller.is_refused(486)
    assert (ladder.record.number_dialled, ladder.record.caller) == (X, A)
    ladder.settle()


OLD = "95013000001"


@pytest.mark.parametrize("dialled", [OLD, f"+86{OLD}", f"0086{OLD}", f"86{OLD}", f"{OLD};phone-context=+86"])
def test_an_old_middle_number_in_any_notation(dialled: str) -> None:
    ladder = Ladder({(OLD, A): Route("b1", "AXB", "firm", "order-1", B, X)}, legacy=frozenset([OLD]))
    ladder.caller.calls(dialled)
    ladder.callee.expects("INVITE", 486)
    ladder.caller.is_refused(486)
    assert ladder.record.number_dialled == OLD
    ladder.settle()


@pytest.mark.parametrize(
    ("number_format", "user"), [("national", "13900000002"), ("e164", "8613900000002"), ("plus", "+8613900000002")]
)
def test_callees_number_is_in_its_peers_format(number_format: str, user: str) -> None:
    ladder = with_peers(carrier={"number_format": number_format})
    connect(ladder)
    assert ladder.callee.invite is not None
    assert ladder.callee.invite.uri == f"sip:{user}@127.0.0.22"
    hang_up(ladder)


def test_caller_is_the_asserted_identity_with_identity_pai() -> None:
    ladder = with_peers(pbx={"identity": "pai"})
    ladder.caller.invites(
        X, caller="anonymous", headers="P-Asserted-Identity: <tel:+86-138-0000-0001>\r\nPrivacy: id\r\n"
    )
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    assert invite.get("p-asserted-identity") is None
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    assert ladder.record.caller == A
    ladder.settle()


def test_from_is_ignored_with_identity_pai() -> None:
    ladder = with_peers(pbx={"identity": "pai"})
    ladder.caller.calls(X)
    ladder.caller.is_refused(403)
    assert (ladder.record.caller, ladder.record.outcome) == ("", "no_binding")
    ladder.settle()


def test_700_number_is_asserted_with_send_pai() -> None:
    ladder = with_peers(carrier={"send_pai": True})
    connect(ladder)
    assert ladder.callee.invite is not None
    assert ladder.callee.invite.get("p-asserted-identity") == f"<sip:{X}@127.0.0.10>"
    hang_up(ladder)


def test_other_number_is_forwarded_unchanged() -> None:
    ladder = Ladder(other_numbers="forward")
    ladder.numbers_pass = True
    ladder.caller.calls("13900000002")
    invite = ladder.callee.get_request("INVITE")
    assert invite.uri == "sip:13900000002@127.0.0.22"
    assert invite.from_.uri_text == f"sip:{A}@127.0.0.10"
    answer(ladder)
    record = ladder.record
    assert (record.binding_id or None, record.number_dialled, record.callee) == (None, B, B)
    hang_up(ladder)


@pytest.mark.parametrize("caller", ["anonymous", "reception"])
def test_call_without_a_callers_number_is_forwarded_as_anonymous(caller: str) -> None:
    ladder = with_peers(other_numbers="forward", carrier={"send_pai": True})
    ladder.caller.calls("13900000002", caller=caller)
    invite = ladder.callee.get_request("INVITE")
    assert invite.from_.uri_text == "sip:anonymous@anonymous.invalid"  # RFC 3323 4.1.1.3
    assert invite.get("p-asserted-identity") is None
    assert str(invite.contact) == "<sip:127.0.0.10:5060>"
    answer(ladder)
    assert bye(ladder.caller, ladder.callee).from_.uri_text == "sip:anonymous@anonymous.invalid"


@pytest.mark.parametrize("identity", ["from", "pai"])
@pytest.mark.parametrize(
    ("privacy", "shown"),
    [
        ("id", "sip:anonymous@anonymous.invalid"),
        ("Id;critical", "sip:anonymous@anonymous.invalid"),
        ("header; user", "sip:anonymous@anonymous.invalid"),
        ("none", f"sip:{A}@127.0.0.10"),
        ("session", f"sip:{A}@127.0.0.10"),
    ],
)
def test_forwarded_caller_who_asks_for_privacy_is_anonymous(identity: str, privacy: str, shown: str) -> None:
    """RFC 3323 4.2, RFC 3325 7."""
    ladder = with_peers(other_numbers="forward", pbx={"identity": identity}, carrier={"send_pai": True})
    ladder.numbers_pass = True  # the callee's own, in the messages to the caller who dialled it
    ladder.caller.calls("13900000002", headers=f"P-Asserted-Identity: <tel:+{A}>\r\nPrivacy: {privacy}\r\n")
    invite = ladder.callee.get_request("INVITE")
    assert invite.from_.uri_text == shown
    assert invite.has("p-asserted-identity") == (A in shown)
    answer(ladder)
    hang_up(ladder)
    assert ladder.record.caller == A
    to_callee = [data for data, flow in ladder.checks.sent if flow.host == CALLEE_HOST]
    assert any(A[2:].encode() in data for data in to_callee) == (A in shown)


@pytest.mark.parametrize("short", [X[:14], X[:13], X[:11], X[:5], "700"])
@pytest.mark.parametrize("country", ["", "+86"])
def test_first_digits_of_a_700_number_are_too_few(ladder: Ladder, country: str, short: str) -> None:
    ladder.caller.calls(country + short)
    ladder.caller.is_refused(484)
    ladder.settle()


@pytest.mark.parametrize(("number", "status"), [("700999999990001", 404), ("70099999", 404), ("70010000001", 484)])
def test_other_700_numbers_are_not_forwarded(number: str, status: int) -> None:
    ladder = Ladder(other_numbers="forward")
    ladder.caller.calls(number)
    ladder.caller.is_refused(status)
    ladder.callee.gets_nothing()
    ladder.settle()


def test_700_number_without_a_binding_is_not_forwarded() -> None:
    ladder = Ladder({}, other_numbers="forward")
    ladder.caller.calls(X)
    ladder.caller.is_refused(403)
    ladder.callee.gets_nothing()
    ladder.settle()
