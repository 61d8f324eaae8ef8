"""The tables of relay.toml as an operator writes them: names, types, ranges, defaults and descriptions.

An error quotes the description after "write". `relay.config.engine` checks values against each other. A default is
defined once: in the settings class of the part that uses it, if it has one, else here. A test compares it with
config/relay.toml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from relay.api.backend import ApiSettings
from relay.events.webhooks import DeliveryRules
from relay.model.call import Language
from relay.model.numbers import Kind
from relay.model.settings import Account, LoginAlgorithm, Peer, Settings, StreamLimits, Target, TlsFiles
from relay.policy.fraud import Signals
from relay.policy.rules import Phase, RefusalCaps
from relay.service.fields import format_duration
from relay.service.placement import BindRules, Filing
from relay.service.retention import Retention
from relay.store.recordings import CipherName, Recordings

_ENGINE = Settings(listeners=(), peers=(), routes=(), prefixes=())
_LIMITS, _STREAMS = _ENGINE.limits, StreamLimits()
_PEER, _TARGET = Peer("", (), tcp_allowed=False, sources=()), Target("", 0, "udp", "")
_ACCOUNT, _TLS = Account("", ""), TlsFiles(Path(), Path())
_API, _BIND, _REFUSALS, _SIGNALS = ApiSettings(), BindRules(), RefusalCaps(), Signals()
_DELIVERY, _KEPT, _RECORDINGS = DeliveryRules(), Retention(), Recordings(_API.kept_in)

_DURATION = 'a duration, such as "24h", "90m" or "7d"'
_CALLS, _CPS = "a number of calls, 0 for no limit", "calls per second, 0 for no limit"
_CAPS = 'calls per time, such as ["3/5m", "10/24h"], or [] for no limit'
_SIGNAL = "a table such as {warn = 20, lock = 0}, counts within ten minutes; 0 for never"

_Quota = Annotated[
    Annotated[int, Meta(ge=0)] | Literal["none"], Meta(description='a number, such as 1000, or "none" for no limit')
]
_Certificate = Annotated[str, Meta(min_length=1, description="the path of a PEM file, our certificate first")]
_Key = Annotated[str, Meta(min_length=1, description="the path of a PEM file without a password")]
_Authorities = Annotated[str, Meta(min_length=1, description="the path of a PEM file with the peers' authorities")]


class SipTable(Struct, frozen=True):
    listen: Annotated[tuple[str, ...], Meta(min_length=1, description='a list such as ["udp:127.0.0.1:5060"]')] = (
        "udp:127.0.0.1:5060",
    )
    advertise: Annotated[
        str | tuple[str, ...] | None,
        Meta(description='the address or name that peers see, such as "203.0.113.7"; a list for IPv4 and IPv6'),
    ] = None
    t1_ms: Annotated[int, Meta(ge=10, le=10_000, description="milliseconds, 10 to 10000, such as 500")] = round(
        1000 * _ENGINE.timings.t1
    )
    ring_timeout_s: Annotated[float, Meta(gt=0, le=3600, description="seconds, such as 90")] = _ENGINE.ring_timeout_s
    no_progress_s: Annotated[float, Meta(gt=0, le=60, description="seconds, such as 6")] = _ENGINE.no_progress_s
    max_call_s: Annotated[float, Meta(gt=0, le=604_800, description="seconds, such as 14400")] = _ENGINE.max_call_s
    drain_s: Annotated[float, Meta(ge=0, le=86_400, description="seconds, such as 30")] = 30.0
    other_numbers: Annotated[Literal["reject", "forward"], Meta(description='"reject" or "forward"')] = (
        _ENGINE.other_numbers
    )
    login_algorithms: Annotated[
        tuple[LoginAlgorithm, ...], Meta(min_length=1, description='a list such as ["SHA-256", "MD5"]')
    ] = _ENGINE.login_algorithms


class StoreTable(Struct, frozen=True):
    url: Annotated[
        str,
        Meta(
            pattern="^(sqlite:.+|postgresql://.+)$",
            description='"sqlite:" and a path, such as "sqlite:var/relay.db", or "postgresql://USER@HOST/DATABASE"',
        ),
    ] = "sqlite:var/relay.db"
    node: Annotated[
        str, Meta(pattern="^[a-z0-9-]{0,32}$", description="letters a to z, digits and dashes, 32 at most")
    ] = ""
    key_file: Annotated[str, Meta(min_length=1, description='a path, such as "var/relay.key"')] = "var/relay.key"


class NumbersTable(Struct, frozen=True):
    prefixes: Annotated[
        tuple[Annotated[str, Meta(pattern="^700[0-9]{8}$")], ...],
        Meta(min_length=1, description='the 11 managed digits of each range, such as ["70010000001"]'),
    ] = ("70010000001",)
    phase: Annotated[Phase, Meta(description='"preparation", "transition" or "pilot"')] = _BIND.phase
    cool_down: Annotated[str, Meta(description=_DURATION)] = format_duration(_BIND.cool_down_ms)
    max_bindings: Annotated[int, Meta(ge=1, le=5000, description="a number of bindings, 1 to 5000, such as 200")] = (
        _BIND.max_bindings
    )
    legacy: Annotated[
        tuple[str, ...], Meta(description='the old middle numbers, such as ["95013000001", "17000000001"]')
    ] = ()
    parties: Annotated[
        tuple[Kind, ...],
        Meta(min_length=1, description='kinds of numbers: "mobile", "landline", "foreign" or "extension"'),
    ] = ("mobile",)
    countries: Annotated[tuple[str, ...], Meta(description='two-letter codes (ISO 3166), such as ["HK", "SG"]')] = ()
    extensions: Annotated[tuple[str, ...], Meta(description='ranges of digits, such as ["1000-1999"]')] = ()
    filing: Annotated[Filing, Meta(description='"off", "warn" or "require"')] = _BIND.filing
    legacy_until: Annotated[str, Meta(description='the last day of their service, such as "2027-03-31", or ""')] = ""


class MediaTable(Struct, frozen=True):
    mode: Annotated[Literal["direct", "rtpengine"], Meta(description='"direct" or "rtpengine"')] = "direct"
    rtpengine: Annotated[
        str | tuple[str, ...] | None, Meta(description='an address such as "udp:127.0.0.1:2223", or a list')
    ] = None
    check_s: Annotated[float, Meta(ge=1, le=3600, description="seconds, such as 20")] = _ENGINE.media_check_s


class AnnouncementsTable(Struct, frozen=True):
    refused: Annotated[bool, Meta(description="true or false")] = _ENGINE.announcements.refused
    begin: Annotated[bool, Meta(description="true or false")] = _ENGINE.announcements.begin
    ending: Annotated[bool, Meta(description="true or false")] = _ENGINE.announcements.ending
    language: Annotated[Language, Meta(description='"zh" or "en"')] = "zh"
    folder: Annotated[str, Meta(description='a folder with WAV files such as busy.wav, or ""')] = ""
    max_at_once: Annotated[int, Meta(ge=1, le=10_000, description="a number of callers, such as 100")] = (
        _ENGINE.announcements.max_at_once
    )


class SmsTable(Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="true or false")] = _ENGINE.sms
    numbers: Annotated[Literal["refuse", "mask"], Meta(description='"refuse" or "mask"')] = _ENGINE.sms_numbers


class RecordingTable(Struct, frozen=True):
    spool: Annotated[
        str | tuple[str, ...],
        Meta(description='rtpengine\'s recording-dir, such as "/var/spool/rtpengine", a list of several, or ""'),
    ] = ""
    kept_in: Annotated[str, Meta(min_length=1, description='a folder, such as "var/recordings"')] = str(
        _RECORDINGS.kept_in
    )
    cipher: Annotated[CipherName, Meta(description='"aes-256-gcm" or "sm4-gcm"')] = _RECORDINGS.cipher
    on_failure: Annotated[Literal["continue", "end"], Meta(description='"continue" or "end"')] = "continue"


class ApiTable(Struct, frozen=True):
    listen: Annotated[
        str,
        Meta(
            pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$",
            description='an address and port, such as "127.0.0.1:8700"',
        ),
    ] = "127.0.0.1:8700"
    enabled: Annotated[bool, Meta(description="true or false")] = True
    certificate: _Certificate | None = None
    key: _Key | None = None
    requests_per_s: Annotated[int, Meta(ge=1, le=100_000, description="requests per second, such as 600")] = (
        _API.requests_per_s
    )
    burst: Annotated[int, Meta(ge=1, le=1_000_000, description="a number of requests, such as 1200")] = _API.burst


class QuotasTable(Struct, frozen=True):
    """Names are those of `relay.policy.rules.Quotas`."""

    max_bindings: _Quota = 1_000
    max_binds_per_s: _Quota = 50
    max_binds_per_day: _Quota = 1_000
    max_calls: _Quota = 100
    max_cps: _Quota = 20


class PolicyTable(Struct, frozen=True):
    caller_caps: Annotated[tuple[str, ...], Meta(max_length=8, description=_CAPS)] = ("3/5m", "6/10m", "10/24h")
    number_caps: Annotated[tuple[str, ...], Meta(max_length=8, description=_CAPS)] = ("600/5m", "1200/10m", "2000/24h")
    anonymous: Annotated[Literal["refuse", "allow"], Meta(description='"refuse" or "allow"')] = "refuse"
    international: Annotated[Literal["refuse", "allow"], Meta(description='"refuse" or "allow"')] = "refuse"
    hours: Annotated[str, Meta(description='China time such as "08:00-22:00", or "" for always')] = ""
    max_calls_per_number: Annotated[int, Meta(ge=0, description="a number of calls, 0 for no limit")] = 0
    refused_per_number: Annotated[int, Meta(ge=0, le=1_000, description="a number of callers, 0 for no limit")] = 10
    refused_per_caller: Annotated[int, Meta(ge=0, le=1_000, description="a number of attempts, 0 for no limit")] = 20
    refused_pause: Annotated[str, Meta(description=_DURATION)] = format_duration(1000 * _REFUSALS.longest_pause_s)


class SignalTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of a signal within ten minutes that warn and that lock the number. 0: never."""

    warn: Annotated[int, Meta(ge=0, le=100_000)] = 0
    lock: Annotated[int, Meta(ge=0, le=100_000)] = 0


