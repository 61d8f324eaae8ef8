"""What the system lets this process and its child have (setrlimit(2)), and must not keep of them.

A service manager that has set both already may forbid to ask for them: then nothing is asked.
"""

from __future__ import annotations

import resource

SPARE = 200  # descriptors beside connections: the store's files, listeners, names that are asked for, the desk


def take_descriptors() -> int:
    """As many as may be had without privileges; shells give 1,024, which is few. Returns how many."""
    had, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if had != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def leave_no_core() -> None:
    """A core dump would hold the store's key and real numbers.

    A limit of 0 bytes keeps it out of a file, and does not hold where the system gives it to a program (core(5)); 1,
    which is too little for a file, has Linux give it to nobody (do_coredump in fs/coredump.c).
    """
    size, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most else 0
    if size != least:
        resource.setrlimit(resource.RLIMIT_CORE, (least, most))
