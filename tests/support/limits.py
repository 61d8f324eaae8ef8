"""Limits of this process, setrlimit(2)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def soft_limit(which: int, limit: int | None) -> Iterator[None]:
    """Set the soft limit of this process and its children; None: the hard limit."""
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (hard if limit is None else limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))
