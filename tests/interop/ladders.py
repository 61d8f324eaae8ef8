"""Every flow of a call as two ladders: what the caller's phone does, and what the callee's does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CallFlow:
    """A flow, and what its call record says afterwards."""

    caller: str
    callee: str
    outcome: str
    status: int | None = None
    ended_by: str | None = None
    callee_gets: tuple[tuple[str, str], ...] = ()  # words that must cross, in a message that begins so
    caller_gets: tuple[tuple[str, str], ...] = ()


def _ends_by_caller(
    caller: str,
    callee: str,
    callee_gets: tuple[tuple[str, str], ...] = (),
    caller_gets: tuple[tuple[str, str], ...] = (),
) -> CallFlow:
    """The given steps within a call that is answered and that the caller ends."""
    return CallFlow(
        f"""
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    {caller.strip()}
    > BYE
    < 200
    """,
        f"""
    < INVITE
    > 180
    > 200 sdp
    < ACK
    {callee.strip()}
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets,
        caller_gets,
    )


def _refused(status_of_callee: int, shown: int, outcome: str, header: str = "") -> CallFlow:
    return CallFlow(
        f"""
    > INVITE sdp
    < 100?
    < 180?
    < {shown}
    > ACK
    """,
        f"""
    < INVITE
    > 180
    > {status_of_callee} {header}
    < ACK
    """,
        outcome,
        shown,
    )


HELD = "a=sendonly"  # as an offer of it is
HOLDING = "a=recvonly"  # as it is answered

FLOWS = {
    "caller_hangs_up": _ends_by_caller("pause 50", "pause 1"),
    "callee_hangs_up": CallFlow(
        """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    < BYE
    > 200
    """,
        """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    pause 50
    > BYE
    < 200
    """,
        "answered",
        200,
        "callee",
    ),
    "cancel_while_ringing": CallFlow(
        """
    > INVITE sdp
    < 100?
    < 180
    > CANCEL
    < 200
    < 487
    > ACK
    """,
        """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 487 to INVITE
    < ACK
    """,
        "cancelled",
        487,
    ),
    # RFC 3261 9.1: the callee must not see a CANCEL before it has sent a provisional response.
    "cancel_before_provisional": CallFlow(
        """
    > INVITE sdp
    < 100
    > CANCEL
    < 200
    < 487
    > ACK
    """,
        """
    < INVITE
    pause 300
    > 180
    < CANCEL
    > 200
    > 487 to INVITE
    < ACK
    """,
        "cancelled",
        487,
    ),
    # RFC 3261 9.2: the callee had answered before the CANCEL came; the relay must acknowledge that and hang up.
    "cancel_crosses_the_answer": CallFlow(
        """
    > INVITE sdp
    < 100?
    < 180
    > CANCEL
    < 200
    < 487
    > ACK
    """,
        """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 200 sdp to INVITE
    < ACK
    < BYE
    > 200
    """,
        "cancelled",
        487,
    ),
    "busy": _refused(486, 486, "busy"),
    "declined": _refused(603, 603, "rejected"),
    "callee_number_unknown": _refused(404, 404, "unreachable"),
    "redirected": _refused(302, 480, "unreachable", "\n        Contact: <sip:13700009999@127.0.0.99:5060>"),
    "callee_wants_authentication": _refused(
        401, 480, "failed", '\n        WWW-Authenticate: Digest realm="callee-gateway", nonce="1234"'
    ),
    "callee_proxy_wants_authentication": _refused(
        407, 480, "failed", '\n        Proxy-Authenticate: Digest realm="callee-gateway", nonce="1234"'
    ),
    "callee_out_of_service": _refused(503, 480, "unreachable", "\n        Retry-After: 120"),
    "late_offer": CallFlow(
        """
    > INVITE
    < 100?
    < 180
    < 200
    > ACK sdp
    pause 50
    > BYE
    < 200
    """,
        """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets=(("INVITE", "content-length: 0"), ("ACK", "m=audio")),
        caller_gets=(("SIP/2.0 200", "m=audio"),),
    ),
    "early_media": CallFlow(
        """
    > INVITE sdp
    < 100?
    < 183
    < 200
    > ACK
    pause 50
    > BYE
    < 200
    """,
        """
    < INVITE
    > 183 sdp
    pause 50
    > 200 sdp
    < ACK
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets=(("INVITE", "m=audio"),),
        caller_gets=(("SIP/2.0 183", "m=audio"),),
    ),
    "caller_holds_and_resumes": _ends_by_caller(
        """
    > INVITE sdp=sendonly
    < 100?
    < 200
    > ACK
    pause 50
    > INVITE sdp=sendrecv
    < 100?
    < 200
    > ACK
    pause 50
    """,
        """
    < INVITE
    > 200 sdp=recvonly
    < ACK
    < INVITE
    > 200 sdp=sendrecv
    < ACK
    """,
        callee_gets=(("INVITE", HELD), ("INVITE", "a=sendrecv")),
        caller_gets=(("SIP/2.0 200", HOLDING), ("SIP/2.0 200", "a=sendrecv")),
    ),
    "callee_holds": _ends_by_caller(
        """
    < INVITE
    > 200 sdp=recvonly
    < ACK
    pause 50
    """,
        """
    pause 50
    > INVITE sdp=sendonly
    < 100?
    < 200
    > ACK
    """,
        callee_gets=(("SIP/2.0 200", HOLDING),),
        caller_gets=(("INVITE", HELD),),
    ),
    "update": _ends_by_caller(
        """
    pause 50
    > UPDATE sdp=sendonly
    < 200
    """,
        """
    < UPDATE
    > 200 sdp=recvonly
    """,
        callee_gets=(("UPDATE", HELD),),
        caller_gets=(("SIP/2.0 200", HOLDING),),
    ),
    "reliable_provisional": CallFlow(
        """
    > INVITE sdp
        Supported: 100rel
    < 100?
    < 183 save=RSeq
    > PRACK
        RAck: [$RSeq] 1 INVITE
    < 200
    < 200
    > ACK
    pause 50
    > BYE
    < 200
    """,
        """
    < INVITE
    > 183 sdp
        Require: 100rel
        RSeq: 4711
    < PRACK
    > 200
    pause 50
    > 200 to INVITE
    < ACK
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets=(("INVITE", "100rel"), ("PRACK", "rack: 4711 ")),
        caller_gets=(("SIP/2.0 183", "require: 100rel"),),
    ),
    "dtmf_by_info": _ends_by_caller(
        """
    pause 50
    > INFO dtmf
    < 200
    """,
        """
    < INFO
    > 200
    """,
        callee_gets=(("INFO", "Signal=5"),),
    ),
    "session_timer_refreshed": CallFlow(
        """
    > INVITE sdp
        Supported: timer
        Session-Expires: 90;refresher=uac
    < 100?
    < 180
    < 200
    > ACK
    pause 50
    > UPDATE
        Supported: timer
        Session-Expires: 90;refresher=uac
    < 200
    > BYE
    < 200
    """,
        """
    < INVITE
    > 180
    > 200 sdp
        Require: timer
        Session-Expires: 90;refresher=uac
    < ACK
    < UPDATE
    > 200
        Require: timer
        Session-Expires: 90;refresher=uac
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets=(("INVITE", "session-expires: 90"), ("UPDATE", "session-expires: 90")),
        caller_gets=(("SIP/2.0 200", "session-expires: 90;refresher=uac"),),
    ),
    "refer_in_the_call_refused": _ends_by_caller(
        """
    pause 50
    > REFER
        Refer-To: <sip:13700009999@127.0.0.99>
    < 405
    """,
        "pause 1",
    ),
    "unknown_method_in_the_call_refused": _ends_by_caller(
        """
    pause 50
    > DANCE
    < 501
    """,
        "pause 1",
    ),
}

