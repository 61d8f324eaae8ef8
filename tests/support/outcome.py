"""The result of a parser in comparable form, for tests that two parsers agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.errors import ParseError


def outcome(read: Callable[..., Any], *given: object) -> Any:
    """The return value, or the text of the ParseError."""
    try:
        return read(*given)
    except ParseError as error:
        return f"{error.header}: {error.reason}"
