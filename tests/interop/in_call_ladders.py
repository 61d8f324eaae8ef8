"""What the two sides do while a call is up: hold, new offers, digits, refreshes, and what is refused."""

from __future__ import annotations

from tests.support.call_flow import CallFlow, ends_by_caller

HELD = "a=sendonly"  # as an offer of it is
HOLDING = "a=recvonly"  # as it is answered
MANY = 24  # of one kind in one call


def many_in_one_call() -> CallFlow:
    """Reliable provisional responses with their PRACKs, then re-INVITEs by both sides in turn, then UPDATEs."""
    ringing = ["< 180 save=RSeq\n> PRACK\n    RAck: [$RSeq] 1 INVITE\n< 200" for _ in range(MANY)]
    rung = [f"> 180 to INVITE\n    Require: 100rel\n    RSeq: {4711 + n}\n< PRACK\n> 200" for n in range(MANY)]
    asking = {"INVITE": "> INVITE sdp\n< 100?\n< 200\n> ACK", "UPDATE": "> UPDATE sdp\n< 200"}
    asked = {"INVITE": "< INVITE\n> 200 sdp\n< ACK", "UPDATE": "< UPDATE\n> 200 sdp"}
    pause = "pause 40"  # else a side may ask before the other one's ACK has come
    caller = [step for method in asking for _ in range(MANY // 2) for step in (pause, asking[method], asked[method])]
    callee = [step for method in asking for _ in range(MANY // 2) for step in (asked[method], pause, asking[method])]
    return CallFlow(
        "\n".join(["> INVITE sdp\n    Supported: 100rel\n< 100?", *ringing, "< 200\n> ACK", *caller, "> BYE\n< 200"]),
        "\n".join(["< INVITE", *rung, "> 200 sdp to INVITE\n< ACK", *callee, "< BYE\n> 200"]),
        "answered",
        200,
        "caller",
        callee_gets=(("PRACK", f"rack: {4710 + MANY} "),),
    )


IN_CALL_FLOWS = {
    "caller_holds_and_resumes": ends_by_caller(
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
    "callee_holds": ends_by_caller(
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
    "update": ends_by_caller(
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
    "dtmf_by_info": ends_by_caller(
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
    "session_timer_refreshed_by_the_callee": CallFlow(
        """
    > INVITE sdp
        Supported: timer
    < 100?
    < 180
    < 200
    > ACK
    < UPDATE
    > 200
        Require: timer
        Session-Expires: 90;refresher=uac
    > BYE
    < 200
    """,
        """
    < INVITE
    > 180
    > 200 sdp
        Require: timer
        Session-Expires: 90;refresher=uas
    < ACK
    pause 50
    > UPDATE
        Supported: timer
        Session-Expires: 90;refresher=uac
    < 200
    < BYE
    > 200
    """,
        "answered",
        200,
        "caller",
        callee_gets=(("SIP/2.0 200", "session-expires: 90;refresher=uac"),),
        caller_gets=(
            ("SIP/2.0 200", "session-expires: 90;refresher=uas"),
            ("UPDATE", "session-expires: 90;refresher=uac"),
        ),
    ),
    "many_in_one_call": many_in_one_call(),
    "refer_in_the_call_refused": ends_by_caller(
        """
    pause 50
    > REFER
        Refer-To: <sip:13700009999@127.0.0.99>
    < 405
    """,
        "pause 1",
    ),
    "unknown_method_in_the_call_refused": ends_by_caller(
        """
    pause 50
    > DANCE
    < 501
    """,
        "pause 1",
    ),
}
