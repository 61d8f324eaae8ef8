"""The torture messages of RFC 4475 and RFC 5118, with the expected result for each.

`codec` is the result of `relay.sip.message`. `answers` is the final status sent by a relay that gets the bytes over UDP
from a peer, and knows none of their numbers and calls, or nothing (SILENCE). The response goes to the port of the
topmost Via (default 5060), since only mpart01 has `rport`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parent.parent / "data"

ACCEPTED = "accepted"
SALVAGED = "ParseError, and a 400 can be written"
LOST = "ParseError, and no answer can be written"

SILENCE: frozenset[int] = frozenset()


class Torture(NamedTuple):
    file: str
    codec: str | int  # one of the above, or the status of check_request's ProtocolError
    answers: frozenset[int]
    why: str

    @property
    def data(self) -> bytes:
        return (DATA / self.file).read_bytes()


def _row(file: str, codec: str | int, answer: int | None, why: str) -> Torture:
    return Torture(file, codec, SILENCE if answer is None else frozenset({answer}), why)


_RFC_4475 = (
    ("wsinv", ACCEPTED, 481, "3.1.1.1 folding, blanks, compact forms, odd case: all valid; To has a tag"),
    ("intmeth", ACCEPTED, 501, "3.1.1.2 every character a method, name or call-id may hold; NUL as a quoted-pair"),
    ("esc01", ACCEPTED, 404, "3.1.1.3 escapes in URIs are kept as written"),
    ("escnull", ACCEPTED, 405, "3.1.1.4 %00 in a user part is no NUL byte"),
    ("esc02", ACCEPTED, 501, "3.1.1.5 a method is not unescaped: RE%47IST%45R is not REGISTER"),
    ("lwsdisp", ACCEPTED, 200, "3.1.1.6 no blank between display name and <"),
    ("longreq", ACCEPTED, 404, "3.1.1.7 long values, 34 Vias in every spelling"),
    ("dblreq", ACCEPTED, 405, "3.1.1.8 what follows the Content-Length in a datagram is dropped"),
    ("semiuri", ACCEPTED, 200, "3.1.1.9 a semicolon before @ belongs to the user part"),
    ("transports", ACCEPTED, 200, "3.1.1.10 unknown transports further down are none of our business"),
    ("mpart01", ACCEPTED, 405, "3.1.1.11 a multipart body with binary parts; MESSAGE is not served"),
    ("unreason", ACCEPTED, None, "3.1.1.12 UTF-8 in the reason; a response to nothing of ours"),
    ("noreason", ACCEPTED, None, "3.1.1.13 an empty reason; a response to nothing of ours"),
    ("badinv01", LOST, None, "3.1.2.1 the Via itself is malformed: nowhere to answer"),
    ("clerr", SALVAGED, 400, "3.1.2.2 Content-Length over what the datagram holds"),
    ("ncl", SALVAGED, 400, "3.1.2.3 negative Content-Length"),
    ("scalar02", 400, 400, "3.1.2.4 CSeq of 2**31 and more"),
    ("scalarlg", ACCEPTED, None, "3.1.2.5 the CSeq of a response to nothing of ours"),
    ("quotbal", 400, 400, "3.1.2.6 the quote in To is not closed"),
    ("ltgtruri", 400, 400, "3.1.2.7 <> around the Request-URI"),
    ("lwsruri", SALVAGED, 400, "3.1.2.8 a blank within the Request-URI"),
    ("lwsstart", SALVAGED, 400, "3.1.2.9 more than one blank in the request line"),
    ("trws", SALVAGED, 400, "3.1.2.10 blanks after the request line"),
    ("escruri", ACCEPTED, 404, "3.1.2.11 headers in the Request-URI: read over, as nothing of them is used"),
    ("baddate", ACCEPTED, 404, "3.1.2.12 the Date is not looked at"),
    ("regbadct", 400, 400, "3.1.2.13 a Contact with ? outside <>"),
    ("badaspec", 400, 400, "3.1.2.14 blanks within <>"),
    ("baddn", ACCEPTED, 200, "3.1.2.15 a comma in a display name without quotes can be read in one way only"),
    ("badvers", 505, 505, "3.1.2.16 SIP/7.0"),
    ("mismatch01", 400, 400, "3.1.2.17 CSeq names another method"),
    ("mismatch02", 400, 400, "3.1.2.18 the same of an unknown method"),
    ("bigcode", LOST, None, "3.1.2.19 a status of ten digits"),
    ("badbranch", ACCEPTED, 200, "3.2.1 a branch that is the magic cookie alone is matched by RFC 2543's rules"),
    ("insuf", LOST, None, "3.3.1 without Call-ID, From and To there is nothing to put into an answer"),
    ("unkscm", 416, 416, "3.3.2 unknown URI scheme"),
    ("novelsc", 416, 416, "3.3.3 known, but no SIP URI"),
    ("unksm2", ACCEPTED, 405, "3.3.4 other schemes in To, From and Contact; REGISTER is not served"),
    ("bext01", ACCEPTED, 420, "3.3.5 Require of what nobody knows"),
    ("invut", ACCEPTED, 404, "3.3.6 the body is not looked at before the number"),
    ("regaut01", ACCEPTED, 405, "3.3.7 unknown authentication scheme; REGISTER is not served"),
    ("multi01", SALVAGED, 400, "3.3.8 From, To, Call-ID, CSeq and Max-Forwards twice, with two meanings"),
    ("mcl01", SALVAGED, 400, "3.3.9 two values of Content-Length"),
    ("bcast", ACCEPTED, None, "3.3.10 a response whose second Via is a broadcast address: it is not forwarded"),
    ("zeromf", ACCEPTED, 200, "3.3.11 OPTIONS with Max-Forwards 0 ends here (RFC 3261 11): not forwarded, answered"),
    ("cparam01", ACCEPTED, 405, "3.3.12 a parameter after a bare URI is the Contact's"),
    ("cparam02", ACCEPTED, 405, "3.3.13 a parameter within <> is the URI's"),
    ("regescrt", ACCEPTED, 405, "3.3.14 ? within <> is allowed"),
    ("sdp01", ACCEPTED, 404, "3.3.15 an Accept without SDP matters to who answers with SDP"),
    ("inv2543", ACCEPTED, 400, "3.4.1 an INVITE of RFC 2543: without Contact there is no dialog (RFC 3261 12.1.1)"),
)

_RFC_5118 = (
    ("ipv6-good", ACCEPTED, 405, "4.1 an IPv6reference as the host"),
    ("ipv6-bad", 400, 400, "4.2 an IPv6 address without brackets"),
    ("port-ambiguous", ACCEPTED, 405, "4.3 :5070 within the brackets is part of the address"),
    ("port-unambiguous", ACCEPTED, 405, "4.4 :5070 after the brackets is the port"),
    ("via-received-param-with-delim", ACCEPTED, 481, "4.5 received= with brackets; a BYE of no call"),
    ("via-received-param-no-delim", ACCEPTED, 200, "4.5 received= without brackets"),
    ("ipv6-in-sdp", ACCEPTED, 404, "4.6 IP6 in the SDP"),
    ("mult-ip-in-header", ACCEPTED, 481, "4.7 both families in the Vias; a BYE of no call"),
    ("mult-ip-in-sdp", ACCEPTED, 404, "4.8 both families in the SDP"),
    ("ipv4-mapped-ipv6", ACCEPTED, 404, "4.9 ::ffff:192.0.2.2"),
    ("ipv6-bug-abnf-3-colons", ACCEPTED, 200, "4.10 three colons before a dotted quad are taken for two"),
    ("ipv6-correct-abnf-2-colons", ACCEPTED, 200, "4.10 the same, well written"),
)

TORTURE = (
    *(_row(f"rfc4475/{name}.dat", codec, answer, f"RFC 4475 {why}") for name, codec, answer, why in _RFC_4475),
    *(_row(f"rfc5118/{name}", codec, answer, f"RFC 5118 {why}") for name, codec, answer, why in _RFC_5118),
)
