"""What the HTTP API needs from the process that it runs in: settings and protocols. It imports no web framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from relay.model.histogram import REQUEST_BOUNDS_S, Form, Histogram
from relay.service.complaints import USUAL_PPM
from relay.service.placement import BindRules

if TYPE_CHECKING:  # each command reads these settings
    from relay.model.capture import CapturedCall, CaptureRules
    from relay.net.spans import Spans
    from relay.reports.explain import PolicyConfiguration
    from relay.store.captures import Captures
    from relay.store.connection import Connection, Place
    from relay.store.database import Reader
    from relay.store.sealing.sealer import Sealer
    from relay.store.writer import GroupWriter

MIB = 1 << 20
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})  # others are any client's own words


class ApiSettings(NamedTuple):
    """Settings of the HTTP API. Request rates are per business user, or per operator key."""

    requests_per_s: int = 600
    burst: int = 1_200  # requests at once after a pause
    failures_per_s: int = 20  # failed authentications per address
    max_body: int = MIB  # bytes
    max_batch_body: int = 2 * MIB  # of POST /v1/bindings/batch
    max_paper_body: int = 27 * MIB  # of POST /v1/papers: 20 MB in Base64
    rules: BindRules = BindRules()
    peers: tuple[str, ...] | None = None  # names of the configured peers; None: unknown
    complaint_ppm: int = USUAL_PPM  # limit of the rate of complaints
    kept_in: Path = Path("var/recordings")  # folder of recordings
    public_url: str = "http://127.0.0.1:8700"  # under which clients reach the API


class RequestCounts:
    """Counts and durations of HTTP requests since the start."""

    def __init__(self) -> None:
        self._by_status: Counter[str] = Counter()
        self._durations = Histogram(REQUEST_BOUNDS_S)

    def add(self, method: str, route: str, status: int, duration_ms: float) -> None:
        """Count an answered request. `route`: the template of its path; "-" if there is no such path."""
        status_class = f"{status // 100}xx"
        self._by_status[status_class] += 1
        self._durations.add(f"{method if method in METHODS else '-'} {route} {status_class}", duration_ms)

    def statistics(self) -> dict[str, Mapping[str, int] | Form]:
        return {"api_requests": self._by_status, "api_request_seconds": self._durations.statistics()}


class Control(Protocol):
    """A client of the relay's admin socket (`ControlClient`). Raises Refused("relay_unavailable") on no answer."""

    async def ask(self, name: str, **args: object) -> dict[str, Any]: ...


class Backend(Protocol):
    """The backend process: the store, its writer, and the control client. The tests have a second implementation."""

    path: Place  # of the store
    sealer: Sealer
    reader: Reader
    writer: GroupWriter
    control: Control
    settings: ApiSettings
    requests: RequestCounts
    spans: Spans | None  # of HTTP requests; None: not wanted
    capture: CaptureRules
    captures: Captures  # for worker threads
    leads: bool  # False: another node's backend serves the API

    async def pending_capture(self, call_id: str) -> CapturedCall | None:
        """The capture so far of a call that is up, or was until some seconds ago."""
        ...

    def configured_at(self, connection: Connection, at_ms: int) -> PolicyConfiguration:
        """The configuration in force at a time. Raises StoreError."""
        ...

    async def metrics(self) -> bytes:
        """The metrics of relay and backend in Prometheus text format. Raises Refused("relay_unavailable")."""
        ...

    async def statistics(self) -> dict[str, Any]:
        """The same as values; without `up` the relay does not answer. `short_pools`: percent free, by id.

        `high_complaints`: the rate of each business user that has a high one.
        """
        ...
