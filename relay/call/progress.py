"""Provisional responses to an INVITE, written for the other leg.

A reliable one is passed on with our RSeq. One that the INVITE's sender cannot acknowledge, or does not get, is
acknowledged here, and passed on as a plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.reliable import ReliableResponses
from relay.privacy import masking

if TYPE_CHECKING:
    from relay.call.leg import Leg
    from relay.privacy.messages import Reply
    from relay.sip.message import Request, Response


def write_progress(
    leg: Leg, invite: Request, reply: Reply, status: int | None, response: Response, now: float
) -> bytes | None:
    """Write the other leg's provisional response with `status` for the leg's peer, the sender of `invite`. Returns
    None if it is not passed on, as with `status` None.

    Our RSeq is one higher each time within the dialog, since a caller takes forks for servers that count by themselves
    (RFC 3262 3); a retransmission is sent unchanged.
    Raises Leak, OfferUnanswered, and ProtocolError or ParseError if it cannot be relayed.
    """
    theirs = masking.reliable_rseq(response)
    if theirs is None:
        return None if status is None else _write_plain(leg, reply, status, response)
    reliable = leg.reliable
    if reliable is None:
        reliable = leg.reliable = ReliableResponses(invite.cseq.number)
    if not reliable.expects(theirs):
        return reliable.again(theirs)
    if reliable.is_full:
        leg.count("reliable_over_limit")
        return None
    # RFC 3262 3: only "if the initial request contained a Supported header field that included the option tag 100rel",
    # or Require, may a response be sent reliably.
    can_acknowledge = status is not None and masking.offers_reliability(invite)
    if not can_acknowledge and masking.brings_sdp(response) and not masking.has_sdp(invite):
        raise masking.OfferUnanswered()  # RFC 3262 5: the PRACK would have to bring the answer
    if status is None or not can_acknowledge:
        answer = masking.mask_body(response, leg.writer)
        data = None if status is None else _write_plain(leg, reply, status, response)
        reliable.add_acknowledged(theirs, answer)
        leg.other.acknowledge_progress(theirs, now)
        return data
    ours = leg.rseq + 1
    body = masking.mask_body(response, leg.writer)
    extra = f"{leg.contact}{masking.mask_response_headers(response)}RSeq: {ours}\r\n"
    data = leg.write(reply, status, extra=extra, body=body)
    leg.rseq = ours
    reliable.add(ours, theirs, data)
    return data


def _write_plain(leg: Leg, reply: Reply, status: int, response: Response) -> bytes:
    body = masking.mask_body(response, leg.writer)
    extra = leg.contact + masking.mask_response_headers(response, plain=True)
    return leg.write(reply, status, extra=extra, body=body)
