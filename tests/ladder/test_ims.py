"""Calls between two mobile operators' IMS by config/peers/ims.toml, with the headers of 3GPP TS 24.229."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from relay.config import load_config
from relay.model.settings import Health
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, A, X
from tests.ladder.side import Side
from tests.support.targets import target_at

EXAMPLE = Path(__file__).parents[2] / "config" / "peers" / "ims.toml"

# What each network adds and the other one must not see; {n} is the party's number.
OF_NETWORK = (
    "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=460001a2b3c4d5;network-provided\r\n"
    "Cellular-Network-Info: 3GPP-NR;utran-cell-id-3gpp=460001a2b3c4d5;cell-info-age=5\r\n"
    "P-Charging-Vector: icid-value=5f3a-77;icid-generated-at=127.0.0.99;orig-ioi=ims.mnc000.mcc460.3gppnetwork.org\r\n"
    "P-Charging-Function-Addresses: ccf=127.0.0.99\r\n"
    'P-Visited-Network-ID: "foreign.mnc000.mcc460.3gppnetwork.org"\r\n'
    "P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.mmtel\r\n"
    "P-Early-Media: supported\r\n"
    "P-Called-Party-ID: <tel:+{n}>\r\n"
    "P-Served-User: <sip:+{n}@ims.mnc000.mcc460.3gppnetwork.org>;sescase=orig;regstate=reg\r\n"
    "History-Info: <sip:+{n}@ims.mnc000.mcc460.3gppnetwork.org;user=phone>;index=1\r\n"
    'Accept-Contact: *;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel"\r\n'
    'Feature-Caps: *;+g.3gpp.srvcc="tel:+{n}"\r\n'
    "Geolocation: <cid:cell@ims.mnc000.mcc460.3gppnetwork.org>\r\n"
    "Session-ID: f81d4fae7dec11d0a76500a0c91e6bf6;remote=00000000000000000000000000000000\r\n"
    "User-Agent: IMS phone of {n}\r\n"
)
IN_BOTH_FORMS = (
    "P-Asserted-Identity: <sip:+8613800000001@ims.mnc000.mcc460.3gppnetwork.org;user=phone>\r\n"
    "P-Asserted-Identity: <tel:+8613800000001>\r\n"
)
WITHOUT_QOS = b"a=curr:qos local none\r\na=curr:qos remote none\r\na=des:qos mandatory local sendrecv\r\n"
WITH_QOS = WITHOUT_QOS.replace(b"local none", b"local sendrecv") + b"a=conf:qos remote sendrecv\r\n"
CROSSES = {
    *("via", "from", "to", "call-id", "cseq", "max-forwards", "contact", "content-type", "content-length"),
    *("allow", "supported", "require", "rseq", "rack", "p-asserted-identity", "reason"),
}


@pytest.fixture
def ladder() -> Ladder:
    """The example's peer, once as the caller's network and once as the callee's."""
    (ims,) = load_config(EXAMPLE).settings.peers
    peers = [
        replace(ims, name=name, targets=(target_at(host, 5060, "udp"),), sources=(ip_network(host),), health=Health())
        for name, host in (("pbx", CALLER_HOST), ("carrier", CALLEE_HOST))
    ]
    return Ladder(peers=tuple(peers))


def invites(side: Side, number: str = f"tel:+86{X}", asserted: str = IN_BOTH_FORMS, more: str = "") -> None:
    """An INVITE of the network, whose phone withholds its number."""
    side.from_uri, side.to_uri, side.target = "sip:anonymous@anonymous.invalid", number, number
    side.remote_tag = ""
    headers = f"Contact: {side.contact}\r\nPrivacy: id\r\n{asserted}{OF_NETWORK.format(n=A)}{more}"
    side.sends("INVITE", body=OFFER + WITHOUT_QOS, headers=headers)


def assert_shows_no_network(received: list[bytes]) -> None:
    for message in received:
        head, _, body = message.decode().partition("\r\n\r\n")
        assert {line.partition(":")[0].lower() for line in head.split("\r\n")[1:]} <= CROSSES
        assert "qos" not in body


