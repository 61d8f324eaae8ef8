"""Peers without a fixed address: challenges, registration, calls to the registered contact, impersonation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.defence.limits import SHARE
from relay.defence.shedding import Rank
from relay.model.settings import Account, Limits, Peer
from relay.peers.auth import LIFE_S
from relay.sip.digest import Challenge, answer, parse_challenge
from relay.sip.message import Flow, Request, Response
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import Ladder, bye, connect, hang_up, ring
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, STRANGER_HOST, A, B, X, peer
from tests.ladder.side import Side
from tests.ladder.texts import deliver

ACCOUNT = Account("1001", "secret")
PHONE_HOST = "127.0.0.44"
INSIDE = "10.0.0.5:5062;line=abc"  # the phone's private address


def phone_peer(name: str = "phone", login: Account = ACCOUNT) -> Peer:
    return Peer(name, (), tcp_allowed=False, sources=(), login=login)


PBX, PHONE, CARRIER = peer("pbx", CALLER_HOST), phone_peer(), peer("carrier", CALLEE_HOST)
SECOND = phone_peer("second", Account("1002", "word"))


@pytest.fixture
def called() -> Ladder:
    """A ladder whose callee is a phone without a fixed address."""
    ladder = Ladder(callee_host=PHONE_HOST, peers=(PBX, PHONE), tried=("phone",), sms=True)
    ladder.callee.contact = f"<sip:bob@{INSIDE}>"
    return ladder


@pytest.fixture
def calling() -> Ladder:
    """A ladder whose caller is such a phone."""
    return Ladder(caller_host=PHONE_HOST, peers=(PHONE, CARRIER), routes=None)


def challenged(side: Side) -> dict[str, Challenge]:
    """The challenges by algorithm, in the order of their lines."""
    texts = side.get_response(401).get_all("www-authenticate")
    return {found.algorithm: found for text in texts if (found := parse_challenge(text))}


def credentials(
    side: Side,
    method: str,
    challenge: Challenge,
    *,
    username: str = "1001",
    password: str = "secret",
    nc: int = 1,
    uri: str = "",
) -> str:
    return f"Authorization: {answer(challenge, username, password, method, uri or side.target, 'cnonce', nc)}\r\n"


def asks_to_register(side: Side, more: str = "", *, expires: str = "100", contact: str | None = None) -> None:
    side.from_uri = side.to_uri = f"sip:1001@{side.relay}"
    side.target, side.remote_tag, side.call_id = f"sip:{side.relay}", "", f"{side.name}-registration"
    where = f"Contact: {contact or side.contact}\r\n"
    side.sends("REGISTER", headers=f"{where}Expires: {expires}\r\n{more}")


def registers(side: Side, *, expires: str = "100", contact: str | None = None, username: str = "1001") -> Response:
    asks_to_register(side, expires=expires, contact=contact)
    line = credentials(side, "REGISTER", challenged(side)["SHA-256"], username=username)
    asks_to_register(side, line, expires=expires, contact=contact)
    data = side.last() if not side.inbox else side.get(_status(side))
    assert isinstance(data, Response)
    return data


def _status(side: Side) -> int:
    return int(side.inbox[0][0].split(b" ")[1])


def is_registered(ladder: Ladder) -> bool:
    return bool(ladder.engine.statistics()["logins"])


def calls(side: Side) -> None:
    """An INVITE with the requested credentials."""
    side.invites(X)
    challenge = challenged(side)["SHA-256"]
    side.remote_tag = ""
    side.invites(X, headers=credentials(side, "INVITE", challenge))


def test_peer_is_called_at_its_registered_contact(called: Ladder) -> None:
    """Over the flow of its REGISTER, with its private address in the Request-URI."""
    granted = registers(called.callee)
    assert granted.status == 200
    assert granted.get("contact") == f"<sip:bob@{INSIDE}>;expires=100"
    connect(called)
    assert called.callee.invite is not None
    assert called.callee.invite.uri == f"sip:{B[2:]}@{INSIDE}"
    assert called.record.peer_out == "phone"
    hang_up(called)


@pytest.mark.parametrize("contact", [f"<sip:bob@{CALLER_HOST}:5062>", f"<sip:bob@{INSIDE};g={A[2:]}>"])
def test_contact_like_the_callers_address_or_number_is_no_leak(called: Ladder, contact: str) -> None:
    """Both phones may have the same private address; a right guess of the number gets the call as a wrong one does."""
    called.callee.contact = contact
    registers(called.callee)
    connect(called)
    bye(called.caller, called.callee)
    assert deliver(called.caller, called.callee).uri == contact.strip("<>").replace("bob", B[2:])
    called.run(200)
    called.check_nothing_left()
    assert "leak_check" not in called.engine.statistics()


def test_sha_256_and_md5_are_offered_in_that_order_and_accepted(called: Ladder) -> None:
    for algorithm in ("SHA-256", "MD5"):
        asks_to_register(called.callee)
        offered = challenged(called.callee)
        assert list(offered) == ["SHA-256", "MD5"]
        assert {(challenge.has_qop, challenge.stale) for challenge in offered.values()} == {(True, False)}
        asks_to_register(called.callee, credentials(called.callee, "REGISTER", offered[algorithm]))
        called.callee.get(200)
    called.settle()


def test_algorithm_that_is_not_offered_is_rejected() -> None:
    ladder = Ladder(peers=(PBX, PHONE), callee_host=PHONE_HOST, login_algorithms=("MD5",))
    asks_to_register(ladder.callee)
    offered = challenged(ladder.callee)
    assert list(offered) == ["MD5"]
    sha_256 = offered["MD5"]._replace(algorithm="SHA-256")
    asks_to_register(ladder.callee, credentials(ladder.callee, "REGISTER", sha_256))
    ladder.callee.get(401)
    asks_to_register(ladder.callee, credentials(ladder.callee, "REGISTER", offered["MD5"], nc=2))
    ladder.callee.get(200)
    ladder.settle()


def test_registered_peer_calls_without_a_challenge(calling: Ladder) -> None:
    registers(calling.caller)
    connect(calling)
    assert calling.record.peer_in == "phone"
    hang_up(calling)


def test_call_without_a_registration_is_challenged(calling: Ladder) -> None:
    """The challenge makes no record and no transaction; in-dialog requests are not challenged."""
    calling.caller.invites(X)
    tag = calling.caller.get_response(401).to_tag
    calling.caller.sends_again("INVITE")
    assert calling.caller.get_response(401).to_tag == tag  # RFC 3261 8.2.7
    calling.caller.acks_refusal()
    calling.caller.gets_nothing()
    assert (calling.records, calling.engine.statistics()["transactions"]) == ({}, 0)
    calls(calling.caller)
    calling.caller.get(100)
    calling.callee.get("INVITE")
    calling.callee.accepts(body=ANSWER)
    calling.caller.is_answered()
    calling.caller.sends("INFO")
    calling.callee.expects("INFO")
    calling.caller.get(200)
    hang_up(calling)


def test_call_of_a_registered_peer_can_be_cancelled(calling: Ladder) -> None:
    calls(calling.caller)
    calling.caller.get(100)
    calling.callee.get("INVITE")
    calling.callee.answers(180)
    calling.caller.get(180)
    calling.caller.gives_up()
    calling.callee.is_cancelled()
    calling.settle()


def test_in_dialog_request_from_another_address_is_challenged(calling: Ladder) -> None:
    registers(calling.caller)
    connect(calling)
    stranger = calling.side("127.0.0.66", "mallory")
    here, calling.caller.flow = calling.caller.flow, stranger.flow
    calling.caller.sends("BYE")
    calling.caller.flow = here
    assert _status(stranger) == 401
    calling.callee.gets_nothing()
    hang_up(calling)


def test_unregistered_peer_cannot_be_called(called: Ladder) -> None:
    called.caller.calls(X)
    called.caller.is_refused(480)
    called.settle()
    assert called.record.outcome == "unreachable"


def test_registration_expires(called: Ladder) -> None:
    registers(called.callee, expires="60")
    called.run(59)
    assert is_registered(called)
    called.run(1)
    assert not is_registered(called)
    called.callee.invites(X, caller=B[2:])
    called.callee.get(401)
    assert [note.event for note in called.notes] == ["login.registered", "login.ended"]
    called.settle()


def test_registration_is_refreshed(called: Ladder) -> None:
    registers(called.callee, expires="60")
    called.run(50)
    registers(called.callee, expires="60")
    called.run(50)
    assert is_registered(called)
    assert [note.event for note in called.notes] == ["login.registered"]
    called.settle()


def test_register_that_was_overtaken_changes_nothing(called: Ladder) -> None:
    """RFC 3261 10.3, step 7: with the same Call-ID the CSeq has to be higher."""
    phone = called.callee
    registers(phone)
    cseq = phone.cseq
    for contact in ("<sip:old@127.0.0.24:5070>", "*"):
        phone.cseq = cseq - 2
        assert registers(phone, contact=contact, expires="0" if contact == "*" else "100").status == 500
    assert is_registered(called)
    phone.name, phone.cseq = "bob-after-a-restart", 0  # with another Call-ID
    assert registers(phone).status == 200
    called.settle()


def test_registration_moves_to_a_new_address(called: Ladder) -> None:
    registers(called.callee)
    before, called.callee.flow = called.callee.flow, called.callee.flow._replace(port=5070)
    registers(called.callee)
    connect(called)
    assert {flow for data, flow in called.checks.sent if data.startswith(b"INVITE")} == {called.callee.flow}
    hang_up(called)
    called.callee.flow = before
    called.callee.invites(X, caller=B[2:])
    called.callee.get(401)


@pytest.mark.parametrize(
    ("contact", "expires"),
    [("*", "0"), (None, "0"), (f"<sip:bob@{INSIDE}>;expires=0", "300")],
)
def test_registration_is_removed(called: Ladder, contact: str | None, expires: str) -> None:
    registers(called.callee)
    gone = registers(called.callee, contact=contact, expires=expires)
    assert (gone.status, gone.get("contact")) == (200, None)
    assert not is_registered(called)
    called.settle()


def test_call_follows_the_registration(called: Ladder) -> None:
    """NAT has given the phone another port; its private Contact is the same."""
    registers(called.callee)
    connect(called)
    invited = called.callee.call_id, called.callee.remote_tag
    called.callee.flow = called.callee.flow._replace(port=5070)
    registers(called.callee)
    called.callee.call_id, called.callee.remote_tag = invited
    called.caller.sends("BYE")
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


def connects(phone: Side, port: int, contact: str) -> None:
    """The phone opens a connection, from that port, and registers on it."""
    phone.flow = Flow(1, "tcp", PHONE_HOST, port, port)
    phone.contact = contact.format(port=port)
    registers(phone)


WRITTEN = pytest.mark.parametrize(
    "contact", [f"<sip:bob@{INSIDE}>", f"<sip:bob@{PHONE_HOST}:{{port}};transport=tcp>"], ids=["private", "public"]
)


@WRITTEN
def test_call_follows_the_registration_to_a_new_connection(called: Ladder, contact: str) -> None:
    connects(called.callee, 40_000, contact)
    connect(called)
    invited = called.callee.call_id, called.callee.remote_tag
    called.transport_fails(called.callee.flow)
    connects(called.callee, 40_001, contact)
    called.callee.call_id, called.callee.remote_tag = invited
    called.caller.reinvites(HOLD)
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.agrees(HELD)
    called.caller.is_answered()
    called.caller.sends("BYE")
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


def test_call_goes_to_the_contact_of_a_phone_that_is_not_registered(called: Ladder) -> None:
    """It may send from another port than it listens on."""
    called.callee.contact = f"<sip:bob@{PHONE_HOST}:5070>"
    registers(called.callee, expires="60")
    connect(called)
    called.run(61)
    called.caller.sends("BYE")
    assert called.callee.inbox[0][1].port == 5070
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


@pytest.mark.parametrize("contact", ["<sip:bob@10.9.9.9>", f"<sip:bob@{PHONE_HOST}:5070>"])
def test_call_does_not_follow_another_phone_with_the_same_login(called: Ladder, contact: str) -> None:
    if PHONE_HOST in contact:  # both behind one NAT, and both write its address
        called.callee.contact = f"<sip:bob@{PHONE_HOST}:{called.callee.flow.port}>"
    registers(called.callee)
    connect(called)
    before, called.callee.flow = called.callee.flow, called.callee.flow._replace(port=5070)
    registers(called.callee, contact=contact)
    called.callee.flow = before
    called.caller.sends("BYE")
    assert called.callee.inbox[0][1] == before
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


def test_call_does_not_follow_another_phone_with_the_same_private_address(called: Ladder) -> None:
    """At another site."""
    registers(called.callee)
    connect(called)
    other = called.side("127.0.0.45", "carol")
    registers(other, contact=called.callee.contact)
    called.caller.sends("BYE")
    other.gets_nothing()
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


def rings_on_a_lost_connection(called: Ladder, contact: str) -> Request:
    """A ringing phone, whose connection is lost before it registers again. Returns its INVITE."""
    connects(called.callee, 40_000, contact)
    invite = ring(called)
    called.transport_fails(called.callee.flow)
    return invite


@WRITTEN
def test_ack_follows_the_registration(called: Ladder, contact: str) -> None:
    invite = rings_on_a_lost_connection(called, contact)
    called.callee.answers(200, invite, body=ANSWER)
    called.callee.get("ACK")  # lost: on the old connection
    called.caller.is_answered()
    call_id = called.callee.call_id
    connects(called.callee, 40_001, contact)
    called.callee.answers(200, invite, body=ANSWER)
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.get("ACK")
    called.callee.call_id = call_id
    called.caller.sends("BYE")
    called.callee.expects("BYE")
    called.caller.get(200)
    called.settle()


@WRITTEN
def test_cancel_follows_the_registration(called: Ladder, contact: str) -> None:
    invite = rings_on_a_lost_connection(called, contact)
    connects(called.callee, 40_001, contact)
    called.caller.gives_up()
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.is_cancelled(invite)
    called.settle()


def test_removal_of_another_contact_has_no_effect(called: Ladder) -> None:
    registers(called.callee)
    kept = registers(called.callee, contact="<sip:bob@10.9.9.9>", expires="0")
    assert kept.get("contact") == f"<sip:bob@{INSIDE}>;expires=100"
    called.settle()


@pytest.mark.parametrize(
    ("contact", "expires", "status", "lines"),
    [
        (None, "59", 423, {"min-expires": "60"}),
        (f"<sip:bob@{INSIDE}>;expires=60, <sip:bob@10.9.9.9>;expires=5", "60", 423, {}),
        (None, "3601", 200, {"contact": f"<sip:bob@{INSIDE}>;expires=3600"}),
        (None, "soon", 200, {"contact": f"<sip:bob@{INSIDE}>;expires=3600"}),  # RFC 3261 20.19
        (f"<sip:bob@{INSIDE}>;expires=70", "600", 200, {"contact": f"<sip:bob@{INSIDE}>;expires=70"}),
        ("*", "60", 400, {}),
        ("<tel:+8613800000001>", "60", 400, {}),
        (f"<sip:{'b' * 600}@{INSIDE}>", "60", 400, {}),
    ],
)
def test_granted_time_follows_expires(
    called: Ladder, contact: str | None, expires: str, status: int, lines: dict[str, str]
) -> None:
    response = registers(called.callee, contact=contact, expires=expires)
    assert response.status == status
    assert {name: response.get(name) for name in lines} == lines
    assert is_registered(called) == (status == 200)


def test_register_without_a_contact_is_a_query(called: Ladder) -> None:
    registers(called.callee)
    called.callee.sends("REGISTER")
    challenge = challenged(called.callee)["MD5"]
    called.callee.sends("REGISTER", headers=credentials(called.callee, "REGISTER", challenge))
    assert called.callee.get_response(200).get("contact") == f"<sip:bob@{INSIDE}>;expires=100"
    called.settle()


def test_register_is_challenged_even_from_the_registered_address(called: Ladder) -> None:
    registers(called.callee)
    asks_to_register(called.callee, expires="0")
    called.callee.get(401)
    assert is_registered(called)
    called.settle()


@pytest.mark.parametrize(
    "wrong",
    [{"password": "guess"}, {"username": "1002"}, {"uri": "sip:127.0.0.99"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_credentials_are_rejected(called: Ladder, wrong: dict[str, str]) -> None:
    asks_to_register(called.callee)
    challenge = challenged(called.callee)["SHA-256"]
    asks_to_register(called.callee, credentials(called.callee, "REGISTER", challenge, **wrong))  # type: ignore[arg-type]
    assert not challenged(called.callee)["SHA-256"].stale
    assert not is_registered(called)
    assert [(note.event, note.fields["source"]) for note in called.notes] == [("login.failed", PHONE_HOST)]
    assert called.engine.statistics()["logins_failed"] == 1
    called.settle()


def test_password_guesses_are_limited() -> None:
    """After ten failures in a minute not even the right password is accepted; that of another phone behind the same NAT
    is."""
    ladder = Ladder(peers=(PBX, PHONE, SECOND), callee_host=PHONE_HOST)
    phone = ladder.callee
    for nc in range(1, 12):
        ladder.run(1)
        asks_to_register(phone)
        challenge = challenged(phone)["SHA-256"]
        password = "secret" if nc == 11 else "guess"
        asks_to_register(phone, credentials(phone, "REGISTER", challenge, password=password))
        phone.get(401)
    asks_to_register(phone)
    line = credentials(phone, "REGISTER", challenged(phone)["SHA-256"], username="1002", password="word")
    asks_to_register(phone, line)
    phone.get(200)
    ladder.run(60)
    assert registers(phone).status == 200
    ladder.settle()


def test_password_guesses_of_many_usernames_are_limited() -> None:
    """After a hundred failures in a minute only usernames without one are checked."""
    more = tuple(phone_peer(f"phone{number}", Account(f"2{number:03}", "word")) for number in range(12))
    ladder = Ladder(peers=(PBX, PHONE, SECOND, *more), callee_host=PHONE_HOST)
    phone = ladder.callee

    def tries(username: str, password: str, nc: int) -> int:
        asks_to_register(phone, credentials(phone, "REGISTER", challenge, username=username, password=password, nc=nc))
        status = _status(phone) if phone.inbox else 0  # 0: no answer, by the limit of challenges
        phone.inbox.clear()
        return status

    asks_to_register(phone)
    challenge = challenged(phone)["SHA-256"]
    for username in ["1001", *(f"2{number:03}" for number in range(12))]:
        for _ in range(8):
            assert tries(username, "guess", 1) != 200
    assert tries("1001", "secret", 1) != 200
    assert tries("1002", "word", 2) == 200
    assert tries("1002", "guess", 3) != 200
    assert tries("1002", "word", 4) != 200
    ladder.settle()


def test_credentials_cannot_be_replayed(called: Ladder) -> None:
    """RFC 7616 3.4: neither the same nonce count nor a lower one; a higher one needs no new challenge."""
    asks_to_register(called.callee)
    challenge = challenged(called.callee)["SHA-256"]
    for nc, status in ((2, 200), (2, 401), (1, 401), (3, 200)):
        asks_to_register(called.callee, credentials(called.callee, "REGISTER", challenge, nc=nc))
        if status == 200:
            called.callee.get(200)
        else:
            assert challenged(called.callee)["SHA-256"].stale
    called.settle()


@pytest.mark.parametrize("expires", ["100", "0"])
def test_retransmitted_register_gets_the_same_response(called: Ladder, expires: str) -> None:
    """Its credentials are valid once, and the response may have been lost."""
    registers(called.callee)
    asks_to_register(called.callee, expires=expires)
    line = credentials(called.callee, "REGISTER", challenged(called.callee)["SHA-256"])
    asks_to_register(called.callee, line, expires=expires)
    first = called.callee.get_response(200)
    called.callee.sends_again("REGISTER")
    again = called.callee.get_response(200)
    assert (again.to_tag, again.get("contact")) == (first.to_tag, first.get("contact"))
    called.settle()


def test_register_over_the_transaction_limit_is_answered_once(called: Ladder) -> None:
    called.engine.reload(replace(called.settings, limits=Limits(max_transactions=0)), {}, called.now)
    asks_to_register(called.callee)
    line = credentials(called.callee, "REGISTER", challenged(called.callee)["SHA-256"])
    asks_to_register(called.callee, line)
    called.callee.get(200)
    called.callee.sends_again("REGISTER")
    assert challenged(called.callee)["SHA-256"].stale
    assert is_registered(called)
    called.settle()


def test_nonce_expires_and_is_bound_to_its_source(called: Ladder) -> None:
    asks_to_register(called.callee)
    challenge = challenged(called.callee)["SHA-256"]
    elsewhere = called.side("127.0.0.66", "mallory")
    asks_to_register(elsewhere, credentials(called.callee, "REGISTER", challenge))
    assert challenged(elsewhere)["SHA-256"].stale
    called.run(301)
    asks_to_register(called.callee, credentials(called.callee, "REGISTER", challenge))
    assert challenged(called.callee)["SHA-256"].stale
    asks_to_register(called.callee, credentials(called.callee, "REGISTER", challenge._replace(nonce="0" * 60)))
    assert challenged(called.callee)["SHA-256"].stale
    assert not is_registered(called)
    assert called.notes == []
    called.settle()


def test_challenges_are_rate_limited() -> None:
    ladder = Ladder(peers=(PBX, PHONE), callee_host=PHONE_HOST, limits=Limits(stranger_answers_per_s=3 * SHARE))
    stranger = ladder.side(STRANGER_HOST, "mallory")
    for _ in range(10):
        stranger.invites(X, caller=B[2:])
    assert len(stranger.inbox) == 3
    registers(ladder.callee)  # others still get their responses
    ladder.settle()


def registered_beside_strangers() -> tuple[Ladder, list[Side], str]:
    """Strangers who can use up the limit of challenges, and the phone's credentials."""
    ladder = Ladder(peers=(PBX, PHONE), callee_host=PHONE_HOST, limits=Limits(stranger_answers_per_s=SHARE))
    phone = ladder.callee
    strangers = [ladder.side(f"127.0.0.{number}", f"mallory{number}") for number in range(70, 70 + SHARE)]
    asks_to_register(phone)
    line = credentials(phone, "REGISTER", challenged(phone)["SHA-256"])
    asks_to_register(phone, line)
    phone.get(200)
    return ladder, strangers, line


