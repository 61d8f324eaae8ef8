"""The relay against peers and parties that mean harm: what they plant, guess, point elsewhere or blow up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model.call import Route
from relay.privacy import codecs
from relay.sip.message import parse_message
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, answer, call, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, A, B, X, settings_for
from tests.ladder.test_logins import PBX, PHONE, PHONE_HOST, registers
from tests.ladder.texts import deliver
from tests.support.targets import target_at


def clean() -> CanaryLadder:
    """Both sides' marks are looked for; the messages are the harness' own but for what a test adds."""
    ladder = CanaryLadder()
    ladder.stuffing = False
    return ladder


# -- what programs are known to do


@pytest.mark.parametrize(
    ("headers", "changes"),
    [
        ("", {"From: <sip:": 'From: "13800000001 alicemark" <sip:'}),  # FreeSWITCH: the number in the display name
        (
            'P-Asserted-Identity: "13800000001" <sip:13800000001@127.0.0.11>\r\nPrivacy: none\r\n',
            {},
        ),  # Asterisk, send_pai
        ("Remote-Party-ID: <sip:13800000001@127.0.0.11>;party=calling;screen=yes\r\n", {}),  # Asterisk, send_rpid
        ("X-FS-Support: update_display,send_info\r\nX-Caller: +8613800000001\r\n", {}),
        ("", {"Call-ID: ": "Call-ID: 13800000001-"}),  # PBXs
        ("", {"o=alice 1 1": "o=13800000001 13800000001 13800000001", "s=call": "s=13800000001"}),
        ("", {";tag=": ";tag=13800000001", ";branch=z9hG4bK": ";branch=z9hG4bK13800000001"}),
    ],
)
def test_what_programs_do_with_the_callers_number(headers: str, changes: dict[str, str]) -> None:
    ladder = clean()
    ladder.caller.invites(X, headers=headers)
    text = ladder.caller.sent["INVITE"].decode()
    ladder = clean()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    head, _, body = text.partition("\r\n\r\n")
    head = head[: head.index("Content-Length")] + f"Content-Length: {len(body)}"
    ladder.deliver(f"{head}\r\n\r\n{body}".encode(), ladder.caller.flow)
    invite = ladder.callee.get_request("INVITE")
    assert invite.from_.uri_text == f"sip:{X}@{RELAY}"
    assert invite.from_.display == ""
    ladder.callee.answers(486, headers=headers.replace("138", "139"))
    ladder.run(40)
    ladder.check_privacy()


# -- header smuggling

BREAKS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x85", "\u2028", "%0d%0a", "%0D%0A", "%00", "\r\n "]
BREAKS += ["\\\r\n", "\\\n", "\\\0"]


def injections(line_break: str) -> list[str]:
    evil = f"{line_break}X-Evil: 1{line_break}"
    return [
        f'From: "a{evil}b" <sip:13800000001@{CALLER_HOST}>;tag=t',
        f"From: <sip:13800000001{evil}@{CALLER_HOST}>;tag=t",
        f"From: <sip:13800000001@{CALLER_HOST};x={evil}>;tag=t",
        f"From: <sip:13800000001@{CALLER_HOST}>;tag=t{evil}",
        f"To: <sip:{X}@{RELAY}>;x={evil}",
        f"Call-ID: a{evil}b",
        f"Contact: <sip:a{evil}@{CALLER_HOST}>",
        f'Contact: "a{evil}b" <sip:a@{CALLER_HOST}>',
        f"Record-Route: <sip:a{evil}@{CALLER_HOST};lr>",
        f"Supported: timer{evil}100rel",
        f"Allow: INVITE{evil}BYE",
        f"Session-Expires: 1800;refresher=uac{evil}",
        f'Reason: Q.850;cause=16;text="{evil}"',
        f"Require: timer,{evil}",
        f"Via: SIP/2.0/UDP {CALLER_HOST}:5060;branch=z9hG4bKq;x={evil}",
    ]


def raw_invite(*lines: str, body: bytes = OFFER) -> bytes:
    usual = (
        f"Via: SIP/2.0/UDP {CALLER_HOST}:5060;branch=z9hG4bKq;rport",
        f"From: <sip:13800000001@{CALLER_HOST}>;tag=t",
        f"To: <sip:{X}@{RELAY}>",
        "Call-ID: c",
        "CSeq: 1 INVITE",
        f"Contact: <sip:a@{CALLER_HOST}>",
    )
    names = {line.partition(":")[0] for line in lines}
    kept = [line for line in usual if line.partition(":")[0] not in names]
    kept += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
    return "\r\n".join([f"INVITE sip:{X}@{RELAY} SIP/2.0", *lines, *kept, "", ""]).encode() + body


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_no_line_is_smuggled(line_break: str) -> None:
    """Neither to the other side nor back to the same one, in answers and in our own requests."""
    for line in injections(line_break):
        ladder = clean()
        ladder.deliver(raw_invite(line), ladder.caller.flow)
        if any(flow.host == CALLEE_HOST for _, flow in ladder.checks.sent):
            ladder.callee.get("INVITE")
            bad = line.replace("Evil", "Bad").replace(CALLER_HOST, CALLEE_HOST).replace("From", "X").replace("Via", "X")
            ladder.callee.answers(183, body=ANSWER, headers=f"{bad}\r\n")
            ladder.callee.answers(200, body=ANSWER, headers=f"{bad}\r\n", tag=f"t{line_break}X-Bad: 1")
            ladder.callee.answers(200, body=ANSWER)
        ladder.run(100)
        for data, flow in ladder.checks.sent:
            assert (b"X-Evil" if flow.host == CALLEE_HOST else b"X-Bad") not in data, data.decode()
            assert not set(parse_message(data).layout.names) & {"x-evil", "x-bad"}, data.decode()


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_no_line_is_smuggled_into_a_description(line_break: str) -> None:
    for place in ("o=alice", "c=IN IP4 127.0.0.31", "m=audio 4000", "RTP/AVP 8", "rtpmap:8", "PCMA/8000", "sendrecv"):
        evil = OFFER.decode().replace(place, f"{place}{line_break}a=evil:alicemark{line_break}")
        ladder = clean()
        ladder.deliver(raw_invite(body=evil.encode()), ladder.caller.flow)
        for data, flow in ladder.checks.sent:
            assert flow.host != CALLEE_HOST or b"evil" not in data, data.decode()


# -- the leak check as an oracle


def what_the_caller_sees(guess: str) -> list[bytes]:
    """A call with guesses of the callee's number wherever a caller can plant them; the answers' start lines."""
    ladder = Ladder()
    lines = "".join(
        f"{name}: {value}\r\n"
        for name, value in (
            ("Record-Route", f"<sip:{guess}@{CALLER_HOST};lr>"),
            ("Supported", f"100rel, {guess}"),
            ("Allow", f"INVITE, UPDATE, {guess}"),
            ("Subject", guess),
            ("P-Asserted-Identity", f"<sip:{guess}@{CALLER_HOST}>"),
            ("Session-Expires", f"1800;x={guess}"),
        )
    )
    body = OFFER.replace(b"alice", guess.encode()) + f"a={guess}\r\na=fmtp:8 {guess}\r\n".encode()
    ladder.caller.call_id = ladder.caller.tag = guess
    ladder.caller.name = guess  # in branches
    contact = f"<sip:{guess}@{CALLER_HOST};x={guess}>"
    ladder.caller.invites(X, headers=lines, body=body, contact=contact)
    ladder.callee.get("INVITE")
    ladder.callee.answers(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.callee.accepts(body=ANSWER)
    for status in (100, 183, 200):
        ladder.caller.get(status)
    ladder.caller.acks()
    ladder.caller.sends("UPDATE", body=body, headers=f"{lines}Contact: {contact}\r\n")
    ladder.callee.expects("UPDATE", body=ANSWER)
    ladder.caller.get(200)
    ladder.callee.sends("BYE")
    ladder.caller.expects("BYE")
    seen = [data.partition(b"\r\n")[0].replace(guess.encode(), b"GUESS") for data in ladder.caller.received]
    seen += [data.partition(b"\r\n")[0].replace(guess.encode(), b"GUESS") for data, _ in ladder.caller.inbox]
    assert "leak_check" not in ladder.engine.statistics()
    return seen


@pytest.mark.parametrize("form", ["{}", "86{}", "+86{}", "0086{}"])
def test_a_right_guess_is_answered_as_a_wrong_one(form: str) -> None:
    right, wrong = what_the_caller_sees(form.format(B[2:])), what_the_caller_sees(form.format("13912345678"))
    assert right == wrong
    assert len(right) > 4


def test_a_right_guess_of_the_callee_is_answered_as_a_wrong_one() -> None:
    seen = []
    for guess in (A[2:], "13812345678"):
        ladder = Ladder()
        ladder.caller.invites(X, headers="Supported: 100rel\r\n")
        ladder.callee.get("INVITE")
        ladder.callee.tag = guess
        lines = f"Record-Route: <sip:{guess}@{CALLEE_HOST};lr>\r\nServer: {guess}\r\nSupported: {guess}\r\n"
        contact = f"<sip:{guess}@{CALLEE_HOST}>"
        ladder.callee.answers(183, body=ANSWER.replace(b"bob", guess.encode()), headers=lines, contact=contact)
        ladder.callee.accepts(body=ANSWER, headers=lines, contact=contact)
        ladder.callee.sends("INFO", body=b"5", content_type="application/dtmf", headers=lines)
        ladder.callee.sends("BYE", headers=lines)
        ladder.run(40)
        assert "leak_check" not in ladder.engine.statistics()
        seen.append([data.partition(b"\r\n")[0].replace(guess.encode(), b"GUESS") for data, _ in ladder.callee.inbox])
    assert seen[0] == seen[1]


def test_a_right_guess_in_a_registered_contact_is_called_as_a_wrong_one() -> None:
    """The phone rings in both cases."""
    seen = []
    for guess in (A[2:], "13812345678"):
        ladder = Ladder(callee_host=PHONE_HOST, peers=(PBX, PHONE), tried=("phone",), sms=True)
        ladder.callee.contact = f"<sip:{guess}@10.0.0.5;g={guess}>"
        registers(ladder.callee)
        connect(ladder)
        ladder.caller.sends("BYE")
        ladder.callee.expects("BYE")
        ladder.caller.get(200)
        deliver(ladder.caller, ladder.callee)
        assert "leak_check" not in ladder.engine.statistics()
        seen.append([data.replace(guess.encode(), b"GUESS") for data in ladder.callee.received])
    assert seen[0] == seen[1]
    assert len(seen[0]) > 4


# -- the leak check when it must strike


def test_a_binding_that_shows_the_real_number_makes_no_call() -> None:
    """A fault in the store: the number shown is the caller's own."""
    ladder = Ladder({(X, A): Route("b1", "AXB", "default", None, B, A)})
    ladder.caller.calls(X)
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(480)
    assert ladder.engine.statistics()["leak_check"] == 1
    assert (ladder.record.outcome, ladder.record.end_reason) == ("failed", "leak_check")
    assert A[2:] not in str([note.fields for note in ladder.notes])
    ladder.settle()


