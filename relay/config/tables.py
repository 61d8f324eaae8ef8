"""The tables of relay.toml as an operator writes them: names, types, ranges, defaults and descriptions.

An error quotes the description after "write". `relay.config.engine` checks values against each other. A default is
defined once: in the settings class of the part that uses it, if it has one, else here. A test compares it with
config/relay.toml.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from relay.api.backend import ApiSettings
from relay.events.webhooks import DeliveryRules
from relay.model.call import Language
from relay.model.capture import CaptureRules, HepRules, Keep
from relay.model.numbers import Kind
from relay.model.settings import Account, LoginAlgorithm, Peer, Settings, StreamLimits, Target, TlsFiles
from relay.policy.fraud import Signals
from relay.policy.rules import PhaseSetting, RefusalCaps
from relay.service.complaints import USUAL_PPM
from relay.service.fields import format_duration
from relay.service.placement import BindRules, Filing
from relay.service.retention import Retention
from relay.store.recordings import CipherName, Recordings

_ENGINE = Settings(listeners=(), peers=(), routes=(), prefixes=())
_LIMITS, _SOUNDS, _STREAMS = _ENGINE.limits, _ENGINE.announcements, StreamLimits()
_PEER, _TARGET = Peer("", (), tcp_allowed=False, sources=()), Target("", 0, "udp", "")
_ACCOUNT, _TLS = Account("", ""), TlsFiles(Path(), Path())
_API, _BIND, _REFUSALS, _SIGNALS = ApiSettings(), BindRules(), RefusalCaps(), Signals()
_HEP = HepRules("udp", "", 0)
_DELIVERY, _KEPT, _RECORDINGS = DeliveryRules(), Retention(), Recordings(_API.kept_in)
_CAPTURE = CaptureRules()

_Texts = tuple[str, ...]
_DURATION = 'a duration, such as "24h", "90m" or "7d"'
_CALLS, _CPS = "a number of calls, 0 for no limit", "calls per second, 0 for no limit"
_CAPS = 'calls per time, such as ["3/5m", "10/24h"], or [] for no limit'
_SIGNAL = "a table such as {warn = 20, lock = 0}, counts within ten minutes; 0 for never"


def expect(what: str, **limits: Any) -> Meta:
    """The description of a value, as a fault quotes it, and its limits."""
    return Meta(description=what, **limits)


_Quota = Annotated[
    Annotated[int, Meta(ge=0)] | Literal["none"], expect('a number, such as 1000, or "none" for no limit')
]
_Flag = Annotated[bool, expect("true or false")]
_Day = Annotated[date, expect("a day without quotes, such as 2028-01-01")]
_Certificate = Annotated[str, expect("the path of a PEM file, our certificate first", min_length=1)]
_Key = Annotated[str, expect("the path of a PEM file without a password", min_length=1)]
_Authorities = Annotated[str, expect("the path of a PEM file with the peers' authorities", min_length=1)]


class SipTable(Struct, frozen=True):
    listen: Annotated[_Texts, expect('a list such as ["udp:127.0.0.1:5060"]', min_length=1)] = ("udp:127.0.0.1:5060",)
    advertise: Annotated[
        str | _Texts | None,
        expect('the address or name that peers see, such as "203.0.113.7"; a list for IPv4 and IPv6'),
    ] = None
    t1_ms: Annotated[int, expect("milliseconds, 10 to 10000, such as 500", ge=10, le=10_000)] = round(
        1000 * _ENGINE.timings.t1
    )
    ring_timeout_s: Annotated[float, expect("seconds, such as 90", gt=0, le=3600)] = _ENGINE.ring_timeout_s
    no_progress_s: Annotated[float, expect("seconds, such as 6", gt=0, le=60)] = _ENGINE.no_progress_s
    max_call_s: Annotated[float, expect("seconds, such as 14400", gt=0, le=604_800)] = _ENGINE.max_call_s
    drain_s: Annotated[float, expect("seconds, such as 30", ge=0, le=86_400)] = 30.0
    other_numbers: Annotated[Literal["reject", "forward"], expect('"reject" or "forward"')] = _ENGINE.other_numbers
    login_algorithms: Annotated[
        tuple[LoginAlgorithm, ...], expect('a list such as ["SHA-256", "MD5"]', min_length=1)
    ] = _ENGINE.login_algorithms


class StoreTable(Struct, frozen=True):
    url: Annotated[
        str,
        expect(
            '"sqlite:" and a path, such as "sqlite:var/relay.db", or "postgresql://USER@HOST/DATABASE"',
            pattern="^(sqlite:.+|postgresql://.+)$",
        ),
    ] = "sqlite:var/relay.db"
    node: Annotated[str, expect("letters a to z, digits and dashes, 32 at most", pattern="^[a-z0-9-]{0,32}$")] = ""
    key_file: Annotated[str, expect('a path, such as "var/relay.key"', min_length=1)] = "var/relay.key"
    folder: Annotated[str, expect('a folder, such as "var"', min_length=1)] | None = None


class NumbersTable(Struct, frozen=True):
    prefixes: Annotated[
        tuple[Annotated[str, Meta(pattern="^700[0-9]{8}$")], ...],
        expect('the 11 managed digits of each range, such as ["70010000001"]', min_length=1),
    ] = ("70010000001",)
    phase: Annotated[PhaseSetting, expect('"auto", "preparation", "transition" or "pilot"')] = "auto"
    cool_down: Annotated[str, expect(_DURATION)] = format_duration(_BIND.cool_down_ms)
    max_bindings: Annotated[int, expect("a number, 1 to 5000, such as 200", ge=1, le=5000)] = _BIND.max_bindings
    legacy: Annotated[_Texts, expect('the old middle numbers, such as ["95013000001", "17000000001"]')] = ()
    parties: Annotated[
        tuple[Kind, ...], expect('kinds of numbers: "mobile", "landline", "foreign" or "extension"', min_length=1)
    ] = ("mobile",)
    countries: Annotated[_Texts, expect('two-letter codes (ISO 3166), such as ["HK", "SG"]')] = ()
    extensions: Annotated[_Texts, expect('ranges of digits, such as ["1000-1999"]')] = ()
    filing: Annotated[Filing, expect('"off", "warn" or "require"')] = _BIND.filing
    legacy_until: Annotated[str, expect('the last day of their service, such as "2027-03-31", or ""')] = ""


class PilotTable(Struct, frozen=True):
    """The first days of the phases, and the first day after the pilot, in China."""

    preparation: _Day = date(2025, 7, 1)
    transition: _Day = date(2025, 10, 1)
    pilot: _Day = date(2026, 1, 1)
    ends: _Day | None = None


class ComplianceTable(Struct, frozen=True):
    papers: Annotated[_Texts, expect('kinds, such as ["business_licence", "express:scenario_permit"]')] = ()
    expired: Annotated[Literal["warn", "suspend"], expect('"warn" or "suspend"')] = "warn"


class MediaTable(Struct, frozen=True):
    mode: Annotated[Literal["direct", "rtpengine"], expect('"direct" or "rtpengine"')] = "direct"
    rtpengine: Annotated[str | _Texts | None, expect('an address such as "udp:127.0.0.1:2223", or a list')] = None
    check_s: Annotated[float, expect("seconds, such as 20", ge=1, le=3600)] = _ENGINE.media_check_s


class AnnouncementsTable(Struct, frozen=True):
    refused: _Flag = _SOUNDS.refused
    begin: _Flag = _SOUNDS.begin
    ending: _Flag = _SOUNDS.ending
    language: Annotated[Language, expect('"zh" or "en"')] = "zh"
    folder: Annotated[str, expect('a folder with WAV files such as busy.wav, or ""')] = ""
    max_at_once: Annotated[int, expect("a number of callers, such as 100", ge=1, le=10_000)] = _SOUNDS.max_at_once


class SmsTable(Struct, frozen=True):
    enabled: _Flag = _ENGINE.sms
    numbers: Annotated[Literal["refuse", "mask"], expect('"refuse" or "mask"')] = _ENGINE.sms_numbers


class RecordingTable(Struct, frozen=True):
    spool: Annotated[
        str | _Texts, expect('rtpengine\'s recording-dir, such as "/var/spool/rtpengine", a list of several, or ""')
    ] = ""
    kept_in: Annotated[str, expect('a folder, such as "var/recordings"', min_length=1)] = str(_RECORDINGS.kept_in)
    cipher: Annotated[CipherName, expect('"aes-256-gcm" or "sm4-gcm"')] = _RECORDINGS.cipher
    on_failure: Annotated[Literal["continue", "end"], expect('"continue" or "end"')] = "continue"


_ListenOn = Annotated[
    str, expect('an address and port, such as "127.0.0.1:8700"', pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$")
]


class ApiTable(Struct, frozen=True):
    listen: _ListenOn = "127.0.0.1:8700"
    enabled: _Flag = True
    certificate: _Certificate | None = None
    key: _Key | None = None
    requests_per_s: Annotated[int, expect("requests per second, such as 600", ge=1, le=100_000)] = _API.requests_per_s
    burst: Annotated[int, expect("a number of requests, such as 1200", ge=1, le=1_000_000)] = _API.burst
    public_url: Annotated[
        str,
        expect('the API\'s URL for clients, such as "https://api.example.com", or ""', pattern=r"^(https?://[!-~]+)?$"),
    ] = ""


class AlibabaTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Alibaba Cloud's API, on an address of its own."""

    listen: _ListenOn = "127.0.0.1:8701"