class FraudTable(Struct, frozen=True):
    strangers: Annotated[SignalTable, Meta(description=_SIGNAL)] = SignalTable(*_SIGNALS.strangers)
    short_calls: Annotated[SignalTable, Meta(description=_SIGNAL)] = SignalTable(*_SIGNALS.short_calls)
    sequential: Annotated[SignalTable, Meta(description=_SIGNAL)] = SignalTable(*_SIGNALS.sequential)
    short_s: Annotated[int, Meta(ge=1, le=60, description="seconds, 1 to 60, such as 6")] = _SIGNALS.short_s


class VerifyTable(Struct, frozen=True):
    url: Annotated[str, Meta(min_length=1, description='a URL such as "https://platform.example/verify"')]
    secret_file: Annotated[str, Meta(min_length=1, description='the path of a file, such as "var/verify.secret"')]
    timeout_ms: Annotated[int, Meta(ge=50, le=10_000, description="milliseconds, 50 to 10000, such as 2000")] = 2_000
    fail: Annotated[Literal["closed", "open"], Meta(description='"closed" or "open"')] = "closed"


class WebhooksTable(Struct, frozen=True):
    timeout_s: Annotated[float, Meta(gt=0, le=60, description="seconds, such as 10")] = _DELIVERY.timeout_s
    give_up: Annotated[str, Meta(description=_DURATION)] = format_duration(_DELIVERY.give_up_ms)
    batch: Annotated[int, Meta(ge=1, le=50, description="a number of events, 1 to 50")] = _DELIVERY.batch


