"""A classic BPF program by which the kernel gives most datagrams to the right one of several sockets at once.

It is speed alone: it knows the usual forms of usual messages, and `relay.net.mates` hands over what comes to the wrong
worker. It reads from the first byte of a datagram's payload on. What it returns is the index of a socket, or
NO_SOCKET: then the kernel chooses by source and destination.
"""

from __future__ import annotations

import struct
from typing import Final

from relay.call.settings import Listener

# linux/filter.h, linux/bpf_common.h: A is the accumulator, X the index, M[0] a word of memory.
LOAD_WORD: Final = 0x40  # A = four bytes at X + operand
LOAD_BYTE: Final = 0x50  # A = the byte at X + operand
LOAD_INDEX: Final = 0x01  # X = operand
LOAD_INDEX_FROM_MEMORY: Final = 0x61  # X = M[operand]
STORE: Final = 0x02  # M[operand] = A
ADD_INDEX: Final = 0x0C  # A += X
SUBTRACT: Final = 0x14
MULTIPLY: Final = 0x24
AND: Final = 0x54
MODULO: Final = 0x94
GO: Final = 0x05
GO_IF_EQUAL: Final = 0x15
GO_IF_AT_LEAST: Final = 0x35
RETURN: Final = 0x06
RETURN_A: Final = 0x16
NO_SOCKET: Final = 0xFFFFFFFF

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter

# By the first four bytes of a request: where its URI begins.
_URIS: Final = {b"INVI": 7, b"ACK ": 4, b"BYE ": 4, b"CANC": 7, b"MESS": 8, b"UPDA": 7, b"PRAC": 6, b"INFO": 5}
# What follows the status: the most frequent first, then whatever is as long as these or any other up to this.
_LONGEST_PHRASE: Final = 48
_PHRASES: Final = (
    "OK",
    "Ringing",
    "Trying",
    "Session Progress",
    "Giving a try",  # OpenSIPS
    "trying -- your call is important to us",  # Kamailio
    "Busy Here",
    "canceling",  # Kamailio and OpenSIPS, to a CANCEL
    "Request Terminated",
    "Temporarily Unavailable",
    "Service Unavailable",
    "Not Acceptable Here",
    "Request Timeout",
    "Server Internal Error",
    "Call/Transaction Does Not Exist",
)


class Assembler:
    """Instructions in their order, with names for places further on; jumps go forward only."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, str]] = []
        self._places: dict[str, int] = {}

    def add(self, code: int, operand: int = 0, to: str = "") -> None:
        """`to`: the place that a jump goes to; where its condition does not hold, the next instruction follows."""
        self._lines.append((code, operand, to))

    def place(self, name: str) -> None:
        """The next instruction is at this place."""
        self._places[name] = len(self._lines)

    def assemble(self) -> bytes:
        """As struct sock_filter[]."""
        program = b""
        for number, (code, operand, to) in enumerate(self._lines, 1):
            distance = self._places[to] - number if to else 0
            if code == GO:
                program += _INSTRUCTION.pack(code, 0, 0, distance)
            else:
                program += _INSTRUCTION.pack(code, distance, 0, operand)
        return program


def steering_program(listener: Listener, workers: int) -> bytes:
    """For the sockets of a UDP listener: as `relay.net.steering.owner` chooses, or no socket."""
    program = Assembler()
    _tell_apart(program)
    _take_responses(program, listener)
    _take_requests(program)
    program.place("some token")  # A is its first digit
    program.add(GO_IF_AT_LEAST, ord("a"), to="letter")
    program.add(SUBTRACT, ord("0"))
    program.add(GO, to="number")
    program.place("letter")
    program.add(SUBTRACT, ord("a") - 10)
    program.place("number")
    program.add(MODULO, workers)
    program.add(RETURN_A)
    program.place("none")
    program.add(RETURN, NO_SOCKET)
    return program.assemble()


def _tell_apart(program: Assembler) -> None:
    program.add(LOAD_INDEX, 0)
    program.add(LOAD_WORD, 0)
    program.add(GO_IF_EQUAL, _word(b"SIP/"), to="response")
    for method, uri in _URIS.items():
        program.add(LOAD_INDEX, uri)
        program.add(GO_IF_EQUAL, _word(method), to="request")
    program.add(GO_IF_EQUAL, _word(b"REGI"), to="first")
    program.add(GO, to="none")
    program.place("first")
    program.add(RETURN, 0)


def _take_responses(program: Assembler, listener: Listener) -> None:
    """By the branch of our own Via, which peers give back as it was, but for parameters that they insert."""
    program.place("response")
    for length in dict.fromkeys([*(len(phrase) for phrase in _PHRASES), *range(_LONGEST_PHRASE + 1)]):
        program.add(LOAD_INDEX, len("SIP/2.0 200 ") + length)
        program.add(LOAD_WORD, 0)
        program.add(GO_IF_EQUAL, _word(b"\r\nVi"), to="via")
    program.add(GO, to="none")
    program.place("via")
    parameters = len(f"\r\nVia: SIP/2.0/UDP {listener.sent_by}")
    inserted = len(f";rport={listener.port};received={listener.advertised.strip('[]')}")  # Asterisk, pjsua2
    program.add(LOAD_WORD, parameters)
    program.add(GO_IF_EQUAL, _word(b";bra"), to="branch")
    program.add(LOAD_WORD, parameters + inserted)
    program.add(GO_IF_EQUAL, _word(b";bra"), to="later branch")
    program.add(GO, to="none")
    program.place("branch")
    program.add(LOAD_BYTE, parameters + len(";branch=z9hG4bK"))
    program.add(GO, to="some token")
    program.place("later branch")
    program.add(LOAD_BYTE, parameters + inserted + len(";branch=z9hG4bK"))
    program.add(GO, to="some token")


def _take_requests(program: Assembler) -> None:
    """By the number in the URI. In a dialog that is our Contact, whose number is the one that was dialled, or shown."""
    program.place("request")
    program.add(LOAD_WORD, 0)
    program.add(GO_IF_EQUAL, _word(b"sip:"), to="sip")
    program.add(GO, to="none")
    program.place("sip")
    program.add(LOAD_WORD, len("sip:"))
    program.add(AND, 0xFFFFFF00)
    program.add(GO_IF_EQUAL, _word(b"700\0"), to="700")
    program.add(GO, to="none")
    program.place("700")
    program.add(LOAD_BYTE, len("sip:700100000010001"))
    program.add(GO_IF_EQUAL, ord("@"), to="digits")
    program.add(GO, to="none")
    program.place("digits")
    program.add(LOAD_BYTE, len("sip:7001000000100"))
    program.add(MULTIPLY, 10)
    program.add(STORE, 0)
    program.add(LOAD_BYTE, len("sip:70010000001000"))
    program.add(LOAD_INDEX_FROM_MEMORY, 0)
    program.add(ADD_INDEX)
    program.add(SUBTRACT, ord("0") * 11)
    program.add(GO, to="number")


def _word(text: bytes) -> int:
    return int.from_bytes(text, "big")