@pytest.mark.parametrize("asked", [True, False])
def test_an_identity_is_the_number_shown_and_only_where_the_peer_asks(asked: bool) -> None:
    ladder = CanaryLadder(peers=tuple(replace(peer, send_pai=asked) for peer in settings_for().peers))
    ladder.caller.invites(X)
    identities = ladder.callee.get_request("INVITE").get_all("p-asserted-identity")
    assert identities == ([f"<sip:{X}@{RELAY}>"] if asked else [])
    ladder.check_privacy()


def test_two_peers_of_one_domain_are_no_leak() -> None:
    named = {"pbx": "carrier.example", "carrier": "sbc.carrier.example"}
    peers = tuple(
        replace(peer, targets=(target_at(named[peer.name]),)) if peer.name in named else peer
        for peer in settings_for().peers
    )
    ladder = Ladder(peers=peers, callee_host="sbc.carrier.example")
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")


# -- targets elsewhere

ELSEWHERE = [RELAY, CALLER_HOST, "203.0.113.9", "evil.example", "127.0.0.23", "[fd00::10]", "localhost"]


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("where", ["contact", "record-route", "both"])
def test_a_callee_cannot_send_the_relay_elsewhere(host: str, where: str) -> None:
    """The To of our requests is the callee's real number: nobody but its own peer may see it."""
    ladder = clean()
    if host == CALLER_HOST:  # its echo to the callee is the callee's own word
        ladder.marks[CALLER_HOST] = ALICE._replace(host="0.0.0.0")
    evil = f"<sip:{BOB.friend}@{host}:5060;lr>"
    contact = evil if where != "record-route" else None
    headers = f"Record-Route: {evil}\r\n" if where != "contact" else ""
    call(ladder, headers="Supported: 100rel\r\n")
    ladder.callee.proceeds(183, headers=f"{headers}Require: 100rel\r\nRSeq: 1\r\n", contact=contact)
    ladder.caller.sends("PRACK", headers=f"RAck: 1 {ladder.caller.cseq} INVITE\r\n")
    ladder.callee.expects("PRACK")
    ladder.caller.get(200)
    ladder.callee.accepts(body=ANSWER, headers=headers, contact=contact)
    ladder.caller.is_answered()
    ladder.callee.sends("UPDATE", headers=f"Contact: {evil}\r\n")
    ladder.caller.expects("UPDATE")
    ladder.callee.get(200)
    hang_up(ladder)


