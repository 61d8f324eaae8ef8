"""Header names: the canonical name (lower-case, long form) of any spelling, and the usual spelling for output."""

from __future__ import annotations

import sys
from typing import Final

from relay.errors import ParseError
from relay.sip.grammar import is_token

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
