"""The errors of relay700. Expected outcomes of a call are values, not errors (see `relay.call.routing`)."""

from __future__ import annotations


class RelayError(Exception):
    """Anything relay700 raises on purpose."""


class ParseError(RelayError):
    """Input that the grammar does not allow. `reason` holds no byte of the input, so it can be logged as it is."""

    def __init__(self, reason: str, header: str = "") -> None:
        super().__init__(f"{header}: {reason}" if header else reason)
        self.reason = reason
        self.header = header


class ProtocolError(RelayError):
    """A request that is well formed and yet wrong here; `status` is the SIP status to answer it with."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Refused(RelayError):
    """What was asked of the service cannot be. `problem` says what is wrong and the fix, and holds no real number.

    `kind` is the problem type of the API, such as "conflict"; `field` names the part of the request, or is "". Where
    several are wrong at once `fields` has them all, each with its problem.
    """

    def __init__(self, kind: str, field: str, problem: str, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.kind = kind
        self.field = field
        self.problem = problem
        self.fields = fields or (((field, problem),) if field else ())


class StoreError(RelayError):
    """The store cannot answer, or refuses what was asked of it."""


class ConfigError(RelayError):
    """The configuration is wrong. `problems` lists every fault as `key.path: what is wrong and what to do`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
