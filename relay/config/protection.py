"""Tables of the number-protection service to plain values, each fault with its key path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from msgspec.structs import asdict

from relay.config.parties import read_parties
from relay.config.tables import (
    AlibabaTable,
    ApiTable,
    CaptureTable,
    ComplianceTable,
    FraudTable,
    HepTable,
    HooksTable,
    NumbersTable,
    OtlpTable,
    PilotTable,
    PolicyTable,
    QuotasTable,
    RetentionTable,
    SignalTable,
    VerifyTable,
    WebhooksTable,
)
from relay.errors import ParseError
from relay.events.webhooks import DeliveryRules
from relay.model.capture import CaptureRules, HepRules
from relay.model.numbers import normalise_party
from relay.model.settings import Transport
from relay.net.hosts import is_loopback
from relay.policy.fraud import Signal, Signals
from relay.policy.rules import NEVER_MS, NO_LIMIT, Cap, Hours, PilotDates, Quotas, RefusalCaps, Rules, parse_hours
from relay.service.businesses import SCENARIOS
from relay.service.fields import DAY_MS, midnight_ms, parse_duration_ms
from relay.service.placement import BindRules
from relay.service.retention import HALF_YEAR_MS, TWO_YEARS_MS, Retention
from relay.store.papers import PAPER_KINDS

LONGEST_WINDOW_MS = DAY_MS  # of a cap: call records are counted no further back

_CAP = re.compile(r"([1-9][0-9]{0,6})/(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    enabled: bool
    host: str  # without brackets
    port: int
    certificate: Path | None  # both or neither; without them plain HTTP, on loopback only
    key: Path | None
    requests_per_s: int  # of a business user, or of one operator's key
    burst: int
    public_url: str  # without a slash at the end


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
    unknown_callers: bool = False


@dataclass(frozen=True, slots=True)
class HooksConfig:
    """The hooks of business users."""

    timeout_s: float
    fail: Literal["closed", "open"]
    unknown_callers: bool  # asked about callers without a binding, too


def bind_rules(
    table: NumbersTable,
    pilot: PilotTable,
    compliance: ComplianceTable,
    quotas: QuotasTable,
    recording: bool,
    hooks: bool,
    problems: list[str],
) -> BindRules:
    """`recording`: whether calls can be recorded. `hooks`: whether business users may have hooks."""
    return BindRules(
        phase=table.phase,
        cool_down_ms=duration_ms("numbers.cool_down", table.cool_down, problems),
        max_bindings=table.max_bindings,
        legacy_until_ms=_end_of_day("numbers.legacy_until", table.legacy_until, problems),
        recording=recording,
        hooks=hooks,
        parties=read_parties(table, problems),
        quotas=Quotas(**{name: NO_LIMIT if most == "none" else most for name, most in asdict(quotas).items()}),
        filing=table.filing,
        dates=pilot_dates(pilot, problems),
        papers=_papers(compliance, problems),
        suspends_expired=compliance.expired == "suspend",
    )


def pilot_dates(table: PilotTable, problems: list[str]) -> PilotDates:
    """The pilot's dates; each must be later than the one before it."""
    days = {name: day for name, day in asdict(table).items() if isinstance(day, date)}
    for (earlier, first), (later, then) in pairwise(days.items()):
        if then <= first:
            fix = f"write a later day, or move pilot.{earlier}"
            problems.append(f"pilot.{later}: {then} is not after pilot.{earlier}, {first}; {fix}")
    return PilotDates(
        midnight_ms(table.preparation),
        midnight_ms(table.transition),
        midnight_ms(table.pilot),
        NEVER_MS if table.ends is None else midnight_ms(table.ends),
    )


def _papers(table: ComplianceTable, problems: list[str]) -> tuple[str, ...]:
    for each in table.papers:
        scenario, _, kind = each.rpartition(":")
        if kind not in PAPER_KINDS or scenario not in ("", *SCENARIOS):
            kinds, scenarios = ", ".join(PAPER_KINDS), ", ".join(SCENARIOS)
            problems.append(f'compliance.papers: "{each}": must be one of {kinds}; or after one of {scenarios} and ":"')
    return table.papers


def api_config(table: ApiTable, problems: list[str]) -> ApiConfig:
    host, port = _address("api.listen", table.listen, table, problems)
    for given, other, name in ((table.certificate, table.key, "key"), (table.key, table.certificate, "certificate")):
        if given is not None and other is None:
            problems.append(f"api.{name}: missing; the certificate and its key go together")
    url = table.public_url or f"{'http' if table.certificate is None else 'https'}://{table.listen}"
    return ApiConfig(
        enabled=table.enabled,
        host=host,
        port=port,
        certificate=_path(table.certificate),
        key=_path(table.key),
        requests_per_s=table.requests_per_s,
        burst=table.burst,
        public_url=url.removesuffix("/"),
    )


