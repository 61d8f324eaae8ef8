"""Provisional responses, written for the other leg."""

from __future__ import annotations

from relay.call.progress import write_progress
from relay.sip.message import Response, parse_message
from tests.call.test_leg import Pair


def progress(pair: Pair, rseq: int | None) -> bytes | None:
    """The callee's 183 for the caller."""
    line = "" if rseq is None else f"RSeq: {rseq}\r\nRequire: 100rel\r\n"
    response = parse_message(f"SIP/2.0 183 x\r\n{line}\r\n".encode())
    assert isinstance(response, Response)
    return write_progress(pair.caller, pair.invite, pair.reply, 183, response, 0.0)


def test_reliable_responses_get_our_rseq() -> None:
    pair = Pair()
    shown = [progress(pair, rseq) for rseq in (900, None, 901, 901, 900)]
    assert [data and parse_message(data).rseq for data in shown] == [1, None, 2, 2, None]
    pair.callee.invite_again(2)
    again = progress(pair, 900)
    assert again
    assert parse_message(again).rseq == 1
