"""Provisional responses to an INVITE, as one leg gets those of the other; reliable ones are numbered anew (RFC 3262).

A reliable one is passed on with our RSeq, and the PRACK for it with the sender's. One that the INVITE's sender cannot
acknowledge, or does not get, is acknowledged here, and passed on as a plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.errors import ProtocolError
from relay.privacy import masking

if TYPE_CHECKING:
    from relay.call.leg import Leg
    from relay.privacy.masking import Body
    from relay.privacy.messages import Reply
    from relay.sip.headers import RAck
    from relay.sip.message import Request, Response

MOST_RELIABLE: Final = 64  # to one INVITE; further ones are ignored


class ReliableResponses:
    """The reliable ones to one INVITE in one dialog."""

    __slots__ = ("_count", "_cseq", "_data", "_last", "_theirs", "answer")

    def __init__(self, cseq: int) -> None:
        """`cseq`: of the INVITE as its sender counts."""
        self._cseq = cseq
        self._theirs: dict[int, int] = {}  # our RSeq -> the sender's, of those passed on reliably
        self._last = 0  # the sender's last RSeq, 0 before the first
        self._data: bytes | None = None  # the response passed on reliably for it
        self._count = 0
        self.answer: Body | None = None  # SDP that the asking side has got in plain responses only

    @property
    def is_full(self) -> bool:
        return self._count >= MOST_RELIABLE

    def expects(self, theirs: int) -> bool:
        """Whether a response with that RSeq of the sender is the next one; any can be the first."""
        # RFC 3262 4: a response whose RSeq "is not one higher than the value of the sequence number [...] MUST NOT be
        # acknowledged with a PRACK, and MUST NOT be processed further". Its sender repeats those that are missing.
        return not self._last or theirs == self._last + 1

    def again(self, theirs: int) -> bytes | None:
        """The response to pass on again for a retransmission; None unless it is of the last one, passed on reliably."""
        return self._data if theirs == self._last else None

    def add(self, ours: int, theirs: int, data: bytes) -> None:
        """`data` is passed on, with RSeq `ours`, for the sender's response with RSeq `theirs`."""
        self._theirs[ours] = self._last = theirs
        self._data = data
        self._count += 1

    def add_acknowledged(self, theirs: int, answer: Body | None) -> None:
        """The relay acknowledges the sender's response with that RSeq. `answer`: the SDP in it."""
        self._last = theirs
        self._data = None
        self._count += 1
        self.answer = answer or self.answer

    def acknowledged_by(self, rack: RAck | None) -> int:
        """The sender's RSeq of the response that a PRACK acknowledges. Raises ProtocolError(481) for none."""
        # RFC 3262 3: a matching PRACK is one "whose method, CSeq-num, and response-num in the RAck header field match".
        if rack is not None and rack.method == "INVITE" and rack.cseq == self._cseq and rack.number in self._theirs:
            return self._theirs[rack.number]
        raise ProtocolError(481, "no reliable provisional response that the RAck matches")


def write_progress(
    leg: Leg, invite: Request, reply: Reply, status: int | None, response: Response, now: float
) -> bytes | None:
    """The other leg's provisional response to `invite`, written for the leg's peer, who sent that, with `status`. None
    if it is not passed on, as with `status` None.

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
