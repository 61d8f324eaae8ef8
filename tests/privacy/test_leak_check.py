"""The leak check: findings and non-findings."""

from __future__ import annotations

import pytest

from relay.model.settings import Peer
from relay.privacy.leak_check import LeakCheck, foreign_hosts, leak_check_towards_callee, leak_check_towards_caller
from tests.call.support import FLOW, peer

A, B, X = "8613800000001", "8613900000002", "700100000010001"
CARRIER = peer("carrier", "192.0.2.22")
OURS = frozenset({"192.0.2.10"})


def towards_callee(number: str, caller: Peer, callee: Peer, host: str) -> LeakCheck:
    return leak_check_towards_callee(number, caller, FLOW.host, callee, host, OURS)


@pytest.mark.parametrize(
    "text", ["+8613800000001", "013800000001", "13800000001", "008613800000001", "sip:13800000001@x", "x13800000001x"]
)
def test_number_is_found_in_every_form(text: str) -> None:
    leak_check = LeakCheck(("8613800000001",), ())
    assert leak_check.hit(f"X: {text}\r\n")
    assert leak_check.hit("", f"a=x:{text}\r\n".encode())
    assert not leak_check.hit("X: 13800000002\r\n", b"a=x:1380000001\r\n")


def test_extension_is_found_only_as_a_user_part() -> None:
    leak_check = LeakCheck(("101",), ())
    for text in ("<sip:101@h>", "<sip:+101@h>", "tel:101", '"101" <sip:x@h>'):
        assert leak_check.hit("Contact: " + text)
    assert not leak_check.hit("Contact: <sip:7001@10.1.101.1:101>", b"m=audio 101 RTP/AVP 101\r\na=rtpmap:101 x/101")


def test_own_number_may_contain_the_others() -> None:
    leak_check = LeakCheck(("8613800000001",), ())
    own = ("700138000000015",)
    assert not leak_check.hit("Contact: <sip:700138000000015@h>", b"700138000000015", own=own)
    assert leak_check.hit("Contact: <sip:700138000000015@h>", b"13800000001", own=own)
    assert leak_check.hit("Contact: <sip:13800000001@h>", own=own)


def test_own_number_within_the_others_hides_nothing() -> None:
    assert LeakCheck(("8613800000001",), ()).hit("<sip:13800000001@h>", own=("1380000", "800000001", ""))


def test_same_extension_on_both_sides_is_no_leak() -> None:
    leak_check = LeakCheck(("101",), ())
    assert not leak_check.hit("Contact: <sip:101@h>", own=("101",))
    assert leak_check.hit("Contact: <sip:101@h>", own=("1012",))


@pytest.mark.parametrize(
    ("host", "text", "hit"),
    [
        ("10.0.0.1", "<sip:x@10.0.0.1:5060>", True),
        ("10.0.0.1", "<sip:x@10.0.0.1>", True),
        ("10.0.0.1", "<sip:x@10.0.0.10:5060>", False),
        ("10.0.0.1", "<sip:x@110.0.0.1>", False),
        ("2001:db8::1", "<sip:x@[2001:db8::1]:5060>", True),
        ("2001:db8::1", "<sip:x@[2001:db8::11]>", False),
        ("2001:db8::1", "<sip:x@[1:2001:db8::1]>", False),
        ("carrier.example", "<sip:x@carrier.example;lr>", True),
        ("carrier.example", "<sip:x@sbc.carrier.example>", True),
        ("carrier.example", "<sip:x@notcarrier.example>", False),
        ("sip", "Contact: <sip:x@h>", False),
        ("sip", "Contact: <sip:x@sip>", True),
        ("INVITE", "Allow: INVITE, ACK", False),
        ("", "Allow: INVITE, ACK", False),
    ],
)
def test_address_is_found_only_as_a_whole(host: str, text: str, hit: bool) -> None:
    assert LeakCheck((), (host,)).hit(f"{text}\r\n") is hit


def test_media_addresses_are_not_searched() -> None:
    """In direct mode media and signalling may share an address."""
    assert not LeakCheck(("8613800000001",), ("10.0.0.1",)).hit("", b"c=IN IP4 10.0.0.1")


def test_nothing_is_found_without_numbers_and_hosts() -> None:
    assert not LeakCheck(("",), ("",)).hit("anything", b"at all")


@pytest.mark.parametrize(
    ("hosts", "own", "foreign"),
    [
        (("10.0.0.1",), ("10.0.0.2",), {"10.0.0.1"}),
        (("10.0.0.1",), ("10.0.0.1",), set()),
        (("10.0.0.1", "10.0.0.9"), ("10.0.0.2",), {"10.0.0.1"}),
        (("carrier.example",), ("sbc.carrier.example",), set()),
        (("sbc.carrier.example",), ("carrier.example",), {"sbc.carrier.example"}),
        (("carrier.example",), ("othercarrier.example",), {"carrier.example"}),
    ],
)
def test_foreign_hosts_exclude_the_receivers_and_the_relays(
    hosts: tuple[str, ...], own: tuple[str, ...], foreign: set[str]
) -> None:
    assert set(foreign_hosts(hosts, own, frozenset({"10.0.0.9"}))) == foreign


# -- of a call


def test_callers_number_and_hosts_are_hidden_from_the_callee() -> None:
    leak_check = towards_callee(A, peer(), CARRIER, "192.0.2.22")
    assert leak_check.hit("From: <sip:13800000001@x>")
    assert leak_check.hit("Via: 192.0.2.11")
    assert not leak_check.hit("To: <sip:13900000002@192.0.2.22>")


def test_callees_number_and_hosts_are_hidden_from_the_caller() -> None:
    leak_check = leak_check_towards_caller(B, CARRIER, "192.0.2.22", "192.0.2.33", peer(), FLOW.host, OURS)
    for hidden in ("13900000002", "192.0.2.22", "192.0.2.33"):
        assert leak_check.hit("X: " + hidden)
    assert not leak_check.hit("X: 13800000001 192.0.2.11 192.0.2.10")


def test_host_shared_by_both_sides_is_no_leak() -> None:
    assert not towards_callee(A, peer(), peer(), "192.0.2.11").hit("X: 192.0.2.11")


def test_relays_address_is_no_leak() -> None:
    assert not towards_callee(A, peer(host="192.0.2.10"), CARRIER, "192.0.2.22").hit("Contact: <sip:192.0.2.10>")


def test_no_number_is_hidden_without_a_binding() -> None:
    assert not towards_callee("", peer(), CARRIER, "192.0.2.22").hit("From: <sip:13800000001@x>")