def test_flood_of_strangers_keeps_no_phone_from_logging_in_again() -> None:
    ladder, strangers, line = registered_beside_strangers()
    phone = ladder.callee
    foreign = line.replace('nonce="', 'nonce="0')  # of an earlier process
    for more in ("", foreign, line):  # by its registered address, twice; by a nonce of ours
        for stranger in strangers:
            stranger.invites(X, caller=B[2:])
        asks_to_register(phone, more)
        phone.get(401)
        ladder.run(LIFE_S + 1 if more == foreign else 2)
    ladder.settle()


def test_flood_of_strangers_keeps_no_phone_of_before_a_restart_from_logging_in_again() -> None:
    """Its nonce shows that it is no stranger, but its credentials are not accepted again."""
    ladder, strangers, line = registered_beside_strangers()
    phone = ladder.callee
    ladder.restart()
    for stranger in strangers:
        stranger.invites(X, caller=B[2:])
    asks_to_register(phone, line)
    again = challenged(phone)["SHA-256"]
    assert again.stale
    assert not is_registered(ladder)
    asks_to_register(phone, credentials(phone, "REGISTER", again))
    phone.get(200)
    ladder.settle()


def test_nonces_of_before_a_restart_take_no_answers_of_phones_that_come_back() -> None:
    ladder = Ladder(peers=(PBX, PHONE), callee_host=PHONE_HOST, limits=Limits(stranger_answers_per_s=SHARE))
    phone = ladder.callee
    strangers = [ladder.side(f"127.0.0.{number}", f"mallory{number}") for number in range(70, 70 + SHARE)]
    lines = []
    for stranger in strangers:
        asks_to_register(stranger)
        lines.append(credentials(stranger, "REGISTER", challenged(stranger)["SHA-256"]))
    ladder.restart()
    asks_to_register(phone)
    line = credentials(phone, "REGISTER", challenged(phone)["SHA-256"])
    ladder.run(LIFE_S + 1)
    for stranger, old in zip(strangers, lines, strict=True):
        asks_to_register(stranger, old)
    asks_to_register(phone, line)
    assert challenged(phone)["SHA-256"].stale
    ladder.settle()


