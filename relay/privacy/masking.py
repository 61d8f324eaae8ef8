"""Header masking: what may cross from one party's side to the other.

An allow-list. Each function takes a received message and returns what may be written into the outgoing one; anything
it does not name is dropped, X- headers included: `_CROSSING` has the headers that cross, besides Reason. It never sends
and keeps no state.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from relay.errors import ParseError, ProtocolError
from relay.model.outcomes import CALLEE_BAD_EXTENSION, NO_ANSWER, OF_FINAL_STATUS, Outcome
from relay.privacy.sdp import SdpWriter, mask_description
from relay.sip.headers import parse_min_se, parse_reason, parse_session_expires
from relay.sip.message import Message, Request, Response

METHODS: Final = ("INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "OPTIONS")
OPTION_TAGS: Final = ("100rel", "timer")
ALLOW: Final = f"Allow: {', '.join(METHODS)}\r\n"
_TOKEN_LISTS: Final = {"allow": METHODS, "supported": OPTION_TAGS, "require": OPTION_TAGS}
_LISTS: Final = tuple(_TOKEN_LISTS)
_CROSSING: Final = (*_LISTS, "session-expires", "min-se")
_CROSSING_PLAIN: Final = tuple([name for name in _CROSSING if name != "require"])
_SUPPORTED: Final = f"Supported: {', '.join(OPTION_TAGS)}\r\n"
_ENCODING: Final = "Accept-Encoding: identity\r\nAccept-Language: en\r\n"  # of our reason phrases
CAPABILITIES: Final = f"{ALLOW}Accept: application/sdp\r\n{_ENCODING}{_SUPPORTED}"  # RFC 3261 11.2
# Outside calls, if the relay takes text messages.
ALLOW_WITH_MESSAGE: Final = f"Allow: {', '.join((*METHODS, 'MESSAGE'))}\r\n"
CAPABILITIES_WITH_MESSAGE: Final = f"{ALLOW_WITH_MESSAGE}Accept: application/sdp, text/plain\r\n{_ENCODING}{_SUPPORTED}"

MOST_HOPS: Final = 70  # RFC 3261 8.1.1.6
LONGEST_SESSION_S: Final = 86_400  # cap of relayed session timers: too short to hold a party's number

# 181 and 199 reveal the callee's forwarding and forking; the caller sees ringing or progress only.
_PROVISIONAL: Final = {180: 180, 181: 182, 182: 182, 183: 183}

_IN_DIALOG: Final = frozenset({400, 408, 415, 422, 481, 487, 488, 491, 500})


def mask_provisional(status: int) -> int | None:
    """The 18x shown for a callee's 1xx; None if nothing is shown (100, 199, unknown ones)."""
    return _PROVISIONAL.get(status)


