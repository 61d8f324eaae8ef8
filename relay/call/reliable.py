"""The reliable provisional responses to one INVITE in one dialog, as they are passed on (RFC 3262).

Each leg has its own numbers: the sender's is kept with ours, for the PRACK. It writes and sends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.errors import ProtocolError

if TYPE_CHECKING:
    from relay.sip.headers import RAck

MOST_RELIABLE: Final = 64  # to one INVITE; further ones are ignored


class ReliableResponses:
    """Those that the asked side has sent in this dialog, and the asking side can acknowledge."""

    __slots__ = ("_cseq", "_data", "_last", "_theirs")

    def __init__(self, cseq: int) -> None:
        """`cseq`: of the INVITE as its sender counts."""
        self._cseq = cseq
        self._theirs: dict[int, int] = {}  # our RSeq -> the sender's
        self._last = 0  # the sender's last RSeq, 0 before the first
        self._data = b""  # the response passed on for it

    @property
    def is_full(self) -> bool:
        return len(self._theirs) >= MOST_RELIABLE

    def expects(self, theirs: int) -> bool:
        """Whether a response with that RSeq of the sender is the next one; any can be the first."""
        # RFC 3262 4: a response whose RSeq "is not one higher than the value of the sequence number [...] MUST NOT be
        # acknowledged with a PRACK, and MUST NOT be processed further". Its sender repeats those that are missing.
        return not self._last or theirs == self._last + 1

    def again(self, theirs: int) -> bytes | None:
        """The response to pass on again for a retransmission; None unless it is of the last one."""
        return self._data if theirs == self._last else None

    def add(self, ours: int, theirs: int, data: bytes) -> None:
        """`data` is passed on, with RSeq `ours`, for the sender's response with RSeq `theirs`."""
        self._theirs[ours] = self._last = theirs
        self._data = data

    def acknowledged_by(self, rack: RAck | None) -> int:
        """The sender's RSeq of the response that a PRACK acknowledges. Raises ProtocolError(481) for none."""
        # RFC 3262 3: a matching PRACK is one "whose method, CSeq-num, and response-num in the RAck header field match".
        if rack is not None and rack.method == "INVITE" and rack.cseq == self._cseq and rack.number in self._theirs:
            return self._theirs[rack.number]
        raise ProtocolError(481, "no reliable provisional response that the RAck matches")
