"""What the tables of the number-protection service mean, as plain values in milliseconds. It parses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class NumbersConfig:
    cool_down_ms: int  # between a number's last binding and its next; a prefix may have its own
    max_bindings: int  # that one number carries
    legacy: tuple[str, ...]  # old middle numbers in E.164 without "+"
    legacy_until_ms: int | None  # the end of their last day; None: as long as the phase lets them


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
class VerifyConfig:
    url: str
    secret_file: Path
    timeout_s: float
    fail: Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class WebhooksConfig:
    timeout_s: float
    give_up_ms: int
    batch: int