def alibaba_config(table: AlibabaTable | None, api: ApiTable, problems: list[str]) -> tuple[str, int] | None:
    """Host and port of Alibaba's API; None: not served."""
    if table is None:
        return None
    if not api.enabled:
        problems.append("compat.alibaba: the backend serves it; set api.enabled = true, or leave [compat.alibaba] out")
    if table.listen == api.listen:
        problems.append("compat.alibaba.listen: the same as api.listen; write another port")
    return _address("compat.alibaba.listen", table.listen, api, problems)


def _address(key: str, listen: str, api: ApiTable, problems: list[str]) -> tuple[str, int]:
    """Host, without brackets, and port of an HTTP server."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        problems.append(f'{key}: {host} is not an address; write one such as "127.0.0.1:8700"')
    else:
        if not loopback and api.certificate is None:
            problems.append(
                f"{key}: {host} is reachable from other machines, and keys would cross the network in clear; "
                "write api.certificate and api.key, or listen on 127.0.0.1 behind a proxy"
            )
    if not 1 <= int(port) <= 65535:
        problems.append(f"{key}: port {port} does not exist; write one of 1 to 65535")
    return host, int(port)


def call_rules(
    table: PolicyTable, numbers: BindRules, verify: VerifyConfig | None, hooks: HooksConfig | None, problems: list[str]
) -> Rules:
    """`verify`: the verification hook, if one is configured; `hooks`: those of business users."""
    return Rules(
        caller_caps=_caps("policy.caller_caps", table.caller_caps, problems),
        number_caps=_caps("policy.number_caps", table.number_caps, problems),
        anonymous_allowed=table.anonymous == "allow",
        international_allowed=table.international == "allow",
        hours=_hours(table.hours, problems),
        phase=numbers.phase,
        dates=numbers.dates,
        legacy_until_ms=numbers.legacy_until_ms,
        max_calls_per_number=table.max_calls_per_number,
        verify=verify is not None,
        bind_unknown=any(each is not None and each.unknown_callers for each in (verify, hooks)),
        refusal_caps=RefusalCaps(
            table.refused_per_number,
            table.refused_per_caller,
            _pause_s("policy.refused_pause", table.refused_pause, problems),
        ),
        parties=numbers.parties,
        quotas=numbers.quotas,
        filing_required=numbers.filing == "require",
    )


def complaint_ppm(table: PolicyTable) -> int:
    """The limit of the rate of complaints, in parts per million of answered calls; 0 for none."""
    return 0 if table.complaint_rate == "off" else round(10_000 * float(table.complaint_rate.removesuffix("%")))


def _pause_s(path: str, text: str, problems: list[str]) -> float:
    pause_ms = duration_ms(path, text, problems)
    if pause_ms > DAY_MS:
        problems.append(f"{path}: {text} is too long; write 24h at most, such as 15m")
    return pause_ms / 1000


def fraud_config(table: FraudTable, problems: list[str]) -> Signals:
    def signal(name: str, value: SignalTable) -> Signal:
        if 0 < value.lock < value.warn:
            problems.append(f"fraud.{name}: lock is below warn; write lock = 0, or warn or more")
        return Signal(value.warn, value.lock)

    return Signals(
        signal("strangers", table.strangers),
        signal("short_calls", table.short_calls),
        signal("sequential", table.sequential),
        table.short_s,
    )


def otlp_config(table: OtlpTable | None, api: ApiTable, problems: list[str]) -> str | None:
    """The base URL of the collector."""
    if table is None:
        return None
    _check_url("otlp.endpoint", table.endpoint, "http://127.0.0.1:4318", "who does what", problems)
    if not api.enabled:
        problems.append("otlp: the backend sends the spans; set api.enabled = true, or leave [otlp] out")
    return table.endpoint


def verify_config(table: VerifyTable | None, problems: list[str]) -> VerifyConfig | None:
    if table is None:
        return None
    _check_url("verify.url", table.url, "https://platform.example/verify", "real numbers", problems)
    return VerifyConfig(table.url, Path(table.secret_file), table.timeout_ms / 1000, table.fail, table.unknown_callers)


def hooks_config(table: HooksTable | None) -> HooksConfig | None:
    return None if table is None else HooksConfig(table.timeout_ms / 1000, table.fail, table.unknown_callers)


def _check_url(path: str, text: str, example: str, shows: str, problems: list[str]) -> None:
    try:
        url = urlsplit(text)
    except ValueError:  # brackets without an IPv6 address
        url = urlsplit("")
    if url.scheme not in ("https", "http") or not url.hostname:
        problems.append(f'{path}: not a URL; write one such as "{example}"')  # it may have a password
    elif url.scheme == "http" and not is_loopback(url.hostname):
        problems.append(f"{path}: http shows {shows} to the network; write https, or a loopback address")


_COLLECTOR = re.compile(r"(udp|tcp|tls):(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


def hep_rules(table: HepTable | None, backend: bool, problems: list[str]) -> HepRules | None:
    """`backend`: whether the backend process runs, which sends to the collector."""
    if table is None:
        return None
    found = _COLLECTOR.fullmatch(table.server)
    if found is None or not 1 <= int(found[4]) <= 65535:
        problems.append('hep.server: not a collector; write "udp|tcp|tls:host:port"')
        return None
    transport, host, port = found[1], found[2] or found[3], int(found[4])
    if table.numbers == "clear" and transport != "tls" and not is_loopback(host):
        problems.append(
            f'hep.numbers: "clear" over {transport} shows real numbers to the network; write server = "tls:…", or a '
            "loopback address"
        )
    if not backend:
        problems.append("hep: the backend process sends it; write api.enabled = true, or leave out [hep]")
    return HepRules(
        cast(Transport, transport),
        host,
        port,
        table.numbers == "clear",
        table.agent_id,
        _path(table.key_file),
        _path(table.ca),
    )


def hep_warnings(table: HepTable | None) -> list[str]:
    is_clear = table is not None and table.numbers == "clear"
    return ['hep.numbers: "clear": the collector sees all real numbers and addresses, with no audit line'] * is_clear


def delivery_rules(table: WebhooksTable, problems: list[str]) -> DeliveryRules:
    give_up_ms = duration_ms("webhooks.give_up", table.give_up, problems)
    return DeliveryRules(table.timeout_s, give_up_ms, table.batch)


def retention_config(table: RetentionTable, problems: list[str]) -> Retention:
    return Retention(
        _kept("records", table.records, HALF_YEAR_MS, problems),
        _kept("bindings", table.bindings, HALF_YEAR_MS, problems),
        _kept("audit", table.audit, TWO_YEARS_MS, problems),
        _kept("businesses", table.businesses, TWO_YEARS_MS, problems),
        _recordings_kept(table, problems),
    )


def _recordings_kept(table: RetentionTable, problems: list[str]) -> int:
    """A recording may not outlive its call record, which says what it is of."""
    kept_ms = _kept("recordings", table.recordings, HALF_YEAR_MS, problems)
    if kept_ms > max(duration_ms("retention.records", table.records, []), HALF_YEAR_MS):
        problems.append(
            f"retention.recordings: {table.recordings} is longer than retention.records, {table.records}: a recording "
            "needs its call record; write no more than that"
        )
    return kept_ms


def capture_rules(table: CaptureTable, problems: list[str]) -> CaptureRules:
    return CaptureRules(table.keep, table.max_mb * 1_000_000, duration_ms("capture.keep_for", table.keep_for, problems))


def minute_of_day(text: str) -> int:
    """Minutes after midnight of a time such as 03:30, which the table has checked."""
    hour, minute = map(int, text.split(":"))
    return 60 * hour + minute


def duration_ms(path: str, text: str, problems: list[str]) -> int:
    """Milliseconds; 0 for a faulty value."""
    try:
        return parse_duration_ms(text)
    except ParseError as error:
        problems.append(f"{path}: {error.reason}")
        return 0


def _kept(name: str, text: str, least_ms: int, problems: list[str]) -> int:
    kept_ms = duration_ms(f"retention.{name}", text, problems)
    if 0 < kept_ms < least_ms:
        law = "six months" if least_ms == HALF_YEAR_MS else "two years"
        problems.append(
            f"retention.{name}: {text} is shorter than the {law} that the law requires; "
            f'write "{least_ms // DAY_MS}d" or more'
        )
    return kept_ms


def legacy_numbers(texts: Sequence[str], problems: list[str]) -> frozenset[str]:
    """The old middle numbers, in E.164 without "+"."""
    numbers: list[str] = []
    for index, text in enumerate(texts):
        try:
            numbers.append(normalise_party(text))
        except ParseError as error:
            problems.append(f"numbers.legacy[{index}]: {error.reason}")
    return frozenset(numbers)


def _end_of_day(path: str, text: str, problems: list[str]) -> int | None:
    """The first millisecond after the day in China, as Unix time."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        problems.append(f'{path}: {text!r} is not a day; write one such as "2027-03-31", or ""')
        return None
    return midnight_ms(day) + DAY_MS


def _caps(path: str, texts: Sequence[str], problems: list[str]) -> tuple[Cap, ...]:
    return tuple(cap for index, text in enumerate(texts) if (cap := _cap(f"{path}[{index}]", text, problems)))


def _cap(path: str, text: str, problems: list[str]) -> Cap | None:
    found = _CAP.fullmatch(text)
    if found is None:
        problems.append(f'{path}: {text!r} is not a cap; write calls per time, such as "3/5m"')
        return None
    window_ms = duration_ms(path, found[2], problems)
    if window_ms > LONGEST_WINDOW_MS:
        problems.append(f"{path}: {found[2]} is too long; write 24h at most")
    return Cap(int(found[1]), window_ms // 1000)


def _hours(text: str, problems: list[str]) -> Hours | None:
    try:
        return parse_hours(text) if text else None
    except ParseError as error:
        problems.append(f'policy.hours: {error.reason}; "" for always')
        return None


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