def test_source_that_repeats_stale_credentials_is_banned() -> None:
    """It takes the answers of phones that come back, and a nonce of ours shows that it is not forged."""
    ladder = Ladder(peers=(PBX, PHONE), callee_host=PHONE_HOST, limits=Limits(ban_after=5))
    stranger = ladder.side(STRANGER_HOST, "mallory")
    asks_to_register(stranger)
    line = credentials(stranger, "REGISTER", challenged(stranger)["SHA-256"])
    ladder.run(LIFE_S + 1)
    for _ in range(6):
        asks_to_register(stranger, line)
    assert ladder.engine.bans.holds(STRANGER_HOST)


@pytest.mark.parametrize("line", ["Authorization: Digest username=", "Authorization: Basic x", "Authorization: Digest"])
def test_malformed_credentials_are_challenged(called: Ladder, line: str) -> None:
    asks_to_register(called.callee, f"{line}\r\n")
    assert not challenged(called.callee)["MD5"].stale
    called.settle()


def test_register_with_an_unknown_extension_is_420(called: Ladder) -> None:
    asks_to_register(called.callee)
    challenge = challenged(called.callee)["MD5"]
    asks_to_register(called.callee, "Require: gruu\r\n" + credentials(called.callee, "REGISTER", challenge))
    assert called.callee.get_response(420).get("unsupported") == "gruu"
    called.settle()


