"""The exceptions of the client. `relay700_client.problems` has one for each kind of problem."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of the request."""

    field: str
    problem: str


class Problem(msgspec.Struct, frozen=True):
    """The problem document (RFC 9457) of a refusal."""

    type: str = "/problems/unknown"
    title: str = ""
    status: int = 0
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    request_id: str = ""


class Relay700Error(Exception):
    """Any failure of a request."""


class Unreachable(Relay700Error):
    """There was no answer."""


class ApiError(Relay700Error):
    """The API refused the request. `detail` says why and what to do."""

    kinds: ClassVar[dict[str, type[ApiError]]] = {}  # kind of problem -> exception

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.detail}")
        self.kind = problem.type.rpartition("/")[2]
        self.status = problem.status
        self.title = problem.title
        self.detail = problem.detail
        self.errors = problem.errors
        self.request_id = problem.request_id  # as in the relay's log

    def __init_subclass__(cls, *, kind: str) -> None:
        ApiError.kinds[kind] = cls


def api_error(status: int, body: bytes) -> ApiError:
    """The exception of a refusal; also of one by a proxy, whose body is no problem document."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem()
    if not problem.status:
        problem = msgspec.structs.replace(problem, status=status, detail=f"not by relay700: {body[:200]!r}")
    return ApiError.kinds.get(problem.type.rpartition("/")[2], ApiError)(problem)
