"""Why one call ended as it did, in words: from its end reason, the peer's own answer, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from relay.console.outcomes import OUTCOMES
from relay.translation import N_


class Cause(NamedTuple):
    """`why` and `do`: sentences."""

    why: str
    do: str


_NUMBER: Final = N_("Check the called number, and ask the carrier if it is right.")
_PEER: Final = N_("Ask who runs the peer: the ladder has its answer and the Call-ID that it knows.")
_MEDIA: Final = N_("Compare the codecs of both sides in the ladder: peer.codecs, peer.media.")

# A peer's final answer to the INVITE -> the cause. A status that is not listed counts as its class (x00), as for the
# outcome (`relay.model.outcomes`). Where the outcome says it all, there is none.
_ANSWERS: Final[dict[int, tuple[str, str]]] = {
    300: (
        N_("The peer sent the call to another address, which the relay does not follow."),
        N_("Have the peer complete calls itself, or change the route."),
    ),
    400: (N_("The peer finds the relay's message faulty."), _PEER),
    401: (
        N_("The peer asks for a password, and the relay has none that it takes."),
        N_("Check the user and password of the peer in the configuration."),
    ),
    403: (N_("The called side, or its network, refuses the call."), N_("Ask the carrier why it refuses this number.")),
    404: (N_("The peer does not know the called number."), _NUMBER),
    408: (
        N_("The called side did not answer the peer in time."),
        N_("Check the called phone; if many calls end so, ask who runs the peer."),
    ),
    410: (N_("The called number is no longer in service, says the peer."), _NUMBER),
    415: (N_("The peer cannot read the description of the media."), _MEDIA),
    420: (N_("The peer does not know an extension that the call requires."), _PEER),
    422: (N_("The peer wants a longer session timer than the caller offered."), _PEER),
    480: (
        N_("The called phone cannot be reached now: it is off, without network, or not registered."),
        N_("Try again later."),
    ),
    484: (N_("The peer finds the called number too short."), _NUMBER),
    488: (N_("Both sides have no codec or media in common."), _MEDIA),
    500: (N_("The peer failed: it has an error of its own."), _PEER),
    503: (
        N_("The peer takes no calls now: it is overloaded, out of lines, or stopped."),
        N_("If it lasts, ask who runs the peer, or add another one to the route."),
    ),
    504: (N_("The peer's network did not answer it in time."), _PEER),
}
_ANSWERS[407], _ANSWERS[604], _ANSWERS[606] = _ANSWERS[401], _ANSWERS[404], _ANSWERS[488]

# End reason -> the cause, where it says more than the outcome.
_REASONS: Final[dict[str, tuple[str, str]]] = {
    "ack_timeout": (
        N_("The caller's side never confirmed the answer (no ACK), so the relay ended the call."),
        N_("Look in the ladder whether 200 reached it: a firewall or a wrong Contact is usual."),
    ),
    "caller_not_of_peer": (
        N_("This peer may not call as this number."),
        N_("Add the number to the peer's numbers, unless it is forged."),
    ),
    "hung_up": (N_("An operator hung up."), N_("The audit log has who, and the reason.")),
    "invite_expired": (
        N_("The caller's side set a time for its call (Expires), and it passed before an answer."),
        N_("Call again. If the time is too short, ask who runs the caller's peer."),
    ),
    "leak_check": (
        N_("The leak check stopped a message that held the other side's number or address, and ended the call."),
        N_("This is a defect of relay700: please report it, with the masked ladder."),
    ),
    "lost_at_restart": (
        N_("The relay stopped while this call went on, and was started again."),
        N_("Call again. The log has what happened before attempts.ended."),
    ),
    "max_duration": (
        N_("The call reached its longest length."),
        N_("Raise sip.max_call_s, or the limit of the binding, if that is too short."),
    ),
    "media_timeout": (
        N_("No sound came from either side for too long, so the relay ended the call."),
        N_("Look whether media reach rtpengine: its firewall, and the addresses in the ladder."),
    ),
    "no_peer": (
        N_("No target of the route can be called now, or no route leads to the number."),
        N_("Look at the peers on the overview, and at the routes."),
    ),
    "no_response": (
        N_("The peer did not answer at all."),
        N_("Look at the peers on the overview; check the network between."),
    ),
    "not_restorable": (
        N_("After a restart the relay could not go on with this call, and ended it."),
        N_("The log has the reason."),
    ),
    "peer_gone": (
        N_("One side no longer knew the call, so the relay ended it at the other side too."),
        N_("If it happens often, ask who runs the peer whether it restarted."),
    ),
    "recording_failed": (
        N_("The recording could not begin, so the relay ended the call."),
        N_("See that rtpengine runs and can write recordings."),
    ),
    "refused_too_often": (
        N_("Too many attempts of this peer were refused, so it has to wait."),
        N_("The log has peer.refused_too_often: look which caller or number it is."),
    ),
    "ring_timeout": (N_("It rang for as long as allowed, and nobody answered."), N_("Wait, and call again.")),
    "session_expired": (
        N_("One side stopped refreshing the session timer, so the relay ended the call."),
        N_("If it happens often, ask who runs the peer of that side."),
    ),
    "shutdown": (N_("The relay was stopped, and ended the call."), N_("Call again.")),
}

# Status to the caller -> the cause of a `failed` call that the relay refused itself.
_FAULTS: Final[dict[int, tuple[str, str]]] = {
    400: (N_("The caller's message is malformed, or went through too many proxies."), N_("The ladder shows it.")),
    415: (
        N_("The caller's message has content of a type or encoding that the relay does not pass on."),
        N_("The ladder shows its Content-Type, and the 415 what passes."),
    ),
    420: (
        N_("The caller requires an extension that the relay does not know."),
        N_("Have the caller list it in Supported alone."),
    ),
    482: (N_("The call came back to the relay: the routes of the peers lead in a circle."), N_("Correct the routes.")),
    483: (N_("The call went through too many hops."), N_("Look for a circle in the routes of the peers.")),
    488: (N_("The caller's description of the media is faulty, or has nothing that the relay passes on."), _MEDIA),
    513: (N_("The first headers of the caller's message are too long."), N_("Have the peer send shorter ones.")),
}
_BAD_ANSWER: Final = (
    N_("The called side's description of the media is faulty, or has nothing that the relay passes on."),
    N_("The log has answer.unusable. Compare the codecs of both sides in the ladder."),
)
_SAID_BY_OUTCOME: Final = ("busy", "no_answer")  # whatever the status: that of a phone that rang for long varies


def answer_of(call: Mapping[str, Any]) -> int | None:
    """The status that the called side's peer sent; None if the call did not end by its refusal."""
    quoted = (call["end_reason"] or "").removeprefix("sip_")
    return int(quoted) if quoted.isdecimal() and call["outcome"] not in ("answered", "delivered") else None


def cause_of(call: Mapping[str, Any]) -> Cause | None:
    """Why a call ended; None while it is up, and if a party ended it after an answer."""
    outcome, reason, status = call["outcome"], call["end_reason"], answer_of(call)
    if outcome not in OUTCOMES:
        return None
    said = None if status is None else _ANSWERS.get(status) or _ANSWERS.get(status // 100 * 100)
    if said is not None and outcome not in _SAID_BY_OUTCOME:
        return Cause(*said)
    if reason in _REASONS:
        return Cause(*_REASONS[reason])
    if outcome == "failed" and call["routed_at"] is not None and call["sip_status"] == 488:
        return Cause(*_BAD_ANSWER)
    if outcome == "failed" and call["sip_status"] in _FAULTS:
        return Cause(*_FAULTS[call["sip_status"]])
    its = OUTCOMES[outcome]
    return Cause(its.why, its.do) if its.why else None
