"""What a reading gives, in a form that can be compared: for tests that one way of reading gives what another gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.errors import ParseError


def outcome(read: Callable[..., Any], *given: object) -> Any:
    """What it returns, or the words of its ParseError."""
    try:
        return read(*given)
    except ParseError as error:
        return f"{error.header}: {error.reason}"