class CompatTable(Struct, frozen=True):
    alibaba: Annotated[AlibabaTable, expect('{listen = "127.0.0.1:8701"}')] | None = None


class QuotasTable(Struct, frozen=True):
    """Names are those of `relay.policy.rules.Quotas`."""

    max_bindings: _Quota = 1_000
    max_binds_per_s: _Quota = 50
    max_binds_per_day: _Quota = 1_000
    max_calls: _Quota = 100
    max_cps: _Quota = 20


class PolicyTable(Struct, frozen=True):
    caller_caps: Annotated[_Texts, expect(_CAPS, max_length=8)] = ("3/5m", "6/10m", "10/24h")
    number_caps: Annotated[_Texts, expect(_CAPS, max_length=8)] = ("600/5m", "1200/10m", "2000/24h")
    anonymous: Annotated[Literal["refuse", "allow"], expect('"refuse" or "allow"')] = "refuse"
    international: Annotated[Literal["refuse", "allow"], expect('"refuse" or "allow"')] = "refuse"
    hours: Annotated[str, expect('China time such as "08:00-22:00", or "" for always')] = ""
    max_calls_per_number: Annotated[int, expect("a number of calls, 0 for no limit", ge=0)] = 0
    refused_per_number: Annotated[int, expect("a number of callers, 0 for no limit", ge=0, le=1_000)] = 10
    refused_per_caller: Annotated[int, expect("a number of attempts, 0 for no limit", ge=0, le=1_000)] = 20
    refused_pause: Annotated[str, expect(_DURATION)] = format_duration(1000 * _REFUSALS.longest_pause_s)
    complaint_rate: Annotated[
        str, expect('percent, such as "0.05%", or "off"', pattern=r"^(off|[0-9]{1,2}(\.[0-9]{1,4})?%)$")
    ] = f"{USUAL_PPM / 10_000:g}%"


class SignalTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of a signal within ten minutes that warn and that lock the number. 0: never."""

    warn: Annotated[int, Meta(ge=0, le=100_000)] = 0
    lock: Annotated[int, Meta(ge=0, le=100_000)] = 0


class FraudTable(Struct, frozen=True):
    strangers: Annotated[SignalTable, expect(_SIGNAL)] = SignalTable(*_SIGNALS.strangers)
    short_calls: Annotated[SignalTable, expect(_SIGNAL)] = SignalTable(*_SIGNALS.short_calls)
    sequential: Annotated[SignalTable, expect(_SIGNAL)] = SignalTable(*_SIGNALS.sequential)
    short_s: Annotated[int, expect("seconds, 1 to 60, such as 6", ge=1, le=60)] = _SIGNALS.short_s


class VerifyTable(Struct, frozen=True):
    url: Annotated[str, expect('a URL such as "https://platform.example/verify"', min_length=1)]
    secret_file: Annotated[str, expect('the path of a file, such as "var/verify.secret"', min_length=1)]
    timeout_ms: Annotated[int, expect("milliseconds, 50 to 10000, such as 2000", ge=50, le=10_000)] = 2_000
    fail: Annotated[Literal["closed", "open"], expect('"closed" or "open"')] = "closed"
    unknown_callers: _Flag = False


class HooksTable(Struct, frozen=True):
    timeout_ms: Annotated[int, expect("milliseconds, 50 to 10000, such as 2000", ge=50, le=10_000)] = 2_000
    fail: Annotated[Literal["closed", "open"], expect('"closed" or "open"')] = "closed"
    unknown_callers: _Flag = False


class HepTable(Struct, frozen=True):
    server: Annotated[str, expect('"udp|tcp|tls:host:port", such as "udp:127.0.0.1:9060"', min_length=1)]
    numbers: Annotated[Literal["masked", "clear"], expect('"masked" or "clear"')] = "masked"
    agent_id: Annotated[int, expect("a number, such as 700", ge=0, le=4_294_967_295)] = _HEP.agent_id
    key_file: Annotated[str | None, expect('the path of a file, such as "var/hep.key"')] = None
    ca: Annotated[str | None, expect("the path of a PEM file with the collector's authorities")] = None


class WebhooksTable(Struct, frozen=True):
    timeout_s: Annotated[float, expect("seconds, such as 10", gt=0, le=60)] = _DELIVERY.timeout_s
    give_up: Annotated[str, expect(_DURATION)] = format_duration(_DELIVERY.give_up_ms)
    batch: Annotated[int, expect("a number of events, 1 to 50", ge=1, le=50)] = _DELIVERY.batch


class CaptureTable(Struct, frozen=True):
    keep: Annotated[Keep, expect('"off", "failed", "all" or "armed"')] = _CAPTURE.keep
    max_mb: Annotated[int, expect("megabytes, such as 512", ge=1, le=10_000_000)] = _CAPTURE.max_bytes // 1_000_000
    keep_for: Annotated[str, expect(_DURATION)] = format_duration(_CAPTURE.keep_ms)


class ReportTable(Struct, frozen=True):
    sm4_key_file: Annotated[str, expect('a file, such as "var/report.sm4"', min_length=1)] = "var/report.sm4"
    batches: Annotated[str, expect('a folder, such as "var/batches"', min_length=1)] = "var/batches"


class OtlpTable(Struct, frozen=True):
    endpoint: Annotated[str, expect('a URL such as "http://127.0.0.1:4318"', min_length=1)]


class ProbeTable(Struct, frozen=True):
    caller: Annotated[str, expect('a number of yours, such as "13800000071"', min_length=1)]
    callees: Annotated[dict[str, str], expect('your number behind each peer, such as {carrier = "13900000072"}')]
    every: Annotated[str, expect('a duration, "10s" to "30m", such as "5m"')] = "5m"
    caller_at: Annotated[str, expect('an address and port, such as "127.0.0.71:5070"')] = "127.0.0.71:5070"
    callee_at: Annotated[str, expect('an address and port, such as "127.0.0.72:5070"')] = "127.0.0.72:5070"


class RetentionTable(Struct, frozen=True):
    records: Annotated[str, expect('a duration of at least "184d"')] = format_duration(_KEPT.records_ms)
    bindings: Annotated[str, expect('a duration of at least "184d"')] = format_duration(_KEPT.bindings_ms)
    audit: Annotated[str, expect('a duration of at least "731d"')] = format_duration(_KEPT.audit_ms)
    recordings: Annotated[str, expect('a duration of at least "184d"')] = format_duration(_KEPT.recordings_ms)
    businesses: Annotated[str, expect('a duration of at least "731d"')] = format_duration(_KEPT.businesses_ms)
    purge_at: Annotated[
        str, expect('a time of day in China such as "03:30"', pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")
    ] = "03:30"


class LogTable(Struct, frozen=True):
    format: Annotated[Literal["json", "console"], expect('"json" or "console"')] = "json"
    level: Annotated[Literal["debug", "info", "warning", "error"], expect('"debug", "info", "warning" or "error"')] = (
        "info"
    )


class TlsTable(Struct, frozen=True):
    certificate: _Certificate
    key: _Key
    ca: _Authorities | None = None
    verify: _Flag = _TLS.verify
    client_ca: _Authorities | None = None


class LimitsTable(Struct, frozen=True):
    """Names are those of `relay.model.settings.Limits`."""

    max_calls: Annotated[int, expect("a number of calls, such as 20000", ge=1)] = _LIMITS.max_calls
    max_calls_per_peer: Annotated[int, expect("a number of calls, such as 20000", ge=1)] = _LIMITS.max_calls_per_peer
    max_pending_lookups: Annotated[int, expect("a number, such as 5000", ge=1)] = _LIMITS.max_pending_lookups
    max_transactions: Annotated[int, expect("a number, such as 200000", ge=1)] = _LIMITS.max_transactions
    shed_lag_ms: Annotated[int, expect("milliseconds, such as 250; 0 for never", ge=0, le=10_000)] = _LIMITS.shed_lag_ms
    stranger_answers_per_s: Annotated[int, expect("answers per second, such as 20", ge=0)] = (
        _LIMITS.stranger_answers_per_s
    )
    ban_after: Annotated[int, expect("a number of offences, such as 100", ge=1)] = _LIMITS.ban_after
    ban_s: Annotated[float, expect("seconds, such as 600; 0 for no bans", ge=0, le=31_536_000)] = _LIMITS.ban_s


class StreamsTable(Struct, frozen=True):
    """Names are those of `relay.model.settings.StreamLimits`."""

    max_connections: Annotated[int, expect("a number of connections, such as 10000", ge=1)] = _STREAMS.max_connections
    max_per_source: Annotated[int, expect("a number of connections, such as 1000", ge=1)] = _STREAMS.max_per_source
    max_strangers: Annotated[int, expect("a number of connections, such as 500", ge=0)] = _STREAMS.max_strangers
    idle_timeout_s: Annotated[float, expect("seconds, such as 900", gt=0)] = _STREAMS.idle_timeout_s
    message_timeout_s: Annotated[float, expect("seconds, such as 30", gt=0)] = _STREAMS.message_timeout_s
    connect_timeout_s: Annotated[float, expect("seconds, such as 5", gt=0)] = _STREAMS.connect_timeout_s
    max_head: Annotated[int, expect("bytes, such as 16384", ge=1024, le=16_384)] = _STREAMS.max_head
    max_body: Annotated[int, expect("bytes, such as 65536", ge=1024, le=65_536)] = _STREAMS.max_body
    max_unsent: Annotated[int, expect("bytes, such as 2097152", ge=65_536)] = _STREAMS.max_unsent


class DnsTable(Struct, frozen=True):
    servers: Annotated[_Texts, expect('a list such as ["192.0.2.53", "[2001:db8::53]:5353"]')] = ()


class TargetTable(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several targets of a peer."""

    uri: str
    priority: Annotated[int, Meta(ge=0, le=65_535)] = _TARGET.priority
    weight: Annotated[int, Meta(ge=0, le=65_535)] = _TARGET.weight