def test_call_survives_a_restart_without_the_registration(called: Ladder) -> None:
    registers(called.callee)
    connect(called)
    called.restart()
    called.callee.expects("OPTIONS")
    called.caller.expects("OPTIONS")
    assert not is_registered(called)
    bye(called.callee, called.caller)
    assert registers(called.callee).status == 200
    called.settle()


def restart_without_connection(called: Ladder, contact: str = f"<sip:bob@{INSIDE}>") -> None:
    """Restart during a call of a phone on TCP, to which nothing else can open a connection."""
    connects(called.callee, 40_000, contact)
    connect(called)
    called.unreachable = {("tcp", PHONE_HOST)}
    called.restart()
    called.caller.expects("OPTIONS")


@WRITTEN
def test_call_of_a_phone_that_connects_again_survives_a_restart(called: Ladder, contact: str) -> None:
    restart_without_connection(called, contact)
    called.run(10)
    called.unreachable.clear()
    connects(called.callee, 40_001, contact)
    called.run(4)
    assert called.callee.inbox[0][1] == called.callee.flow
    called.callee.expects("OPTIONS")
    called.run(60)
    called.caller.gets_nothing()
    hang_up(called)


def test_call_of_a_phone_that_does_not_connect_again_ends_after_a_restart(called: Ladder) -> None:
    restart_without_connection(called)
    called.run(27)
    called.caller.gets_nothing()
    called.run(5)
    called.caller.expects("BYE")
    assert called.record.end_reason == "lost_at_restart"
    called.settle()


