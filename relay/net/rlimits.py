"""What the system lets this process and its children have (setrlimit(2)), and what it must not keep of them."""

from __future__ import annotations

import resource

SPARE = 200  # descriptors beside connections: the store's files, listeners, names that are asked for, the desk


def take_descriptors() -> int:
    """As many as may be had without privileges; shells give 1,024, which is few. Returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def leave_no_core() -> None:
    """A core dump would hold the store's key and real numbers."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
