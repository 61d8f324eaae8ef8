"""A probe caller beside SIPp's load, for the post-dial delay: SIPp's own clock is too coarse."""

from __future__ import annotations

import re
import select
import socket
import threading
import time
from collections.abc import Sequence

INTERVAL_S = 0.04
STRAGGLERS_S = 1.0  # wait for answers after the last call
_STATUS = re.compile(rb"SIP/2\.0 (\d{3}) ")
_CALL_ID = re.compile(rb"\r\nCall-ID: *(\d+)@probe", re.IGNORECASE)
_TO = re.compile(rb"\r\nTo: *([^\r]*)", re.IGNORECASE)
_CONTACT = re.compile(rb"\r\nContact: *[^<\r]*<([^>\r]*)>", re.IGNORECASE)
_CSEQ = re.compile(rb"\r\nCSeq: *\d+ (\w+)", re.IGNORECASE)
_SDP = "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 6000 RTP/AVP 8\r\n"


class Probe(threading.Thread):
    """Calls through `target` until stop(): INVITE, then ACK and BYE at once, without retransmission.

    `delays_ms`: times from sending an INVITE to reading its 180; `answers_ms`: to its 200; `completed`: ended calls.
    """

    def __init__(
        self,
        host: str,
        target: tuple[str, int],
        numbers: Sequence[tuple[str, str]],
        interval_s: float = INTERVAL_S,
    ) -> None:
        super().__init__(daemon=True)
        self.delays_ms: list[float] = []
        self.answers_ms: list[float] = []
        self.completed = 0
        self._numbers = numbers  # (caller, number dialled) pairs, used in turn
        self._target = target
        self._interval_s = interval_s
        self._sent_at: dict[int, float] = {}
        self._rung: set[int] = set()
        self._stopping = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._host, self._port = self._socket.getsockname()

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._socket.close()

    def run(self) -> None:
        number, next_at = 0, time.perf_counter()
        while not self._stopping.is_set():
            self._read_until(next_at)
            self._sent_at[number] = time.perf_counter()
            self._request("INVITE", number, f"<sip:{self._dialled(number)}@{self._target[0]}>")
            number, next_at = number + 1, next_at + self._interval_s
        self._read_until(time.perf_counter() + STRAGGLERS_S)

    def _read_until(self, deadline: float) -> None:
        while (left_s := deadline - time.perf_counter()) > 0:
            if select.select([self._socket], [], [], left_s)[0]:
                self._receive(self._socket.recv(65_536), time.perf_counter())

    def _receive(self, data: bytes, now: float) -> None:
        status, call_id, cseq = _STATUS.match(data), _CALL_ID.search(data), _CSEQ.search(data)
        if not (status and call_id and cseq):
            return
        number = int(call_id[1])
        match cseq[1], int(status[1]):
            case b"INVITE", 180 if number in self._sent_at and number not in self._rung:
                self._rung.add(number)
                self.delays_ms.append(1000 * (now - self._sent_at[number]))
            case b"INVITE", 200:
                if number in self._sent_at:
                    self.answers_ms.append(1000 * (now - self._sent_at.pop(number)))
                self._end(data, number)
            case b"BYE", 200:
                self.completed += 1

    def _end(self, answer: bytes, number: int) -> None:
        to, contact = _TO.search(answer), _CONTACT.search(answer)
        if to and contact:
            for method in ("ACK", "BYE"):
                self._request(method, number, to[1].decode(), contact[1].decode())

    def _dialled(self, number: int) -> str:
        return self._numbers[number % len(self._numbers)][1]

    def _request(self, method: str, number: int, to: str, uri: str = "") -> None:
        caller = self._numbers[number % len(self._numbers)][0]
        own = f"{self._host}:{self._port}"
        body = _SDP.format(host=self._host) if method == "INVITE" else ""
        lines = [
            f"{method} {uri or f'sip:{self._dialled(number)}@{self._target[0]}:{self._target[1]}'} SIP/2.0",
            f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{self._port}{method}{number}",
            f"From: <sip:{caller}@{own}>;tag={self._port}p{number}",
            f"To: {to}",
            f"Call-ID: {number}@probe{self._port}",
            f"CSeq: {2 if method == 'BYE' else 1} {method}",
            f"Contact: <sip:{caller}@{own}>",
            "Max-Forwards: 70",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self._socket.sendto(("\r\n".join(lines) + "\r\n\r\n" + body).encode(), self._target)