_USERNAME = Meta(pattern="^[A-Za-z0-9_.+@~-]{1,64}$")


class AuthTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Our account at a peer that challenges the relay."""

    username: Annotated[str, _USERNAME]
    password_file: Annotated[str, Meta(min_length=1)]
    realm: Annotated[str, Meta(pattern='^[^"\\\\]*$')] = _ACCOUNT.realm


class LoginTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Account here of a peer without a fixed address."""

    username: Annotated[str, _USERNAME]
    password_file: Annotated[str, Meta(min_length=1)]


class PeerTable(Struct, frozen=True):
    name: Annotated[str, expect("letters, digits, _ . -, such as carrier", pattern="^[A-Za-z0-9_.-]{1,64}$")]
    uri: Annotated[str, expect('a URI such as "sip:192.0.2.10:5060;transport=udp"')] | None = None
    targets: Annotated[
        tuple[TargetTable, ...], expect('a list such as [{uri = "sip:192.0.2.10", priority = 0, weight = 1}]')
    ] = ()
    ping_s: Annotated[float, expect("seconds, such as 30; 0 for none", ge=0, le=3600)] = _PEER.health.ping_s
    down_after: Annotated[int, expect("a number of failures, such as 2", ge=1, le=100)] = _PEER.health.down_after
    up_after: Annotated[int, expect("a number of answers, such as 1", ge=1, le=100)] = _PEER.health.up_after
    max_calls_in: Annotated[int, expect(_CALLS, ge=0)] = _PEER.quota_in.max_calls
    max_calls_out: Annotated[int, expect(_CALLS, ge=0)] = _PEER.quota_out.max_calls
    max_cps_in: Annotated[int, expect(_CPS, ge=0, le=10_000)] = _PEER.quota_in.max_cps
    max_cps_out: Annotated[int, expect(_CPS, ge=0, le=10_000)] = _PEER.quota_out.max_cps
    max_refused_in: Annotated[int, expect("a number of attempts, 0 for no limit", ge=0, le=1_000_000)] | None = None
    sources: Annotated[_Texts | None, expect('networks that its requests come from, such as ["192.0.2.0/28"]')] = None
    identity: Annotated[Literal["from", "pai"], expect('"from" or "pai"')] = _PEER.identity
    numbers: Annotated[
        Literal["any"] | _Texts | None, expect('"any", or a list such as ["13800000001", "138*", "1000-1999"]')
    ] = None
    number_format: Annotated[
        str,
        expect(
            '"national", "e164", "plus" or a prefix such as "prefix:00"',
            pattern="^(national|e164|plus|prefix:[0-9]{1,12})$",
        ),
    ] = _PEER.number_format
    user_phone: _Flag = _PEER.user_phone
    auth: Annotated[AuthTable, expect('{username = "4001", password_file = "var/carrier.password"}')] | None = None
    register: _Flag = _PEER.registers
    login: Annotated[LoginTable, expect('{username = "1001", password_file = "var/phone.password"}')] | None = None
    codecs: Annotated[_Texts, expect('a list such as ["PCMA", "telephone-event"]')] = ()
    media: Annotated[_Texts, expect('networks where its media may be, such as ["203.0.113.0/24"]')] = ()
    media_source: Annotated[Literal["sdp", "learned"], expect('"sdp" or "learned"')] | None = None
    send_pai: _Flag = _PEER.send_pai
    certificate: _Certificate | None = None
    key: _Key | None = None


