"""Plain values of the number-protection service's tables. It parses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class ApiConfig:
    enabled: bool
    host: str  # without brackets
    port: int
    certificate: Path | None  # both or neither; without them plain HTTP, on loopback only
    key: Path | None
    requests_per_s: int  # of one key
    burst: int


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Daily batches for the authority."""

    key_file: Path
    batches: Path


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    url: str
    secret_file: Path
    timeout_s: float
    fail: Literal["closed", "open"]