@pytest.mark.parametrize(
    "number",
    [
        f"tel:+86{X}",
        f"tel:{X};phone-context=+86",
        f"sip:+86{X}@{RELAY};user=phone",
        f"sip:{X};phone-context=+86@{RELAY};user=phone",
    ],
)
@pytest.mark.parametrize(
    "asserted",
    [
        IN_BOTH_FORMS,
        "P-Asserted-Identity: <tel:+86-138-0000-0001>\r\n",
        "P-Asserted-Identity: tel:13800000001;phone-context=+86\r\n",
        'P-Asserted-Identity: "A" <sip:13800000001@ims.example;user=phone>, <tel:+8613800000001>\r\n',
    ],
)
def test_numbers_are_read_in_each_form(ladder: Ladder, number: str, asserted: str) -> None:
    invites(ladder.caller, number, asserted)
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    assert invite.uri == f"sip:+8613900000002@{CALLEE_HOST};user=phone"
    assert invite.get("to") == f"<{invite.uri}>"
    assert invite.get("p-asserted-identity") == f"<sip:{X}@{RELAY}>"
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    assert (ladder.record.number_dialled, ladder.record.caller) == (X, A)
    ladder.settle()


def test_call_with_early_media_shows_neither_network_to_the_other(ladder: Ladder) -> None:
    of_callee = OF_NETWORK.format(n="8613900000002")
    invites(ladder.caller, more="Supported: 100rel, precondition, timer, 199\r\n")
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    assert invite.get("supported") == "100rel, timer"
    early = ladder.callee.proceeds(
        183, headers=f"Require: 100rel\r\nRSeq: 7001\r\n{of_callee}", body=ANSWER + WITHOUT_QOS
    )
    assert b"m=audio 5000" in early.body
    ladder.caller.sends("PRACK", headers=f"RAck: {early.rseq} 1 INVITE\r\n{OF_NETWORK.format(n=A)}")
    ladder.callee.expects("PRACK", headers=of_callee)
    ladder.caller.get(200)
    ladder.caller.updates(OFFER + WITH_QOS, headers=OF_NETWORK.format(n=A))
    ladder.callee.expects("UPDATE", body=ANSWER + WITH_QOS, headers=of_callee)
    assert b"m=audio 5000" in ladder.caller.get_response(200).body
    ladder.callee.proceeds(180, headers=of_callee)
    ladder.callee.answers(200, headers=of_callee)
    ladder.caller.is_answered()
    ladder.callee.get("ACK")
    hang_up(ladder)
    assert_shows_no_network(ladder.caller.received)
    assert_shows_no_network(ladder.callee.received)


def test_required_precondition_is_refused_and_the_call_made_without_it(ladder: Ladder) -> None:
    """RFC 3312 8: the caller's network calls again with the option in Supported at most."""
    invites(ladder.caller, more="Require: precondition\r\nSupported: 100rel\r\n")
    refusal = ladder.caller.get_response(420)
    ladder.caller.acks_refusal()
    assert refusal.get("unsupported") == "precondition"
    ladder.callee.gets_nothing()
    assert (ladder.record.sip_status, ladder.record.outcome) == (420, "failed")
    ladder.caller.call_id = "alice-again"
    invites(ladder.caller, more="Supported: 100rel, precondition\r\n")
    ladder.caller.get(100)
    ladder.callee.rings()
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


@pytest.mark.parametrize("status", [421, 580])
def test_callee_s_network_that_insists_on_precondition_is_not_shown(ladder: Ladder, status: int) -> None:
    """421 Extension Required, 580 Precondition Failure (RFC 3312 8)."""
    invites(ladder.caller)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.refuses(status, headers="Require: precondition\r\n", body=ANSWER + WITHOUT_QOS)
    refusal = ladder.caller.get_response(480)
    ladder.caller.acks_refusal()
    assert refusal.get("require") is None
    assert not refusal.body
    ladder.settle()