@pytest.mark.parametrize("host", [RELAY, CALLEE_HOST, "203.0.113.9", "evil.example"])
def test_a_caller_cannot_send_the_relay_elsewhere(host: str) -> None:
    ladder = clean()
    if host == CALLEE_HOST:
        ladder.marks[CALLEE_HOST] = BOB._replace(host="0.0.0.0")
    evil = f"<sip:{ALICE.friend}@{host}:5060;lr>"
    call(ladder, headers=f"Record-Route: {evil}\r\n", contact=evil)
    answer(ladder)
    hang_up(ladder, "callee")


def test_a_host_name_for_the_media_takes_the_answer_down() -> None:
    ladder = clean()
    call(ladder)
    ladder.callee.accepts(body=ANSWER.replace(b"127.0.0.32", b"bobmark.example"))
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(488)
    ladder.settle()


# -- blown up


def test_long_attributes_are_not_remembered() -> None:
    ladder = clean()
    before = [cached.cache_info().currsize for cached in (codecs._mask_fmtp, codecs._mask_rtpmap)]
    body = OFFER + b"".join(b"a=fmtp:8 maxptime=40;%b\r\n" % (b"x%d;" % number * 900) for number in range(14))
    ladder.caller.invites(X, body=body)
    assert ladder.callee.get_request("INVITE").body.count(b"fmtp") == 0
    after = [cached.cache_info().currsize for cached in (codecs._mask_fmtp, codecs._mask_rtpmap)]
    assert after[0] == before[0]
    ladder.callee.answers(486)
    ladder.caller.get(100)
    ladder.caller.is_refused(486)
    ladder.settle()


@pytest.mark.parametrize("status", [180, 200])
def test_a_callee_that_forks_without_end(status: int) -> None:
    ladder = clean()
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    for number in range(500):
        ladder.callee.answers(status, body=ANSWER, tag=f"bobmark{number}")
    statistics = ladder.engine.statistics()
    assert statistics["legs"] <= 70
    assert statistics["transactions"] <= 70
    assert statistics["forks_over_limit"] > 400
    ladder.run(200)
    ladder.settle()


def test_a_description_of_the_utmost_size() -> None:
    ladder = clean()
    media = b"m=audio 4000 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=alicemark\r\na=fmtp:8 alicemark=1\r\n" * 63
    ladder.caller.invites(X, body=OFFER + media)
    invite = ladder.callee.get_request("INVITE")
    assert invite.body.count(b"m=audio 4000 RTP/AVP 8 0") == 64
    ladder.caller.get(100)
    ladder.callee.answers(486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_a_call_goes_on_beside_all_that() -> None:
    ladder = clean()
    connect(ladder)
    hang_up(ladder)
