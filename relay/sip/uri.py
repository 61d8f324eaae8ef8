"""SIP, SIPS and tel URIs (RFC 3261 19.1, RFC 3966).

The meaning of a user part, such as a number, is left to relay.call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final, Literal

from relay.errors import ParseError
from relay.sip.grammar import HOST, Params

# User, password, parameters and headers are wider than their productions: escapes are not checked, and "#", raw UTF-8
# and the like are accepted, since real peers send them. Blanks, controls, quotes and <> are never accepted.
_USER: Final = r'[^\x00-\x20\x7f"<>@:]*+'
_PASSWORD: Final = r'[^\x00-\x20\x7f"<>@]*+'
_PARAMS: Final = r'(?:;[^\x00-\x20\x7f"<>?]*+)?+'
_HEADERS: Final = r'[^\x00-\x20\x7f"<>]*+'
_parse_sip: Final = re.compile(
    rf"([Ss][Ii][Pp][Ss]?+):(?:({_USER})(?::({_PASSWORD}))?+@)?({HOST})(?::([0-9]{{1,5}}))?+({_PARAMS})(?:\?({_HEADERS}))?+"
).fullmatch
_parse_tel: Final = re.compile(rf"[Tt][Ee][Ll]:(\+?[0-9A-Fa-f*#().-]++)({_PARAMS})").fullmatch
_parse_other: Final = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*+):[^\x00-\x20\x7f"<>]++').fullmatch


def uri_host(host: str) -> str:
    """The host as in a URI: IPv6 in brackets (RFC 3261 19.1.1)."""
    return f"[{host}]" if ":" in host else host


def is_sips(uri: str) -> bool:
    """Whether the URI requires TLS (RFC 3261 19.1, 26.2.2)."""
    return not uri.startswith("sip:") and uri[:5].lower() == "sips:"


class SipUri:
    """A SIP or SIPS URI. Immutable; `params` may be shared."""

    __slots__ = ("headers", "host", "params", "password", "port", "scheme", "user")

    def __init__(
        self,
        scheme: Literal["sip", "sips"],
        user: str | None,
        password: str | None,
        host: str,
        port: int | None,
        params: Params,
        headers: str,
    ) -> None:
        self.scheme: Literal["sip", "sips"] = scheme
        self.user = user  # as written, with escapes and user parameters (";phone-context=…")
        self.password = password
        self.host = host  # IPv6 without brackets
        self.port = port
        self.params = params  # by lower-case name
        self.headers = headers  # text behind "?", as written

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        if self.password is not None:
            user = f"{self.user}:{self.password}@"
        port = "" if self.port is None else f":{self.port}"
        headers = f"?{self.headers}" if self.headers else ""
        return f"{self.scheme}:{user}{uri_host(self.host)}{port}{_format_params(self.params)}{headers}"

    def __repr__(self) -> str:
        return f"SipUri({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SipUri) and self._parts() == other._parts()

    __hash__ = None  # type: ignore[assignment]

    def _parts(self) -> tuple[object, ...]:
        return (self.scheme, self.user, self.password, self.host, self.port, self.params, self.headers)


@dataclass(frozen=True, slots=True)
class TelUri:
    number: str  # as written, with "+" and visual separators
    params: Params

    def __str__(self) -> str:
        return f"tel:{self.number}{_format_params(self.params)}"


@dataclass(frozen=True, slots=True)
class OtherUri:
    """A URI of another scheme."""

    text: str

    def __str__(self) -> str:
        return self.text


Uri = SipUri | TelUri | OtherUri


# The text behind the user part is the same in nearly all URIs of a peer: it is parsed once. In "sip:" + user + "@" +
# place, with a user of letters and digits, both parts can be parsed separately.
_places: Final[dict[str, tuple[str, int | None, Params, str]]] = {}
_MAX_REMEMBERED: Final = 1024  # places of up to 128 characters; a hostile peer must not fill memory


def parse_uri(text: str, header: str = "") -> Uri:
    """Parse a URI without <> and blanks. Raises ParseError."""
    known = known_uri(text)
    if known is not None:
        return known
    uri = _parse(text, header)
    if isinstance(uri, SipUri) and uri.user is not None and uri.scheme == "sip":
        _remember(text.partition("@")[2], uri)  # "@" is not allowed in user and password
    return uri


def known_uri(text: str) -> SipUri | None:
    """The result of `parse_uri` if the text behind the user part is cached; else None."""
    if text.startswith("sip:"):
        user, _, place = text[4:].partition("@")
        known = _places.get(place)
        if known is not None and _is_plain_user(user):
            host, port, params, headers = known
            return SipUri("sip", user, None, host, port, params, headers)
    return None


def _is_plain_user(user: str) -> bool:
    return (user.isalnum() or (user[:1] == "+" and user[1:].isdigit())) and user.isascii()


def _remember(place: str, uri: SipUri) -> None:
    if len(place) <= 128:
        if len(_places) >= _MAX_REMEMBERED:
            _places.clear()
        _places[place] = (uri.host, uri.port, uri.params, uri.headers)


def _parse(text: str, header: str) -> Uri:
    found = _parse_sip(text)
    if found is None:
        return _parse_non_sip(text, header)
    scheme, user, password, host, port, params, headers = found.groups()
    if host[0] == "[":
        host = bare_ipv6(host, header)
    return SipUri(
        "sips" if len(scheme) == 4 else "sip",
        user,
        password,
        host,
        check_port(port, header) if port else None,
        _cut_params(params) if params else {},
        headers or "",
    )


def _parse_non_sip(text: str, header: str) -> Uri:
    if found := _parse_tel(text):
        return TelUri(found[1], _cut_params(found[2]))
    found = _parse_other(text)
    if found is None or found[1].lower() in ("sip", "sips", "tel"):
        raise ParseError("malformed URI", header)
    return OtherUri(text)


def check_port(text: str, header: str) -> int:
    port = int(text)
    if port > 65535:
        raise ParseError("port over 65535", header)
    return port


@lru_cache(maxsize=1024)
def bare_ipv6(reference: str, header: str) -> str:
    """An IPv6reference without its brackets.

    The ABNF of RFC 3261 allowed ":::" before a dotted quad, which counts as "::" (RFC 5118 4.10).
    """
    literal = reference[1:-1].replace(":::", "::")
    try:
        IPv6Address(literal)
    except ValueError:
        raise ParseError("malformed IPv6 address", header) from None
    return literal


def _cut_params(text: str) -> Params:
    """Parse uri-parameters; empty ones (";;", a trailing ";") are ignored."""
    params: Params = {}
    for part in text.split(";"):
        if part:
            name, equals, value = part.partition("=")
            params.setdefault(name.lower(), value if equals else None)
    return params


def _format_params(params: Params) -> str:
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params.items())