def mask_final(status: int, *, rang: bool) -> Outcome:
    """The outcome of a callee's final 3xx-6xx to the initial INVITE. `rang`: it had sent 180."""
    if rang and status in (408, 480):
        return NO_ANSWER
    return OF_FINAL_STATUS.get(status) or OF_FINAL_STATUS[status // 100 * 100]


def mask_refusal(response: Response, request: Request, *, rang: bool) -> tuple[Outcome, str]:
    """`mask_final` of a response to the caller's INVITE, and the header lines without which he cannot ask again: those
    of a 422 (Min-SE), and of a 420 that names option tags he requires (Unsupported, RFC 3261 8.1.3.5)."""
    status = response.status
    if status == 420 and response.has("unsupported"):
        required = tuple([tag for tag in OPTION_TAGS if requires(request, tag)])
        if line := mask_tokens("Unsupported", ",".join(response.get_all("unsupported")), required):
            return CALLEE_BAD_EXTENSION, line
    return mask_final(status, rang=rang), mask_response_headers(response) if status == 422 else ""


def mask_in_dialog(status: int) -> int:
    """The final status shown for a response within a call: the original one only if the requester can act on it."""
    if 200 <= status < 300:
        return 200
    if status in _IN_DIALOG:
        return status
    return 500 if 500 <= status < 600 else 488


def mask_hops(hops: int | None) -> int:
    """Max-Forwards of a relayed request (RFC 3261 16.6): MOST_HOPS if the received one has none (`hops` is None), else
    one less than `hops`, which is not 0; at most MOST_HOPS - 1, since a higher value reveals the sender's software."""
    return MOST_HOPS if hops is None else min(hops, MOST_HOPS) - 1


class NotAnchored(ProtocolError):
    """SDP of an anchored call that rtpengine has not rewritten: it must not be relayed."""

    def __init__(self) -> None:
        super().__init__(503, "SDP not rewritten by rtpengine")


class OfferUnanswered(ProtocolError):
    """An offer in a reliable provisional response whose PRACK we send ourselves: nobody gives us the answer."""

    def __init__(self) -> None:
        super().__init__(488, "offer in a reliable provisional response, and the caller has no 100rel")


class Body:
    """The body of an outgoing message."""

    __slots__ = ("content_type", "data")

    def __init__(self, content_type: str, data: bytes) -> None:
        self.content_type = content_type
        self.data = data


def mask_body(message: Message, writer: SdpWriter) -> Body | None:
    """The body to relay: rewritten SDP or a DTMF digit; None without a body.

    Raises ProtocolError: 415 for a request with any other type or with SDP outside offer/answer, unless it is optional,
    and for an encoded body; 488 for malformed SDP; and NotAnchored. A response cannot be refused: it is relayed without
    such a body.
    """
    if not message.body:
        return None
    content_type = message.content_type
    kind = content_type.type if content_type else ""
    if kind == "application/sdp" and _describes(message):
        _check_encoding(message)
        return _mask_sdp(message, message.body, writer)
    if kind.startswith("multipart/") and content_type is not None and _describes(message):
        part = _sdp_part(message.body, content_type.params.get("boundary"))
        if part is not None:
            return _mask_sdp(message, part, writer)
    # RFC 3261 8.2.3: refused are bodies that are "not understood [...] if that body part is not optional".
    if not isinstance(message, Request) or _is_optional(message):
        return None
    if kind in _DTMF and message.method == "INFO":
        _check_encoding(message)
        return _mask_dtmf(message.body, kind)
    raise ProtocolError(415, "only SDP and DTMF bodies are relayed", _accept_line(message.method))


def _accept_line(method: str) -> str:
    """RFC 3261 8.2.3: 415 "MUST contain an Accept header field listing the types of all bodies it understands"."""
    return f"Accept: {', '.join(_DTMF) if method == 'INFO' else 'application/sdp'}\r\n"


def _check_encoding(message: Message) -> None:
    """Raise ProtocolError for a body that is not readable as it is.

    RFC 3261 8.2.3: "the response MUST contain an Accept-Encoding header field listing the encodings understood".
    """
    if message.has("content-encoding") and (message.get("content-encoding") or "").lower() != "identity":
        raise ProtocolError(415, "an encoded body is not relayed", "Accept-Encoding: identity\r\n")


def _is_optional(message: Message) -> bool:
    """Whether a body may be dropped (RFC 3261 20.11)."""
    value = message.get("content-disposition")
    return value is not None and _OPTIONAL(value) is not None


_OPTIONAL: Final = re.compile(r"(?i);\s*+handling\s*+=\s*+optional\s*+(?:;|$)").search


def mask_accept(response: Response) -> str:
    """The Accept line of a 415 to relay. An empty one: no type is accepted (RFC 3261 20.1)."""
    types = ",".join([value.partition(";")[0] for value in ",".join(response.get_all("accept")).split(",")])
    return mask_tokens("Accept", types, ("application/sdp", *_DTMF)) or "Accept: \r\n"


def mask_ack_body(ack: Request, writer: SdpWriter) -> Body | None:
    """As `mask_body`, for an ACK, which cannot be refused: a body that may not pass is dropped."""
    try:
        return mask_body(ack, writer)
    except (ProtocolError, ParseError):
        return None


def has_sdp(message: Message) -> bool:
    """Whether the message carries an offer or an answer (RFC 3264)."""
    content_type = message.content_type if message.body else None
    return (
        content_type is not None
        and (content_type.type == "application/sdp" or content_type.type.startswith("multipart/"))
        and _describes(message)
    )


def _describes(message: Message) -> bool:
    """Whether the method may carry an offer or an answer (RFC 6337 2.1)."""
    return (message.method if isinstance(message, Request) else message.cseq.method) in _DESCRIBING


_DESCRIBING: Final = frozenset({"INVITE", "ACK", "PRACK", "UPDATE"})


def brings_sdp(message: Message) -> bool:
    """As `has_sdp`; False for a malformed Content-Type or CSeq, which is refused by the masking."""
    try:
        return has_sdp(message)
    except ParseError:
        return False


def _mask_sdp(message: Message, body: bytes, writer: SdpWriter) -> Body:
    try:
        if writer.anchored and message.anchored != "done":
            mask_description(body)  # malformed SDP is refused with 488 first
            if message.anchored:
                raise ProtocolError(488, "SDP: an address or port that no media may be sent to")
            raise NotAnchored()
        return Body("application/sdp", writer.write(body))
    except ParseError as error:
        raise ProtocolError(488, f"SDP: {error.reason}") from error


def _sdp_part(body: bytes, boundary: str | None) -> bytes | None:
    """The first application/sdp part of a multipart body (RFC 2046 5.1)."""
    if not boundary:
        return None
    delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    for part in (b"\r\n" + body).split(delimiter)[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if blank and _is_sdp_part(head):
            return content
    return None


_is_sdp_part: Final = re.compile(rb"(?im)^(?:content-type|c)[ \t]*:[ \t]*application/sdp[ \t]*(?:;|\r?$)").search
_DTMF: Final = {
    # "*" and "#" are also written 10 and 11, flash 16 (events of RFC 4733); the duration may be missing.
    "application/dtmf-relay": re.compile(
        rb"(?i)\s*+signal\s*+=\s*+(1[0-6]|[0-9*#a-d]|flash)(?:\s++duration\s*+=\s*+([0-9]{1,5}))?\s*+"
    ),
    "application/dtmf": re.compile(rb"(?i)\s*+(1[0-6]|[0-9*#a-d]|flash)\s*+"),
}
_DTMF_DURATION: Final = b"160"  # ms


def _mask_dtmf(body: bytes, kind: str) -> Body:
    found = _DTMF[kind].fullmatch(body) if len(body) <= 64 else None
    if found is None:
        raise ProtocolError(415, "not a DTMF digit", _accept_line("INFO"))
    if kind == "application/dtmf":
        return Body(kind, found[1])
    return Body(kind, b"Signal=%b\r\nDuration=%b\r\n" % (found[1], found[2] or _DTMF_DURATION))


def mask_request_headers(request: Request) -> str:
    """The header lines of a request to relay: Allow, Supported, Require, session timer, Reason.

    Raises ParseError for a malformed session timer.
    """
    lines = _mask_lines(given) if (given := _given(request, _CROSSING)) else ""
    return lines + mask_reason(request) if request.has("reason") else lines


def mask_response_headers(message: Message, *, plain: bool = False) -> str:
    """The header lines of a response to relay: as of a request, without Reason. `plain`: also without Require.

    A malformed session timer is dropped: a response cannot be refused, and the call need not end because of it.
    """
    given = _given(message, _CROSSING_PLAIN if plain else _CROSSING)
    if not given:
        return ""
    try:
        return _mask_lines(given)
    except ParseError:
        return _mask_lines(_given(message, ("allow", "supported") if plain else _LISTS))


def _given(message: Message, names: tuple[str, ...]) -> str:
    """The header lines with these names, grouped by name."""
    lines = ""
    for name in names:
        if message.has(name):
            lines += "".join([f"{name}: {value}\r\n" for value in message.get_all(name)])
    return lines


@lru_cache(maxsize=256)  # a peer sends the same few sets of lines
def _mask_lines(given: str) -> str:
    values: dict[str, list[str]] = {}
    for line in given.split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        values.setdefault(name, []).append(value)
    lines = ""
    for name, allowed in _TOKEN_LISTS.items():
        lines += mask_tokens(name.capitalize(), ",".join(values.get(name, ())), allowed)
    if "session-expires" in values:
        timer = parse_session_expires(values["session-expires"][0])
        refresher = f";refresher={timer.refresher}" if timer.refresher else ""
        lines += f"Session-Expires: {min(timer.seconds, LONGEST_SESSION_S)}{refresher}\r\n"
    if "min-se" in values:
        lines += f"Min-SE: {min(parse_min_se(values['min-se'][0]), LONGEST_SESSION_S)}\r\n"
    return lines


def mask_tokens(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The line `name: …` with the allowed tokens of `value`, in our order and spelling; "" if there are none."""
    given = {token.strip().lower() for token in value.split(",")}
    kept = [token for token in allowed if token.lower() in given]
    return f"{name}: {', '.join(kept)}\r\n" if kept else ""


def unknown_requirements(request: Request) -> list[str]:
    """The unsupported option tags in Require (RFC 3261 8.2.2.3: answer 420)."""
    if not request.has("require"):
        return []
    return [tag for tag in request.values("require") if tag.lower() not in OPTION_TAGS]


def requires(message: Message, option: str) -> bool:
    """Whether Require names the option tag, given in lower case (RFC 3261 20.32)."""
    return message.has("require") and option in map(str.lower, message.values("require"))


def offers_reliability(invite: Request) -> bool:
    """Whether the caller takes reliable provisional responses (RFC 3262 3)."""
    return requires(invite, "100rel") or "100rel" in map(str.lower, invite.values("supported"))


def reliable_rseq(response: Response) -> int | None:
    """The RSeq of a reliable provisional response, which also has Require: 100rel (RFC 3262 4); None of a plain one."""
    return response.rseq if requires(response, "100rel") else None


def asks_for_privacy(request: Request) -> bool:
    """Whether the caller does not want to be shown to the called side (RFC 3323 4.2, RFC 3325 9.3)."""
    if not request.has("privacy"):
        return False
    values = {value.strip().lower() for line in request.get_all("privacy") for value in re.split("[;,]", line)}
    return not values.isdisjoint(_ANONYMOUS)


_ANONYMOUS: Final = frozenset({"header", "id", "user"})


def mask_reason(message: Message) -> str:
    """Reason lines (RFC 3326) reduced to protocol and cause; other protocols and values without a cause are dropped.

    One line per protocol (RFC 3326 2), with a cause in its range: more could spell a number.
    """
    if not message.has("reason"):
        return ""
    lines = ""
    for value in _reasons(message)[:4]:
        try:
            reason = parse_reason(value)
        except ParseError:
            continue
        protocol, causes = _CAUSES.get(reason.protocol.lower(), ("", range(0)))
        if reason.cause in causes and protocol not in lines:
            lines += f"Reason: {protocol};cause={reason.cause}\r\n"
    return lines


_CAUSES: Final = {"q.850": ("Q.850", range(1, 128)), "sip": ("SIP", range(100, 700))}


def _reasons(message: Message) -> list[str]:
    try:
        return message.values("reason")
    except ParseError:  # a malformed Reason does not justify refusing a BYE
        return []
