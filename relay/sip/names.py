"""Header names: one lower-case long name for every way to write them, and the usual spelling for writing."""

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
_MAX_REMEMBERED: Final = 2048  # spellings; a peer that makes up names must not fill memory


_names: Final[dict[str, str]] = {}  # by how they were spelled


def canonical_name(spelled: str) -> str:
    """The canonical name for a name as it was spelled, blanks before the colon included.

    Raises ParseError for what is no header name.
    """
    name = _names.get(spelled)
    return _new_name(spelled) if name is None else name


def _new_name(spelled: str) -> str:
    name = spelled.rstrip(" \t")
    if not is_token(name):
        raise ParseError("malformed header name")
    name = name.lower()
    name = sys.intern(_COMPACT.get(name, name))  # it is looked up by what it is then, not letter by letter
    if len(spelled) <= 64:
        if len(_names) >= _MAX_REMEMBERED:
            _names.clear()  # rather than to keep what a peer made up and forget what everybody sends
        _names[spelled] = name
    return name


def spell(name: str) -> str:
    """A canonical name as RFC 3261 writes it."""
    return _SPELLING.get(name) or "-".join(part.capitalize() for part in name.split("-"))