class RouteTable(Struct, frozen=True):
    peers: Annotated[_Texts, expect('names of peers, tried in order, such as ["carrier"]', min_length=1)]
    prefix: Annotated[
        str, expect('leading digits in E.164 without "+", such as "86138"; "" for all', pattern="^[0-9]{0,15}$")
    ] = ""


class Tables(Struct, frozen=True):
    """The whole file. TOML writes an array of tables as [[peer]]; None is one that could not be read."""

    sip: SipTable = SipTable()
    store: StoreTable = StoreTable()
    numbers: NumbersTable = NumbersTable()
    pilot: PilotTable = PilotTable()
    compliance: ComplianceTable = ComplianceTable()
    media: MediaTable = MediaTable()
    announcements: AnnouncementsTable = AnnouncementsTable()
    recording: RecordingTable = RecordingTable()
    sms: SmsTable = SmsTable()
    api: ApiTable = ApiTable()
    compat: CompatTable = CompatTable()
    quotas: QuotasTable = QuotasTable()
    policy: PolicyTable = PolicyTable()
    fraud: FraudTable = FraudTable()
    verify: VerifyTable | None = None
    hooks: HooksTable | None = None
    hep: HepTable | None = None
    webhooks: WebhooksTable = WebhooksTable()
    retention: RetentionTable = RetentionTable()
    capture: CaptureTable = CaptureTable()
    report: ReportTable = ReportTable()
    log: LogTable = LogTable()
    otlp: OtlpTable | None = None
    probe: ProbeTable | None = None
    tls: TlsTable | None = None
    limits: LimitsTable = LimitsTable()
    streams: StreamsTable = StreamsTable()
    dns: DnsTable = DnsTable()
    peer: tuple[PeerTable | None, ...] = ()
    route: tuple[RouteTable | None, ...] = ()
