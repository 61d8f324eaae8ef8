"""Basic rules of RFC 3261 section 25 as precompiled patterns; splitting of values; names of headers.

Every pattern is linear: anchored, with possessive repetition. Deviations seen in practice (a display name without
quotes, `_` in a host name, an empty parameter value) are accepted if they are unambiguous; ambiguous text is refused.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from relay.errors import ParseError

Params = dict[str, str | None]
"""By lower-case name; values without quotes, None for a parameter without "="; the first of duplicates counts."""

TOKEN: Final = r"[A-Za-z0-9\-.!%*_+`'~]++"
LWS: Final = r"[ \t]*+"
QUOTED: Final = r'"[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*+"'
# A hostname, IPv4address or IPv6reference; `bare_ipv6` validates IPv6 literals.
HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*+)|\[[0-9A-Fa-f:.]{2,45}+\])"
# gen-value: token, host, and any other text without delimiters.
_VALUE: Final = r'[^\x00-\x20\x7f;,"<>]*+'
_PARAM: Final = rf"{LWS};{LWS}({TOKEN})(?:{LWS}(=){LWS}({QUOTED}|{_VALUE}))?+"
PARAMS: Final = rf"(?:{LWS};{LWS}{TOKEN}(?:{LWS}={LWS}(?:{QUOTED}|{_VALUE}))?+)*+{LWS}"

# Fast paths for the common forms of PARAMS and of URIs.
_PLAIN_PARAM: Final = r"[A-Za-z0-9\-._]++(?:=[A-Za-z0-9\-._]*+)?+"
is_plain_params: Final = re.compile(rf"{_PLAIN_PARAM}(?:;{_PLAIN_PARAM})*+").fullmatch
is_plain_uri: Final = re.compile(r"[A-Za-z0-9\-._~%:;=@+]++").fullmatch
is_token: Final = re.compile(TOKEN).fullmatch
_is_value: Final = re.compile(_VALUE).fullmatch
_next_param: Final = re.compile(_PARAM).finditer
_element: Final = re.compile(rf'(?:[^",<]|{QUOTED}|<[^>]*+>)++').match
_quoted_pair: Final = re.compile(r"\\(.)", re.DOTALL)
_control: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def trim(text: str) -> str:
    """`text.strip(" \t")`, at a quarter of the cost if there is nothing to strip, which is nearly always."""
    return text.strip(" \t") if text and (ord(text[0]) <= 32 or ord(text[-1]) <= 32) else text


def split_commas(text: str, header: str = "") -> list[str]:
    """The elements of a comma-separated list, outer blanks stripped, empty ones dropped (RFC 3261 7.3.1).

    Commas within quotes and within <> do not separate. Raises ParseError for an unclosed quote or bracket.
    """
    if "," not in text:
        element = text.strip(" \t")
        return [element] if element else []
    if '"' not in text and "<" not in text:
        return [element for part in text.split(",") if (element := part.strip(" \t"))]
    elements = []
    position = 0
    while position < len(text):
        if text[position] != ",":
            found = _element(text, position)
            if found is None:
                raise ParseError("a quote or bracket is not closed", header)
            position = found.end()
            if element := found[0].strip(" \t"):
                elements.append(element)
            if position < len(text) and text[position] != ",":
                raise ParseError("a quote or bracket is not closed", header)
        position += 1
    return elements


def cut_params(text: str) -> Params:
    """Parse `;name`, `;name=value` and `;name="quoted"` (generic-param), already matched by PARAMS."""
    params: Params = {}
    if '"' in text:
        for found in _next_param(text.rstrip(" \t")):  # the matches are contiguous
            name, equals, value = found.groups()
            params.setdefault(name.lower(), unquote(value) if equals else None)
        return params
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        name = name.strip(" \t").lower()
        if name not in params:
            params[name] = value.strip(" \t") if equals else None
    return params


def cut_plain_params(text: str) -> Params:
    """Parse parameters matched by `is_plain_params`, without a leading ";"."""
    params: Params = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name = name.lower()
        if name not in params:
            params[name] = value if equals else None
    return params


def format_params(params: Params) -> str:
    """The inverse of `cut_params`; values are quoted if needed."""
    text = ""
    for name, value in params.items():
        if value is None:
            text += f";{name}"
        else:
            text += f";{name}={value if _is_value(value) else quote(value)}"
    return text


def quote(text: str) -> str:
    """The text as a quoted-string. Raises ParseError for control characters, which no header may carry."""
    if _control.search(text):
        raise ParseError("control character")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquote(text: str) -> str:
    """A quoted-string without quotes and escapes; other text unchanged. Control characters become U+FFFD."""
    if text[:1] != '"':
        return text
    inner = text[1:-1]
    if "\\" in inner:
        inner = _quoted_pair.sub(r"\1", inner)
    return inner if inner.isprintable() else _control.sub("\ufffd", inner)


# -- Header names

_COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
_SPELLING: Final = {
    "call-id": "Call-ID",
    "cseq": "CSeq",
    "mime-version": "MIME-Version",
    "min-se": "Min-SE",
    "rack": "RAck",
    "rseq": "RSeq",
    "sip-etag": "SIP-ETag",
    "sip-if-match": "SIP-If-Match",
    "www-authenticate": "WWW-Authenticate",
}
_MAX_REMEMBERED: Final = 2048  # spellings; a hostile peer must not fill memory


_names: Final[dict[str, str]] = {}  # by spelling


def canonical_name(spelled: str) -> str:
    """The canonical name of a name as spelled, including blanks before the colon.

    Raises ParseError if it is not a header name.
    """
    name = _names.get(spelled)
    return _new_name(spelled) if name is None else name


def _new_name(spelled: str) -> str:
    name = spelled.rstrip(" \t")
    if not is_token(name):
        raise ParseError("malformed header name")
    name = name.lower()
    name = sys.intern(_COMPACT.get(name, name))  # look-ups then compare by identity
    if len(spelled) <= 64:
        if len(_names) >= _MAX_REMEMBERED:
            _names.clear()  # else made-up names would stay and displace common ones
        _names[spelled] = name
    return name


def spell(name: str) -> str:
    """A canonical name in the spelling of RFC 3261."""
    return _SPELLING.get(name) or "-".join(part.capitalize() for part in name.split("-"))
