"""The reliable provisional responses to an INVITE (RFC 3262), which are numbered anew for the other leg.

It knows which of them is next, which is sent again, and which of them a PRACK acknowledges. It writes no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.errors import ProtocolError

if TYPE_CHECKING:
    from relay.privacy.masking import Body
    from relay.sip.headers import RAck

MOST_RELIABLE: Final = 64  # to one INVITE; further ones are ignored


class ReliableResponses:
    """Reliable provisional responses to one INVITE in one dialog."""

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