class ReportTable(Struct, frozen=True):
    sm4_key_file: Annotated[str, Meta(min_length=1, description='a file, such as "var/report.sm4"')] = "var/report.sm4"
    batches: Annotated[str, Meta(min_length=1, description='a folder, such as "var/batches"')] = "var/batches"


class RetentionTable(Struct, frozen=True):
    records: Annotated[str, Meta(description='a duration of at least "184d"')] = format_duration(_KEPT.records_ms)
    bindings: Annotated[str, Meta(description='a duration of at least "184d"')] = format_duration(_KEPT.bindings_ms)
    audit: Annotated[str, Meta(description='a duration of at least "731d"')] = format_duration(_KEPT.audit_ms)
    recordings: Annotated[str, Meta(description='a duration of at least "184d"')] = format_duration(_KEPT.recordings_ms)
    businesses: Annotated[str, Meta(description='a duration of at least "731d"')] = format_duration(_KEPT.businesses_ms)
    purge_at: Annotated[
        str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$", description='a time of day in China such as "03:30"')
    ] = "03:30"


class LogTable(Struct, frozen=True):
    format: Annotated[Literal["json", "console"], Meta(description='"json" or "console"')] = "json"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description='"debug", "info", "warning" or "error"')
    ] = "info"


class TlsTable(Struct, frozen=True):
    certificate: _Certificate
    key: _Key
    ca: _Authorities | None = None
    verify: Annotated[bool, Meta(description="true or false")] = _TLS.verify
    client_ca: _Authorities | None = None


