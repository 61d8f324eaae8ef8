"""Masking of captured SIP messages by an allow-list.

A masked message is valid SIP. Addresses, tags, branches, Call-IDs and sequence numbers, which may tell who or what
wrote them, become stand-ins, the same for the same value in all messages of a call. Anything not known to be safe
becomes `***`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Final, Literal, NamedTuple

from relay.errors import ParseError
from relay.model.capture import Side
from relay.model.numbers import is_700, mask_number, number_of_uri_user
from relay.privacy.captured import BODIES, CLOSING, HEADERS, SDP_KINDS, Line, is_response, shown_name
from relay.privacy.codecs import mask_attribute
from relay.privacy.sdp import BANDWIDTHS, KINDS, PROTOCOLS
from relay.sip.grammar import spell, split_commas
from relay.sip.headers import (
    Reason,
    parse_content_type,
    parse_cseq,
    parse_name_addr,
    parse_rack,
    parse_reason,
    parse_session_expires,
    parse_via,
)
from relay.sip.message import PHRASES
from relay.sip.uri import SipUri, TelUri, parse_uri, uri_host

HIDDEN: Final = "***"
METHODS: Final = frozenset(
    "INVITE ACK CANCEL BYE PRACK UPDATE INFO OPTIONS MESSAGE REGISTER REFER SUBSCRIBE NOTIFY PUBLISH".split()
)
_TOKENS: Final = METHODS | frozenset(
    """
    100rel 199 answermode early-session eventlist explicitsub from-change geolocation-http gruu histinfo ice join
    multiple-refer norefersub nosub outbound path policy precondition pref privacy recipient-list-invite record-aware
    replaces resource-priority sdp-anat sec-agree siprec tdialog timer trickle-ice uui application/sdp text/plain
    application/dtmf-relay application/dtmf id header session user none critical
    """.split()
)
_TRANSPORTS: Final = frozenset({"UDP", "TCP", "TLS", "WS", "WSS", "SCTP"})


# Documentation ranges (RFC 5737, 3849), by who has the address.
_Whose = Literal["caller", "callee", "relay"]
_IPV4: Final = {"caller": "192.0.2.", "callee": "198.51.100.", "relay": "203.0.113."}
_IPV6: Final = {"caller": "2001:db8:1::", "callee": "2001:db8:2::", "relay": "2001:db8:3::"}


class CaptureMask:
    """Masks the messages of one call, in order of time."""

    def __init__(self, clear: Iterable[str] = (), name_call: Callable[[str], str] | None = None) -> None:
        """`clear`: the numbers to show, normalised. Others are masked, even in the form of a 700 number: a peer may
        write anything. `name_call`: the stand-in for a Call-ID; None: "call-1" and so on."""
        self._clear = frozenset(clear)
        self._name_call = name_call
        self._hosts: dict[str, str] = {}
        self._hosts_of: dict[str, int] = {}  # stand-ins given, by prefix
        self._names: dict[tuple[str, str], int] = {}  # stand-ins by kind and value
        self._counts: dict[str, int] = {}

    @property
    def stand_ins(self) -> int:
        """How many are remembered."""
        return len(self._hosts) + len(self._names)

    def know(self, address: str, whose: _Whose) -> str:
        """The stand-in for a transport address, "192.0.2.7:5060", with its port."""
        host, _, port = address.rpartition(":")
        return f"{uri_host(self._host(host.strip('[]'), whose))}:{port}"

    def number(self, number: str) -> str:
        """A normalised number, masked unless it is to be shown."""
        if number in self._clear:
            return number
        return f"{number[:3]}****{number[-4:]}" if is_700(number) else mask_number(number)

    def name(self, kind: str, value: str) -> int:
        """The stand-in for a value: which one of its kind it is, from 1."""
        found = self._names.get((kind, value))
        if found is None:
            found = self._names[kind, value] = self._counts[kind] = self._counts.get(kind, 0) + 1
        return found

    def masked(self, lines: list[Line], side: Side, *, sent: bool) -> list[str]:
        """The masked text of each line. `side`: of the peer; `sent`: by the relay."""
        shown = [self._start(lines[0].value, side, sent=sent)]
        scope = _Scope(side, sent, _call_id(lines), sent != is_response(lines))
        in_parts = any(line.name == CLOSING for line in lines if line.part == "body")
        for line in lines[1:]:
            if line.part == "header":
                name = spell(line.name) if line.name in HEADERS else "X-Masked"
                shown.append(f"{name}: {self._header(line, scope)}")
            elif line.part == "sdp":
                shown.append(self._sdp(line, scope))
            else:
                shown.append(self._body(line, in_parts=in_parts))
        return _with_length(lines, shown)

    # -- addresses, URIs

    def _host(self, host: str, whose: _Whose) -> str:
        host = host.lower()
        known = self._hosts.get(host)
        if known is None:
            prefix = (_IPV6 if _is_ipv6(host) else _IPV4)[whose]
            number = self._hosts_of[prefix] = min(self._hosts_of.get(prefix, 0) + 1, 254)
            known = self._hosts[host] = f"{prefix}{number:x}" if ":" in prefix else f"{prefix}{number}"
        return known

    def _start(self, text: str, side: Side, *, sent: bool) -> str:
        if (found := _status(text)) is not None:
            return f"SIP/2.0 {found[1]} {PHRASES.get(int(found[1]), HIDDEN)}"
        method, _, rest = text.partition(" ")
        uri = self._uri(rest.rpartition(" ")[0], side if sent else "relay")
        return f"{_method(method)} {uri} SIP/2.0"

    def _uri(self, text: str, whose: _Whose) -> str:
        try:
            uri = parse_uri(text)
        except ParseError:
            return "sip:unknown.invalid"
        if isinstance(uri, TelUri):
            return f"tel:{self._user(uri.number)}"
        if not isinstance(uri, SipUri):
            return "sip:unknown.invalid"
        user = "" if uri.user is None else f"{self._user(uri.user)}@"
        port = "" if uri.port is None else f":{uri.port}"
        params = ";lr" if "lr" in uri.params else ""
        if (transport := (uri.params.get("transport") or "").upper()) in _TRANSPORTS:
            params += f";transport={transport.lower()}"
        return f"{uri.scheme}:{user}{uri_host(self._host(uri.host, whose))}{port}{params}"

    def _user(self, user: str) -> str:
        number = number_of_uri_user(user)
        return self.number(number) if number else HIDDEN

    # -- headers

    def _header(self, line: Line, scope: _Scope) -> str:
        try:
            mask = _MASKS.get(line.name)
            return HIDDEN if mask is None else mask(self, line.value, scope)
        except ParseError:
            return HIDDEN

    def _via(self, value: str, scope: _Scope) -> str:
        shown = []
        whose: _Whose = "relay" if scope.ours else scope.side
        for each in split_commas(value, "via"):
            via = parse_via(each)
            transport = via.transport if via.transport in _TRANSPORTS else "UDP"
            port = "" if via.port is None else f":{via.port}"
            text = f"SIP/2.0/{transport} {uri_host(self._host(via.host, whose))}{port}"
            text += f";branch=z9hG4bK-{self.name('branch', via.branch)}" if via.branch else ""
            if "rport" in via.params:
                rport = via.params["rport"]
                text += f";rport={rport}" if rport and _is_port(rport) else ";rport"
            if received := via.params.get("received"):
                text += f";received={self._host(received.strip('[]'), whose)}"
            shown.append(text)
        return ", ".join(shown) or HIDDEN

    def _addresses(self, value: str, scope: _Scope) -> str:
        shown = []
        for each in split_commas(value):
            if each == "*":
                shown.append(each)
                continue
            address = parse_name_addr(each)
            tag = f";tag={self.name('tag', address.tag)}" if address.tag else ""
            shown.append(f"<{self._uri(address.uri_text, 'relay' if scope.sent else scope.side)}>{tag}")
        return ", ".join(shown) or HIDDEN

    def _call_id(self, value: str, _: _Scope) -> str:
        return f"call-{self.name('call', value)}" if self._name_call is None else self._name_call(value)

    def _cseq(self, value: str, scope: _Scope) -> str:
        cseq = parse_cseq(value)
        return f"{self._sequence(cseq.number, scope)} {_method(cseq.method)}"

    def _sequence(self, number: int, scope: _Scope) -> int:
        return self.name(f"cseq of {scope.call_id} {scope.ours}", str(number))

    def _rseq(self, value: str, scope: _Scope) -> str:
        return str(self.name(f"rseq of {scope.call_id}", value))

    def _rack(self, value: str, scope: _Scope) -> str:
        rack = parse_rack(value)
        rseq, cseq = self._rseq(str(rack.number), scope), self._sequence(rack.cseq, scope)
        return f"{rseq} {cseq} {_method(rack.method)}"

    # -- bodies

    def _sdp(self, line: Line, scope: _Scope) -> str:
        kind, value = line.name, line.value.rstrip(" \t")
        if kind.startswith("a="):
            return _attribute(line, value)
        match kind:
            case "v" | "s" | "t":
                return {"v": "v=0", "s": "s=-", "t": "t=0 0"}[kind]
            case "o" | "c":
                start = "o=- 0 0" if kind == "o" else "c="
                found = _connection(value)
                host = self._host(found[2], scope.side) if found else "0.0.0.0"
                return f"{start} IN {'IP6' if ':' in host else 'IP4'} {host}".replace("= ", "=")
            case "m":
                return _stream(value)
            case "b":
                bandwidth, _, size = value.partition(":")
                fits = size.isascii() and size.isdigit() and len(size) <= BANDWIDTHS.get(bandwidth, 0)
                return f"b={bandwidth}:{size}" if fits else "b=X-masked:0"
        return f"{kind}={HIDDEN}" if kind in SDP_KINDS else "a=masked"

    def _body(self, line: Line, *, in_parts: bool) -> str:
        hidden = f"({len(line.value)} characters, masked)"
        if not in_parts:
            return hidden
        if line.name in ("", CLOSING):
            return f"--{_BOUNDARY}--" if line.name else hidden
        start = f"--{_BOUNDARY}\r\nContent-Type: {_type(line.name)}\r\n"
        return start if line.name == "application/sdp" else f"{start}\r\n{hidden}"


class _Scope(NamedTuple):
    """The message of a line."""

    side: Side
    sent: bool
    call_id: str
    ours: bool  # the request, or the one answered, is the relay's


_Mask = Callable[[CaptureMask, str, _Scope], str]
_BOUNDARY: Final = "masked"


def _tokens(_: CaptureMask, value: str, __: _Scope) -> str:
    return ", ".join([token for token in split_commas(value) if token in _TOKENS]) or HIDDEN


def _small(_: CaptureMask, value: str, __: _Scope) -> str:
    return found[0] if (found := _is_small(value)) else HIDDEN


_is_small: Final = re.compile(r"[0-9]{1,6}(?![0-9])").match  # a comment or parameters may follow
_is_port: Final = re.compile(r"[0-9]{1,5}").fullmatch


def _session(_: CaptureMask, value: str, __: _Scope) -> str:
    timer = parse_session_expires(value)
    return (HIDDEN if timer.seconds > 999_999 else str(timer.seconds)) + (
        f";refresher={timer.refresher}" if timer.refresher else ""
    )


def _challenge(_: CaptureMask, __: str, ___: _Scope) -> str:
    return f'Digest realm="{HIDDEN}"'


def _credentials(_: CaptureMask, __: str, ___: _Scope) -> str:
    return f'Digest username="{HIDDEN}"'


def _reason(_: CaptureMask, value: str, __: _Scope) -> str:
    reasons = [parse_reason(each) for each in split_commas(value, "reason")]
    return ", ".join([f"{each.protocol};cause={each.cause}" for each in reasons if _is_cause(each)]) or HIDDEN


def _is_cause(reason: Reason) -> bool:
    return reason.protocol.lower() in ("q.850", "sip") and reason.cause is not None and reason.cause < 1000


def _content_type(_: CaptureMask, value: str, __: _Scope) -> str:
    kind = _type(parse_content_type(value).type)
    return f"{kind};boundary={_BOUNDARY}" if kind.startswith("multipart/") else kind


def _type(kind: str) -> str:
    return kind if kind in BODIES else "application/x-masked"


_MASKS: Final[dict[str, _Mask]] = {
    "via": CaptureMask._via,
    **dict.fromkeys(
        "from to contact route record-route path service-route p-asserted-identity p-preferred-identity"
        " remote-party-id diversion history-info referred-by refer-to p-called-party-id p-served-user"
        " p-associated-uri reply-to".split(),
        CaptureMask._addresses,
    ),
    "call-id": CaptureMask._call_id,
    "cseq": CaptureMask._cseq,
    "rseq": CaptureMask._rseq,
    "rack": CaptureMask._rack,
    **dict.fromkeys("max-forwards expires min-expires min-se retry-after content-length".split(), _small),
    **dict.fromkeys("allow supported require proxy-require unsupported accept allow-events privacy".split(), _tokens),
    **dict.fromkeys("www-authenticate proxy-authenticate".split(), _challenge),
    **dict.fromkeys("authorization proxy-authorization".split(), _credentials),
    "session-id": lambda _, __, ___: "0" * 32,  # RFC 7989 5: none
    "session-expires": _session,
    "reason": _reason,
    "content-type": _content_type,
}


def _call_id(lines: list[Line]) -> str:
    return next((line.value for line in lines if line.name == "call-id"), "")


def _method(method: str) -> str:
    return method if method in METHODS else "UNKNOWN"


_status: Final = re.compile(r"[Ss][Ii][Pp]/2\.0 ([1-6][0-9]{2})(?!\S)").match


def _is_ipv6(host: str) -> bool:
    try:
        return bool(IPv6Address(host))
    except ValueError:
        return False


def _attribute(line: Line, value: str) -> str:
    """The attribute if it would cross, else only its name. Keys are secret."""
    name = line.name.removeprefix("a=")
    if name == "crypto":
        return _crypto(value)
    if kept := mask_attribute(name, value if ":" in line.text else None):
        return f"a={name}" if kept[1] is None else f"a={name}:{kept[1]}"
    if shown_name(line) != line.name:
        return "a=masked"
    return f"a={name}:{HIDDEN}" if ":" in line.text else f"a={name}"


def _crypto(value: str) -> str:
    words = [*value.split(), "", ""]
    tag = words[0] if words[0] in _CRYPTO_TAGS else "1"
    return f"a=crypto:{tag} {words[1] if words[1] in _CRYPTO_SUITES else HIDDEN} inline:{_NO_KEY}"


_NO_KEY: Final = "A" * 40  # 30 bytes of 0: with anything shorter Wireshark takes the message for malformed
_CRYPTO_TAGS: Final = frozenset(map(str, range(1, 100)))
_CRYPTO_SUITES: Final = frozenset(
    "AES_CM_128_HMAC_SHA1_80 AES_CM_128_HMAC_SHA1_32 F8_128_HMAC_SHA1_80 AES_192_CM_HMAC_SHA1_80"
    " AES_256_CM_HMAC_SHA1_80 AEAD_AES_128_GCM AEAD_AES_256_GCM".split()
)
_connection: Final = re.compile(r"(?:.* )?IN IP([46]) \[?([^ /\]]+)\]?(?:/.*)?").fullmatch


def _stream(value: str) -> str:
    kind, port, protocol, *formats = [*value.split(), "", "", ""]
    port = port.partition("/")[0]
    shown = [each for each in formats if _is_format(each)]
    words = (kind if kind in KINDS else "application", port if _is_port(port) else "0")
    return f"m={' '.join((*words, protocol if protocol in PROTOCOLS else 'udp', *(shown or ['*'])))}"


_is_format: Final = re.compile(r"[0-9]{1,3}|t38|\*|webrtc-datachannel").fullmatch


def wire(lines: list[Line], shown: list[str]) -> bytes:
    """The masked message as bytes."""
    head = "\r\n".join([text for line, text in zip(lines, shown, strict=True) if line.part in ("start", "header")])
    return f"{head}\r\n\r\n".encode() + _wire_body(lines, shown)


def _wire_body(lines: list[Line], shown: list[str]) -> bytes:
    body = "\r\n".join([text for line, text in zip(lines, shown, strict=True) if line.part in ("sdp", "body")])
    return (f"{body}\r\n" if lines[-1].part == "sdp" else body).encode()


def _with_length(lines: list[Line], shown: list[str]) -> list[str]:
    """With the Content-Length of the masked body."""
    length = f"Content-Length: {len(_wire_body(lines, shown))}"
    return [
        length if line.part == "header" and line.name == "content-length" else text
        for line, text in zip(lines, shown, strict=True)
    ]
