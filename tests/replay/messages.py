"""Traced messages and calls for the tests: a hop between two machines, written as a ladder."""

from __future__ import annotations

from relay.replay.script import Attempt, find_calls
from relay.replay.trace import Endpoint, Event, Trace
from relay.sip.message import parse_message

CALLER = Endpoint("10.1.1.1", 5062)
CALLEE = Endpoint("10.2.2.2", 5060)
SDP = (
    "v=0\r\no=device-{who} 1 1 IN IP4 10.9.9.9\r\ns=-\r\nc=IN IP4 10.9.9.9\r\nt=0 0\r\nm=audio 6000 RTP/AVP 8\r\n"
    "a=rtpmap:8 PCMA/8000\r\n"
)


def event(
    line: str,
    *,
    time_s: float = 0.0,
    call_id: str = "call-of-the-trace",
    extra: str = "",
    hop: tuple[Endpoint, Endpoint] = (CALLER, CALLEE),
) -> Event:
    """`line`: `> INVITE 1 sdp` or `< 200 1 INVITE sdp`: direction, request or status, CSeq, and options.

    Options: `sdp` adds a body, `new` omits the To tag, `b=...` sets the branch.
    """
    direction, what, cseq, *words = line.split()
    caller, callee = hop
    source, destination = (caller, callee) if direction == ">" else (callee, caller)
    is_request = not what.isdigit()
    method = what if is_request else words.pop(0)
    origin_is_caller = (direction == ">") == is_request
    branch = next((word[2:] for word in words if word.startswith("b=")), f"{method}{cseq}")
    body = SDP.format(who="caller" if direction == ">" else "callee") if "sdp" in words else ""
    caller_side = '"Alice Example" <sip:13812345678@trace.example>;tag=ca'
    callee_side = "<sip:13987654321@trace.example>" + ("" if "new" in words else ";tag=ce")
    ends = (caller_side, callee_side) if origin_is_caller else (callee_side, caller_side)
    contact = "13812345678@10.1.1.1:5062" if direction == ">" else "13987654321@10.2.2.2"
    lines = [
        f"{what} sip:13987654321@trace.example SIP/2.0" if is_request else f"SIP/2.0 {what} Reason of the trace",
        f"Via: SIP/2.0/UDP trace.example;branch=z9hG4bK{branch}",
        f"From: {ends[0]}",
        f"To: {ends[1]}",
        f"Call-ID: {call_id}",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:{contact}>",
        "Max-Forwards: 69",
        *filter(None, extra.split("\n")),
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    data = ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
    return Event(time_s, source, destination, parse_message(data))


def trace_of(*events: Event | str) -> Trace:
    """A trace of `event` lines, 0.1 s apart, or of events."""
    trace = Trace()
    for number, item in enumerate(events):
        trace.events.append(event(item, time_s=number / 10) if isinstance(item, str) else item)
    return trace


def attempts_of(*events: Event | str) -> list[Attempt]:
    return find_calls(trace_of(*events)).attempts