class LimitsTable(Struct, frozen=True):
    """Names are those of `relay.model.settings.Limits`."""

    max_calls: Annotated[int, Meta(ge=1, description="a number of calls, such as 20000")] = _LIMITS.max_calls
    max_calls_per_peer: Annotated[int, Meta(ge=1, description="a number of calls, such as 20000")] = (
        _LIMITS.max_calls_per_peer
    )
    max_pending_lookups: Annotated[int, Meta(ge=1, description="a number, such as 5000")] = _LIMITS.max_pending_lookups
    max_transactions: Annotated[int, Meta(ge=1, description="a number, such as 200000")] = _LIMITS.max_transactions
    shed_lag_ms: Annotated[int, Meta(ge=0, le=10_000, description="milliseconds, such as 250; 0 for never")] = (
        _LIMITS.shed_lag_ms
    )
    stranger_answers_per_s: Annotated[int, Meta(ge=0, description="answers per second, such as 20")] = (
        _LIMITS.stranger_answers_per_s
    )
    ban_after: Annotated[int, Meta(ge=1, description="a number of offences, such as 100")] = _LIMITS.ban_after
    ban_s: Annotated[float, Meta(ge=0, le=31_536_000, description="seconds, such as 600; 0 for no bans")] = (
        _LIMITS.ban_s
    )


class StreamsTable(Struct, frozen=True):
    """Names are those of `relay.model.settings.StreamLimits`."""

    max_connections: Annotated[int, Meta(ge=1, description="a number of connections, such as 10000")] = (
        _STREAMS.max_connections
    )
    max_per_source: Annotated[int, Meta(ge=1, description="a number of connections, such as 1000")] = (
        _STREAMS.max_per_source
    )
    max_strangers: Annotated[int, Meta(ge=0, description="a number of connections, such as 500")] = (
        _STREAMS.max_strangers
    )
    idle_timeout_s: Annotated[float, Meta(gt=0, description="seconds, such as 900")] = _STREAMS.idle_timeout_s
    message_timeout_s: Annotated[float, Meta(gt=0, description="seconds, such as 30")] = _STREAMS.message_timeout_s
    connect_timeout_s: Annotated[float, Meta(gt=0, description="seconds, such as 5")] = _STREAMS.connect_timeout_s
    max_head: Annotated[int, Meta(ge=1024, le=65_536, description="bytes, such as 16384")] = _STREAMS.max_head
    max_body: Annotated[int, Meta(ge=1024, le=1_048_576, description="bytes, such as 65536")] = _STREAMS.max_body
    max_unsent: Annotated[int, Meta(ge=65_536, description="bytes, such as 2097152")] = _STREAMS.max_unsent