REFUSED_AT_THE_DOOR = {
    "refer": ("> REFER\n    Refer-To: <sip:13700009999@127.0.0.99>\n< 405", "allow"),
    "subscribe": ("> SUBSCRIBE\n    Event: presence\n< 405", "allow"),
    "unknown_method": ("> DANCE\n< 501", "allow"),
    "unknown_extension_required": ("> INVITE sdp\n    Require: nothing-known\n< 100?\n< 420\n> ACK", "unsupported"),
    "request_of_no_call": ("> BYE\n    Reason: Q.850;cause=16\n< 481", ""),
    "options": ("> OPTIONS\n< 200", "allow"),
}

FORBIDDEN_NUMBERS = {
    "number_without_a_binding": ("700100000019999", 403, "no_binding"),
    "number_of_another_platform": ("700999999990001", 404, "number_unknown"),
    "number_too_short": ("7001000000100", 484, "number_unknown"),
    "ordinary_number": ("13900000002", 404, "number_unknown"),
}

# Each phone goes on answering retransmissions after its call, as real ones do: an answer to BYE may be lost.
WITH_LOSS = CallFlow(
    """
    > INVITE sdp
    < 100?
    < 180?
    < 200
    > ACK
    pause 1000
    > BYE
    < 200
    timewait 12000
    """,
    """
    < INVITE
    > 180
    pause 1200
    > 200 sdp
    < ACK?
    < BYE
    > 200
    timewait 12000
    """,
    "answered",
    200,
    "caller",
)

NO_ANSWER = CallFlow(
    """
    > INVITE sdp
    < 100?
    < 180
    < 480
    > ACK
    """,
    """
    < INVITE
    > 180
    < CANCEL
    > 200
    > 487 to INVITE
    < ACK
    """,
    "no_answer",
    480,
)

# RFC 3261 13.3.1.4: the relay itself sends its 200 again until the ACK comes.
LATE_ACKNOWLEDGEMENT = CallFlow(
    """
    > INVITE sdp
    < 100?
    < 180
    < 200
    pause 1200
    > ACK
    pause 50
    > BYE
    < 200
    """,
    """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    < BYE
    > 200
    """,
    "answered",
    200,
    "caller",
)

TOO_LONG = CallFlow(
    """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    < BYE
    > 200
    """,
    """
    < INVITE
    > 180
    > 200 sdp
    < ACK
    < BYE
    > 200
    """,
    "answered",
    200,
    "relay",
)


def refusing(status: int) -> str:
    """A callee of which nothing more is heard."""
    return f"""
    < INVITE
    > {status}
    < ACK
    """
