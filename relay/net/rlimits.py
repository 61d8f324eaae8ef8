"""Resource limits of this process and its child (setrlimit(2)): descriptors and core dumps.

A limit that is right already is not set: a service manager's sandbox may forbid the call.
"""

from __future__ import annotations

import resource

SPARE = 200  # descriptors other than connections: the store's files, listeners, DNS queries, the backend's pipe


def take_descriptors() -> int:
    """Raise the soft limit of descriptors to the hard one; shells start with 1,024. Returns the limit."""
    had, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if had != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def leave_no_core() -> None:
    """Disable core dumps, which would hold the store's key and real numbers.

    A limit of 0 only prevents core files, not pipes to a crash handler (core(5)). A limit of 1 makes Linux refuse both
    (do_coredump in fs/coredump.c).
    """
    size, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most else 0
    if size != least:
        resource.setrlimit(resource.RLIMIT_CORE, (least, most))
