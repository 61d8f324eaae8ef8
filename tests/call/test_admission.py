"""Admission of INVITEs."""

from __future__ import annotations

import pytest

from relay.call import admission
from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.model.call import Refusal
from relay.model.outcomes import NUMBER_UNKNOWN, OVER_LIMIT, TOO_SHORT
from relay.peers.limits import SETTING_UP, UP
from tests.call.support import FLOW, Parts, invite, peer, settings

X = "700100000010001"


@pytest.mark.parametrize(
    ("uri", "number"),
    [
        (f"sip:{X}@192.0.2.10", X),
        (f"sip:+86{X}@192.0.2.10;user=phone", X),
        (f"sip:86{X};phone-context=+86@192.0.2.10", X),
        ("sip:7001-0000-0010-001@h", X),
        (f"tel:+86{X}", X),
        ("tel:13900000002;phone-context=+86", "8613900000002"),
        ("tel:6400-1234;phone-context=+86-10", "861064001234"),
        ("tel:13900000002;npdi;phone-context=ims.mnc000.mcc460.3gppnetwork.org", "8613900000002"),
        ("sip:192.0.2.10", ""),
        ("sip:alice@192.0.2.10", ""),
        ("urn:service:sos", ""),
        ("sip:%37%30%30%31%30%30%30%30%30%30%31%30%30%30%31@h", X),
        ("sip:7001%0d%0aX@h", ""),
        ("sip:a@[", ""),
    ],
)
def test_number_dialled(uri: str, number: str) -> None:
    assert admission.number_dialled(invite(uri=uri)) == number


@pytest.mark.parametrize(
    ("lines", "by_from", "by_pai"),
    [
        ((), "8613800000001", ""),
        (("From: 13900000002 <sip:anonymous@anonymous.invalid>;tag=a",), "", ""),
        (('From: "13700000003" <tel:+8613800000001>;tag=a', "P-Asserted-Identity: <tel:101>"), "8613800000001", "101"),
        (("P-Asserted-Identity: <sip:alice@h>, <tel:+8613700000003>",), "8613800000001", "8613700000003"),
        (("P-Asserted-Identity: <sip:alice@h>", "P-Asserted-Identity: <sip:102@h>"), "8613800000001", "102"),
        (('P-Asserted-Identity: "open <sip:102@h>',), "8613800000001", ""),
        (("P-Preferred-Identity: <sip:102@h>", "Remote-Party-ID: <sip:103@h>"), "8613800000001", ""),
        (("From: <sip:a@[>;tag=a",), "", ""),
    ],
)
def test_number_of_the_caller(lines: tuple[str, ...], by_from: str, by_pai: str) -> None:
    request = invite(*lines)
    assert admission.number_of_caller(request, peer()) == by_from
    assert admission.number_of_caller(request, None) == by_from
    assert admission.number_of_caller(request, peer(identity="pai")) == by_pai


@pytest.mark.parametrize(
    ("dialled", "refusal"),
    [
        (X, None),
        ("700200000010001", None),
        ("8617000000001", None),
        (X[:14], TOO_SHORT),
        ("70010000001", TOO_SHORT),
        ("700", TOO_SHORT),
        ("70", NUMBER_UNKNOWN),
        ("70020000001", NUMBER_UNKNOWN),
        (X + "1", NUMBER_UNKNOWN),
        ("8613900000002", NUMBER_UNKNOWN),
        ("", NUMBER_UNKNOWN),
    ],
)
def test_only_700_and_legacy_numbers_are_looked_up(dialled: str, refusal: Refusal | None) -> None:
    known = settings(legacy=frozenset({"8617000000001"}))
    assert admission.refusal_of_number(known, dialled) is refusal
    assert admission.is_ours(known, dialled) is (refusal is None)


@pytest.mark.parametrize(
    ("dialled", "refusal"),
    [
        ("8613900000002", None),
        ("101", None),
        ("", NUMBER_UNKNOWN),
        ("700200000010001", None),
        ("7002", NUMBER_UNKNOWN),
        (X[:14], TOO_SHORT),
    ],
)
def test_other_numbers_may_be_forwarded_but_not_700_numbers(dialled: str, refusal: Refusal | None) -> None:
    assert admission.refusal_of_number(settings(other_numbers="forward"), dialled) is refusal
    assert admission.is_ours(settings(other_numbers="forward"), dialled) is (dialled == "700200000010001")


def test_forwarded_route_has_no_binding() -> None:
    route = admission.forwarding_route("8613900000002", "8613800000001")
    assert (route.callee, route.shown, route.binding_id) == ("8613900000002", "8613800000001", "")


@pytest.mark.parametrize(
    ("lines", "refusal", "extra"),
    [
        (("Max-Forwards: 0",), outcomes.TOO_MANY_HOPS, ""),
        (("Contact: <tel:1>",), outcomes.BAD_CONTACT, ""),
        (("From: <sip:x@h>;tag=ours",), outcomes.LOOP, ""),
        (("Require: 100rel, foo, bar",), outcomes.BAD_EXTENSION, "Unsupported: foo, bar\r\n"),
    ],
)
def test_invite_is_refused_before_its_number_is_judged(lines: tuple[str, ...], refusal: Refusal, extra: str) -> None:
    ground = Parts()
    ground.dialogs.calling_tags.add("ours")
    assert ground.admission.check_invite(invite(*lines), FLOW, peer(), 1.0) == (refusal, extra)


def test_valid_invite_is_admitted() -> None:
    ground = Parts()
    ground.counts.stages.begin(SETTING_UP)  # its own
    assert ground.admission.check_invite(invite("Require: timer", "Max-Forwards: 1"), FLOW, peer(), 1.0) is None


@pytest.mark.parametrize("header", ["Contact: alice <", 'Require: a, "open', "Max-Forwards: alice"])
def test_malformed_invite_raises_parse_error(header: str) -> None:
    with pytest.raises(ParseError):
        Parts().admission.check_invite(invite(header), FLOW, peer(), 1.0)


OVER = {
    "calls": "calls of all peers",
    "setups": "calls of all peers",
    "calls of the peer": "calls of the peer",
    "look-ups": "pending look-ups of all peers",
}


@pytest.mark.parametrize("over", OVER)
def test_invite_over_a_limit_is_refused(over: str) -> None:
    """One call, two of a peer, two look-ups (see `settings`)."""
    ground = Parts()
    ground.counts.stages.begin(SETTING_UP)
    ground.transactions.serve(invite(), FLOW)
    match over:
        case "calls":
            ground.counts.stages.begin(UP)
        case "setups":
            ground.counts.stages.begin(SETTING_UP)
        case "calls of the peer":
            for _ in range(2):
                ground.counts.quotas_in.calls.begin("pbx")
        case "look-ups":
            for _ in range(2):
                ground.outbox.look_up("", "", lambda _, __: None, peer=peer())
    assert ground.admission.check_invite(invite(), FLOW, peer(), 1.0) == (OVER_LIMIT, "")
    assert OVER_LIMIT.retry_after_s
    ground.counts.stages.end(SETTING_UP)
    assert [limit.what for limit in ground.admission.limits(peer(), 1.0) if limit.is_over] == [OVER[over]]


def test_unusable_invite_is_refused_with_the_errors_status() -> None:
    assert admission.refusal_of_error(ProtocolError(415, "x")).status == 415
    assert admission.refusal_of_error(ParseError("x")).status == 400