def test_reload_keeps_registrations_with_unchanged_logins(called: Ladder) -> None:
    registers(called.callee)
    called.engine.reload(called.settings, {}, called.now)
    connect(called)
    hang_up(called)
    registers(called.callee)
    other = phone_peer(login=Account("1001", "other"))
    for peers in ((PBX, other), (PBX, peer("phone", PHONE_HOST))):
        called.engine.reload(replace(called.settings, peers=peers), {}, called.now)
        called.perform()
        assert not is_registered(called)
    called.callee.contact = "<sip:bob@127.0.0.44>"
    called.caller.call_id, called.caller.tag = "second", "second"
    called.caller.calls(X)
    called.callee.get("INVITE")  # it has a fixed address now


def test_lost_connection_ends_the_registration(called: Ladder) -> None:
    called.callee.flow = Flow(1, "tcp", PHONE_HOST, 40_000, 7)
    registers(called.callee)
    assert is_registered(called)
    called.transport_fails(called.callee.flow._replace(connection=8))
    assert is_registered(called)
    called.transport_fails(called.callee.flow)
    assert not is_registered(called)
    called.settle()


def behind_a_proxy(flow: Flow, *, expires: str = "100") -> Ladder:
    """Two phones register by the flow of one proxy, the caller; `expires`: of the second."""
    ladder = Ladder(caller_host=PHONE_HOST, peers=(PHONE, SECOND, CARRIER), routes=None)
    proxy, contact = ladder.caller, "<sip:carol@10.0.0.6>"
    proxy.flow = flow
    registers(proxy)
    asks_to_register(proxy, contact=contact)
    line = credentials(proxy, "REGISTER", challenged(proxy)["MD5"], username="1002", password="word")
    asks_to_register(proxy, line, contact=contact, expires=expires)
    proxy.get(200)
    proxy.call_id = "by-the-proxy"
    return ladder


