"""Matching of messages to transactions, and the table of transactions."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.sip.message import Request, Response
from tests.sip.virtual_time import BRANCH, UDP, World, request


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


def test_transactions_are_counted_by_kind_until_they_terminate(world: World) -> None:
    assert world.layer.counts() == {
        "invite_server": 0,
        "non_invite_server": 0,
        "invite_client": 0,
        "non_invite_client": 0,
    }
    world.serve("INVITE").respond(200, b"", 0.0)
    world.layer.serve(request("INVITE", None), UDP).respond(486, b"", 0.0)
    world.serve("BYE").respond(200, b"", 0.0)
    world.request("INVITE")
    for number in range(3):
        world.request("BYE", branch=f"z9hG4bK{number}")
    assert world.layer.counts() == {
        "invite_server": 2,
        "non_invite_server": 1,
        "invite_client": 1,
        "non_invite_client": 3,
    }
    assert len(world.layer) == 7
    world.run_out()
    assert sum(world.layer.counts().values()) == 0
