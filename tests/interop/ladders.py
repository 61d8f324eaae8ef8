"""How a call is set up and ends, flow by flow. What happens within it is in `in_call_ladders`."""

from __future__ import annotations

from tests.interop.in_call_ladders import IN_CALL_FLOWS
from tests.support.call_flow import (
    CALLEE_IS_CANCELLED,
    CALLEE_IS_HUNG_UP,
    CALLER_CANCELS,
    CALLER_IS_HUNG_UP,
    CallFlow,
    ends_by_caller,
    refused,
)

SETUP_FLOWS = {
    "caller_hangs_up": ends_by_caller("pause 50", "pause 1"),
    "callee_hangs_up": CallFlow(
        CALLER_IS_HUNG_UP,
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
    "cancel_while_ringing": CallFlow(CALLER_CANCELS, CALLEE_IS_CANCELLED, "cancelled", 487),
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
        CALLER_CANCELS,
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
    "busy": refused(486, 486, "busy"),
    "declined": refused(603, 603, "rejected"),
    "callee_number_unknown": refused(404, 404, "unreachable"),
    "redirected": refused(302, 480, "unreachable", "\n        Contact: <sip:13700009999@127.0.0.99:5060>"),
    "callee_wants_authentication": refused(
        401, 480, "failed", '\n        WWW-Authenticate: Digest realm="callee-gateway", nonce="1234"'
    ),
    "callee_proxy_wants_authentication": refused(
        407, 480, "failed", '\n        Proxy-Authenticate: Digest realm="callee-gateway", nonce="1234"'
    ),
    "callee_out_of_service": refused(503, 480, "unreachable", "\n        Retry-After: 120"),
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
        CALLEE_IS_HUNG_UP,
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
}

FLOWS = {**SETUP_FLOWS, **IN_CALL_FLOWS}
BASIC_FLOWS = ["caller_hangs_up", "callee_hangs_up", "cancel_while_ringing", "busy"]

REFUSED_AT_THE_DOOR = {
    "refer": ("> REFER\n    Refer-To: <sip:13700009999@127.0.0.99>\n< 405", "allow"),
    "subscribe": ("> SUBSCRIBE\n    Event: presence\n< 405", "allow"),
    "unknown_method": ("> DANCE\n< 501", "allow"),
    "unknown_extension_required": ("> INVITE sdp\n    Require: nothing-known\n< 100?\n< 420\n> ACK", "unsupported"),
    "request_of_no_call": ("> BYE\n    Reason: Q.850;cause=16\n< 481", ""),
    "options": ("> OPTIONS\n< 200", "allow"),
}

FORBIDDEN_NUMBERS = {
    "number_without_a_binding": ("700100000010999", 403, "no_binding"),
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


def refusing(status: int) -> str:
    """A callee of which nothing more is heard."""
    return f"""
    < INVITE
    > {status}
    < ACK
    """