BY_UDP, BY_TCP = Flow(0, "udp", PHONE_HOST, 5060), Flow(1, "tcp", PHONE_HOST, 40_000, 7)


@pytest.mark.parametrize("flow", [BY_UDP, BY_TCP])
def test_peers_behind_one_proxy_are_challenged(flow: Flow) -> None:
    """The flow does not tell whose a request is."""
    ladder = behind_a_proxy(flow)
    calls(ladder.caller)
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    assert ladder.record.peer_in == "phone"
    hang_up(ladder)


def test_peers_behind_one_proxy_have_each_its_part_of_the_challenges() -> None:
    ladder = behind_a_proxy(BY_TCP)
    ladder.run(1)
    for number in range(11):
        ladder.caller.call_id = f"call-{number}"
        ladder.caller.invites(X)
    for _ in range(10):
        ladder.caller.get(401)
    ladder.caller.gets_nothing()


def test_peers_behind_one_proxy_are_no_strangers_under_overload() -> None:
    ladder = behind_a_proxy(BY_TCP)
    ladder.caller.invites(X)
    invite, flow = ladder.caller.sent["INVITE"], ladder.caller.flow
    assert ladder.engine.sort(invite, flow, 0.0, ladder.now, lasts=True) is Rank.NEW
    assert ladder.engine.sort(invite, flow._replace(port=40_001), 0.0, ladder.now, lasts=True) is Rank.STRANGER


