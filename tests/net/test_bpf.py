"""The program that steers datagrams chooses as `owner` does, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.settings import Listener
from relay.net.bpf import RETURN, RETURN_A, Assembler, steering_program
from relay.net.steering import owner
from tests.net.bpf_machine import NO_SOCKET, run

LISTENERS = [
    Listener("udp", "127.0.0.10", 5060, "127.0.0.10"),
    Listener("udp", "0.0.0.0", 15060, "sip.example.net"),
    Listener("udp", "::1", 5060, "[::1]"),
]
HEX = "0123456789abcdef"

listeners = st.sampled_from(LISTENERS)
workers = st.integers(2, 16)
serials = st.integers(0, 9999)
tokens = st.text(HEX, min_size=16, max_size=16)


def request(method: str, number: str, to_tag: str = "") -> bytes:
    to = f"<sip:{number}@h>;tag={to_tag}" if to_tag else f"<sip:{number}@h>"
    head = f"{method} sip:{number}@127.0.0.10:5060 SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nTo: {to}\r\n"
    return f"{head}Call-ID: c\r\nContent-Length: 0\r\n\r\n".encode()


def response(phrase: str, parameters: str, sent_by: str) -> bytes:
    return f"SIP/2.0 200 {phrase}\r\nVia: SIP/2.0/UDP {sent_by}{parameters}\r\nTo: <sip:h>\r\n\r\n".encode()


@given(listeners, workers, serials, st.sampled_from(["INVITE", "CANCEL", "ACK", "MESSAGE", "UPDATE", "PRACK", "INFO"]))
def test_what_dials_a_700_number_goes_by_its_last_digits(
    listener: Listener, count: int, serial: int, method: str
) -> None:
    data = request(method, f"70010000001{serial:04}")
    assert run(steering_program(listener, count), data) == owner(data, count) == serial % 100 % count


@given(listeners, workers, st.sampled_from(["BYE", "ACK", "UPDATE", "INFO", "PRACK", "INVITE"]))
def test_requests_in_a_call_go_by_our_contact(listener: Listener, count: int, method: str) -> None:
    data = request(method, "700100000010005", to_tag=f"{5 % count:x}123456789abcdef")
    assert run(steering_program(listener, count), data) == owner(data, count) == 5 % count


PHRASES = ["OK", "Ringing", "Trying", "Session Progress", "Giving a try", "trying -- your call is important to us"]
PHRASES += ["Busy Here", "canceling", "Request Terminated", "Temporarily Unavailable", "Not Found", "", "x" * 48]


@given(listeners, workers, tokens, st.sampled_from(PHRASES), st.booleans())
def test_responses_go_by_our_branch(listener: Listener, count: int, token: str, phrase: str, is_later: bool) -> None:
    inserted = f";rport={listener.port};received={listener.advertised.strip('[]')}"  # by pjsip, before the branch
    branch = f";branch=z9hG4bK{token}"
    data = response(phrase, inserted + branch if is_later else branch + inserted, listener.sent_by)
    assert run(steering_program(listener, count), data) == owner(data, count) == int(token[0], 16) % count


@pytest.mark.parametrize("listener", LISTENERS)
def test_registrations_go_to_the_first_worker(listener: Listener) -> None:
    data = b"REGISTER sip:h SIP/2.0\r\nTo: <sip:h>\r\n\r\n"
    assert run(steering_program(listener, 2), data) == owner(data, 2) == 0


@pytest.mark.parametrize(
    "data",
    [
        request("INVITE", "8613800000001"),
        request("INVITE", "+86700100000010001"),
        request("INVITE", "7001000000100012"),
        request("INVITE", "700100000010001").replace(b"sip:", b"tel:"),
        request("OPTIONS", "700100000010001"),
        response("A phrase that is longer than those of all the peers", f";branch=z9hG4bK{HEX}", "127.0.0.10:5060"),
        response("OK", f";x=y;branch=z9hG4bK{HEX}", "127.0.0.10:5060"),
        response("OK", f";branch=z9hG4bK{HEX}", "10.0.0.1:5060"),
        response("OK", f";branch=z9hG4bK{HEX}", "127.0.0.10:5060").replace(b"Via", b"v"),
        b"\r\n\r\n",
        bytes(200),
    ],
)
def test_what_it_does_not_know_it_leaves_to_the_kernel(data: bytes) -> None:
    assert run(steering_program(LISTENERS[0], 2), data) == NO_SOCKET


@given(st.binary(max_size=200), listeners, workers)
def test_it_ends_for_any_bytes(data: bytes, listener: Listener, count: int) -> None:
    program = steering_program(listener, count)
    for begun in (b"", b"INVITE sip:700", b"BYE sip:7", b"SIP/2.0 200 OK\r\nVia: ", b"SIP/"):
        chosen = run(program, begun + data)
        assert chosen < count or chosen == NO_SOCKET


def test_a_jump_goes_to_its_place() -> None:
    program = Assembler()
    program.add(0x05, to="end")
    program.add(RETURN, 1)
    program.place("end")
    program.add(RETURN_A)
    assert program.assemble() == bytes.fromhex("0500 00 00 01000000 0600 00 00 01000000 1600 00 00 00000000")
