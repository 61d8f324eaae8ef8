"""Texts that no URL may have. The session keeps them, and URLs have references to them.

Browsers and proxies keep URLs, and people paste them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from typing import Final
from unicodedata import normalize

from relay.model.numbers import is_700
from relay.privacy.texts import LONGEST_TEXT, mask_numbers

MOST: Final = 200  # of one session; beyond it the one made first is forgotten
_SHORTEST: Final = 3  # digits of an extension
_is_reference: Final = re.compile("~[A-Za-z0-9_-]{16}").fullmatch


def may_be_in_url(text: str) -> bool:
    """Whether a text is no number of three digits or more, and holds none that `mask_numbers` finds; 700 numbers may.

    Only digits in a text may be a foreign number as records show it, or an extension.
    """
    return not is_reference(text) and not _is_number(text) and not holds_real_number(text)


def holds_real_number(text: str) -> bool:
    """Whether `mask_numbers` finds a number in a text, or the text is too long for it."""
    return len(text) > LONGEST_TEXT or mask_numbers(text, "") != text


def _is_number(text: str) -> bool:
    """Whether a text is digits of any script, with or without separators, but no 700 number."""
    signs = "".join(filter(str.isalnum, normalize("NFKC", text)))
    return len(signs) >= _SHORTEST and signs.isnumeric() and not is_700(signs)


def is_reference(text: str) -> bool:
    """Whether a text of a URL refers to another one, which the session may have forgotten."""
    return _is_reference(text) is not None


class References:
    """The texts of one session. The same text has the same reference, also after it was forgotten."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._texts: OrderedDict[str, str] = OrderedDict()

    def for_url(self, text: str) -> str:
        """The text itself if a URL may have it, else a reference."""
        if may_be_in_url(text):
            return text
        digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        reference = "~" + urlsafe_b64encode(digest[:12]).decode()
        self._texts[reference] = text
        if len(self._texts) > MOST:
            self._texts.popitem(last=False)
        return reference

    def meant(self, text: str) -> str:
        """The meaning of a text of a URL; a forgotten reference means itself."""
        return self._texts.get(text, text)