def test_peer_left_alone_behind_a_proxy_is_not_challenged() -> None:
    ladder = behind_a_proxy(BY_UDP, expires="60")
    ladder.run(61)
    connect(ladder)
    assert ladder.record.peer_in == "phone"
    hang_up(ladder)


@pytest.mark.parametrize(("flow", "left"), [(BY_UDP, 2), (BY_TCP, 0)])
def test_lost_connection_of_a_proxy_ends_all_registrations_on_it(flow: Flow, left: int) -> None:
    ladder = behind_a_proxy(flow)
    ladder.engine.reload(ladder.settings, {}, ladder.now)
    ladder.transport_fails(flow)
    assert ladder.engine.statistics()["logins"] == left


def test_two_peers_behind_one_address_are_distinguished() -> None:
    ladder = Ladder(
        callee_host=PHONE_HOST,
        peers=(PBX, PHONE, SECOND),
        routes=None,
    )
    registers(ladder.callee)
    ladder.callee.flow = ladder.callee.flow._replace(port=5070)
    asks_to_register(ladder.callee)
    challenge = challenged(ladder.callee)["MD5"]
    line = credentials(ladder.callee, "REGISTER", challenge, username="1002", password="word")
    asks_to_register(ladder.callee, line)
    ladder.callee.get(200)
    targets = {state.peer: [target.target for target in state.targets] for state in ladder.engine.peers(ladder.now)}
    assert targets["phone"] == [f"udp:{PHONE_HOST}:5060"]
    assert targets["second"] == [f"udp:{PHONE_HOST}:5070"]
    assert ladder.engine.statistics()["logins"] == 2
