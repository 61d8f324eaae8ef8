"""Captured SIP messages line by line, and the names of lines that tell nothing about who wrote them."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from relay.errors import ParseError
from relay.sip.grammar import canonical_name, spell, unfold
from relay.sip.headers import parse_content_type
from relay.sip.message import MAX_HEAD, MAX_LINES
from relay.sip.sdp import MAX_LINES as MAX_SDP_LINES

Part = Literal["start", "header", "sdp", "body"]
CLOSING: Final = "--"  # name of the line that ends a multipart body
MOST_PARTS: Final = 10  # of a multipart body


class Line(NamedTuple):
    """A line of a message, or a whole body other than SDP."""

    part: Part
    name: str  # canonical header; "c", "m", "a=rtpmap"; type of the body; "" if it has none
    value: str  # unfolded
    text: str  # as on the wire, folded lines with their breaks
    stream: int = 0  # of SDP: number of the m= line it belongs to, from 1; 0: session


# -- Lines of a message


def lines_of(data: bytes) -> list[Line]:
    """The lines of a message, well-formed or not. Bytes that are not UTF-8 are surrogates.

    Lines beyond those that the relay reads become one without a name: a peer may send lines without end.
    """
    head, blank, body = data.decode("utf-8", "surrogateescape").lstrip("\r\n").partition("\r\n\r\n")
    start, *rest = _line_end.split(head, 1)
    lines = [Line("start", "", start, start)]
    if len(head) > MAX_HEAD or head.count("\n") > MAX_LINES:
        lines += [Line("header", "", each, each) for each in rest]
    elif rest:
        lines += map(_header_line, _line_end.split(rest[0]))
    if not blank or not body:
        return lines
    value = next((line.value for line in lines if line.name == "content-type"), "")
    try:
        content_type = parse_content_type(value)
    except ParseError:
        return [*lines, Line("body", "", body, body)]
    if content_type.type == "application/sdp":
        return lines + _sdp_lines(body)
    boundary = content_type.params.get("boundary")
    if content_type.type.startswith("multipart/") and boundary:
        return lines + _part_lines(body, boundary)
    return [*lines, Line("body", content_type.type, body, body)]


_line_end: Final = re.compile(r"\r\n(?![ \t])")


def _header_line(text: str) -> Line:
    name, colon, value = text.partition(":")
    try:
        return Line("header", canonical_name(name) if colon else "", unfold(value)[0].strip(" \t"), text)
    except ParseError:
        return Line("header", "", text, text)


def _sdp_lines(body: str) -> list[Line]:
    if body.count("\n") > MAX_SDP_LINES:
        return [Line("body", "", body, body)]
    lines: list[Line] = []
    stream = 0
    for text in body.removesuffix("\n").removesuffix("\r").replace("\r\n", "\n").split("\n"):
        kind, _, value = text.partition("=")
        if kind == "m":
            stream += 1
        if kind == "a":
            attribute, _, value = value.partition(":")
            kind = f"a={attribute}"
        lines.append(Line("sdp", kind, value, text, stream))
    return lines


def _part_lines(body: str, boundary: str) -> list[Line]:
    """The parts of a multipart body; the text of each begins with its delimiter."""
    lines: list[Line] = []
    for number, part in enumerate(f"\r\n{body}".split(f"\r\n--{boundary}", MOST_PARTS)):
        if number == MOST_PARTS:
            lines.append(Line("body", "", part, f"--{boundary}{part}"))
            continue
        if number == 0 or part.startswith("--"):
            text = f"--{boundary}{part}" if number else part.removeprefix("\r\n")
            lines += [Line("body", CLOSING, "", text)] if number else [Line("body", "", text, text)] if text else []
            continue
        head, _, content = part.partition("\r\n\r\n")
        kind = found[1].lower() if (found := _part_type(head)) else ""
        if kind == "application/sdp":
            lines += [Line("body", kind, "", f"--{boundary}{head}\r\n"), *_sdp_lines(content)]
        else:
            lines.append(Line("body", kind, content, f"--{boundary}{part}"))
    return lines


_part_type: Final = re.compile(r"(?im)^(?:content-type|c)[ \t]*:[ \t]*([^\s;]+)").search


def is_response(lines: list[Line]) -> bool:
    return lines[0].text[:8].upper() == "SIP/2.0 "


# -- Names and words that tell nothing about who wrote them

HEADERS: Final = frozenset(
    """
    accept accept-contact accept-encoding accept-language accept-resource-priority alert-info allow allow-events
    answer-mode attestation-info authentication-info authorization call-id call-info cellular-network-info cisco-guid
    contact content-disposition content-encoding content-id content-language content-length content-type cseq date
    diversion encryption error-info event expires feature-caps flow-timer from geolocation geolocation-error
    geolocation-routing history-info identity identity-info in-reply-to info-package join max-breadth max-forwards
    mime-version min-expires min-se organization origination-id p-access-network-info p-answer-state
    p-asserted-identity p-asserted-service p-associated-uri p-called-party-id p-charge-info
    p-charging-function-addresses p-charging-vector p-early-media p-media-authorization p-preferred-identity
    p-preferred-service p-private-network-indication p-profile-key p-refused-uri-list p-served-user p-user-database
    p-visited-network-id path permission-missing policy-contact policy-id priority priority-verstat priv-answer-mode
    privacy proxy-authenticate proxy-authentication-info proxy-authorization proxy-require rack reason record-route
    recv-info refer-sub refer-to referred-by reject-contact remote-party-id replaces reply-to request-disposition
    require resource-priority response-source restoration-info retry-after route rseq security-client security-server
    security-verify server service-route session-expires session-id sip-etag sip-if-match subject subscription-state
    supported suppress-if-match target-dialog timestamp to trigger-consent unsupported user-agent user-to-user via
    warning www-authenticate x-asterisk-hangupcause x-asterisk-hangupcausecode x-fs-support
    """.split()
)
ATTRIBUTES: Final = frozenset(
    """
    acap accept-types alt cap cat charset content crypto end-of-candidates candidate connection cname extmap
    fingerprint fmtp framerate group ice-lite ice-options ice-pwd ice-ufrag identity imageattr inactive key-mgmt keywds
    label lang maxptime mid msid msid-semantic path pcfg ptime recvonly remote-candidates rid rtcp rtcp-fb rtcp-mux
    rtcp-rsize rtcp-xr rtpmap sctp-port sdplang sendonly sendrecv setup silenceSupp simulcast ssrc ssrc-group tls-id
    tool type
    """.split()
)
BODIES: Final = frozenset(
    """
    application/sdp application/dtmf-relay application/dtmf application/isup application/qsig application/pidf+xml
    application/media_control+xml application/x-www-form-urlencoded application/simple-message-summary
    application/dialog-info+xml application/octet-stream application/im-iscomposing+xml application/vnd.3gpp.sms
    application/vnd.3gpp.ussd message/sipfrag message/cpim multipart/mixed multipart/alternative multipart/related
    text/plain text/html
    """.split()
)


def shown_name(line: Line, *, masked: bool = True) -> str:
    """The name of a line; if masked, only a name that the standards know."""
    if line.part == "header":
        return spell(line.name) if line.name and (line.name in HEADERS or not masked) else "unknown header"
    if line.part == "body":
        return line.name if line.name and (line.name in BODIES or not masked) else "unknown body"
    if line.name.startswith("a="):
        known = line.name[2:] in ATTRIBUTES or line.name.startswith("a=T38Fax")
        return line.name if known or not masked else "unknown attribute"
    return f"{line.name}=" if line.name in SDP_KINDS or not masked else "unknown line"


SDP_KINDS: Final = frozenset("vosiuepcbtrzkm")
