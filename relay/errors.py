"""The errors of relay700, and their report to the log. Expected outcomes of a call are values (`relay.model.call`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Report = Callable[[str, dict[str, object]], None]  # of an event for the log, with its fields


class RelayError(Exception):
    """Base class of all errors that relay700 raises itself."""


class ParseError(RelayError):
    """Input that violates the grammar. `reason` holds no byte of the input, so it is safe to log."""

    def __init__(self, reason: str, header: str = "") -> None:
        super().__init__(f"{header}: {reason}" if header else reason)
        self.reason = reason
        self.header = header


class ProtocolError(RelayError):
    """A well-formed request that cannot be served; `status` is the SIP status to answer. `lines`: the header lines that
    the answer must have, each with its CRLF."""

    def __init__(self, status: int, reason: str, lines: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.lines = lines


class AuditedRefusal(NamedTuple):
    """A refused step that the audit log must show, whoever tried it."""

    action: str  # the action that the log would have had
    business: str
    reason: str


class Refused(RelayError):
    """A refused request to the number-protection service. `problem` states the fault and the fix, never a real number.

    `kind` is the API's problem type, such as "conflict"; `field` is the first faulty field of the request, or "".
    `fields` holds every faulty field with its problem.
    """

    attempt: AuditedRefusal | None = None
    tried = 1  # how many numbers the refused step named

    def __init__(self, kind: str, field: str, problem: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        self.kind = kind
        self.field = field
        self.problem = problem
        self.fields = fields or (((field, problem),) if field else ())
        super().__init__("; ".join(map(": ".join, self.fields)) if field else problem)


class StoreError(RelayError):
    """The store is unavailable, or rejected an operation."""


class AlteredError(StoreError):
    """Stored data was altered, or made with another key. The store works, and a retry does not help."""


class ConfigError(RelayError):
    """An invalid configuration. `problems` lists every fault as `key.path: what is wrong and what to do`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def install_command(extra: str) -> str:
    """The command that adds an extra of pyproject.toml to the Python environment of this relay."""
    environment = Path(sys.prefix)
    if (environment.parent / "scripts" / "venv.sh").exists():
        return f"scripts/venv.sh .venv {extra}"
    lock = environment / "requirements" / f"{extra}.txt"  # the package's
    file = lock if lock.exists() else f"requirements/{extra}.txt"
    return f"pip --python {sys.executable} install --require-hashes -r {file}"