class DnsTable(Struct, frozen=True):
    servers: Annotated[tuple[str, ...], Meta(description='a list such as ["192.0.2.53", "[2001:db8::53]:5353"]')] = ()


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
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$", description="letters, digits, _ . -, such as carrier")]
    uri: Annotated[str, Meta(description='a URI such as "sip:192.0.2.10:5060;transport=udp"')] | None = None
    targets: Annotated[
        tuple[TargetTable, ...],
        Meta(description='a list such as [{uri = "sip:192.0.2.10", priority = 0, weight = 1}]'),
    ] = ()
    ping_s: Annotated[float, Meta(ge=0, le=3600, description="seconds, such as 30; 0 for none")] = _PEER.health.ping_s
    down_after: Annotated[int, Meta(ge=1, le=100, description="a number of failures, such as 2")] = (
        _PEER.health.down_after
    )
    up_after: Annotated[int, Meta(ge=1, le=100, description="a number of answers, such as 1")] = _PEER.health.up_after
    max_calls_in: Annotated[int, Meta(ge=0, description=_CALLS)] = _PEER.quota_in.max_calls
    max_calls_out: Annotated[int, Meta(ge=0, description=_CALLS)] = _PEER.quota_out.max_calls
    max_cps_in: Annotated[int, Meta(ge=0, le=10_000, description=_CPS)] = _PEER.quota_in.max_cps
    max_cps_out: Annotated[int, Meta(ge=0, le=10_000, description=_CPS)] = _PEER.quota_out.max_cps
    max_refused_in: (
        Annotated[int, Meta(ge=0, le=1_000_000, description="a number of attempts, 0 for no limit")] | None
    ) = None
    sources: Annotated[
        tuple[str, ...] | None,
        Meta(description='networks that its requests come from, such as ["192.0.2.0/28"]'),
    ] = None
    identity: Annotated[Literal["from", "pai"], Meta(description='"from" or "pai"')] = _PEER.identity
    numbers: Annotated[
        Literal["any"] | tuple[str, ...] | None,
        Meta(description='"any", or a list such as ["13800000001", "138*", "1000-1999"]'),
    ] = None
    number_format: Annotated[
        str,
        Meta(
            pattern="^(national|e164|plus|prefix:[0-9]{1,12})$",
            description='"national", "e164", "plus" or a prefix such as "prefix:00"',
        ),
    ] = _PEER.number_format
    auth: (
        Annotated[AuthTable, Meta(description='{username = "4001", password_file = "var/carrier.password"}')] | None
    ) = None
    register: Annotated[bool, Meta(description="true or false")] = _PEER.registers
    login: (
        Annotated[LoginTable, Meta(description='{username = "1001", password_file = "var/phone.password"}')] | None
    ) = None
    codecs: Annotated[tuple[str, ...], Meta(description='a list such as ["PCMA", "telephone-event"]')] = ()
    send_pai: Annotated[bool, Meta(description="true or false")] = _PEER.send_pai
    certificate: _Certificate | None = None
    key: _Key | None = None


class RouteTable(Struct, frozen=True):
    peers: Annotated[
        tuple[str, ...], Meta(min_length=1, description='names of peers, tried in order, such as ["carrier"]')
    ]
    prefix: Annotated[
        str,
        Meta(pattern="^[0-9]{0,15}$", description='leading digits in E.164 without "+", such as "86138"; "" for all'),
    ] = ""


class Tables(Struct, frozen=True):
    """The whole file. TOML writes an array of tables as [[peer]]; None is one that could not be read."""

    sip: SipTable = SipTable()
    store: StoreTable = StoreTable()
    numbers: NumbersTable = NumbersTable()
    media: MediaTable = MediaTable()
    announcements: AnnouncementsTable = AnnouncementsTable()
    recording: RecordingTable = RecordingTable()
    sms: SmsTable = SmsTable()
    api: ApiTable = ApiTable()
    quotas: QuotasTable = QuotasTable()
    policy: PolicyTable = PolicyTable()
    fraud: FraudTable = FraudTable()
    verify: VerifyTable | None = None
    webhooks: WebhooksTable = WebhooksTable()
    retention: RetentionTable = RetentionTable()
    report: ReportTable = ReportTable()
    log: LogTable = LogTable()
    tls: TlsTable | None = None
    limits: LimitsTable = LimitsTable()
    streams: StreamsTable = StreamsTable()
    dns: DnsTable = DnsTable()
    peer: tuple[PeerTable | None, ...] = ()
    route: tuple[RouteTable | None, ...] = ()
