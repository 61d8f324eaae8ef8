"""Metrics in Prometheus' text format, from the counters of relay700's parts. It counts nothing itself.

Labels are outcomes, signals, peers and routes of the API: never a number, a business's text or a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.model.histogram import CALL_BOUNDS_S
from relay.model.outcomes import OFFERED, OUTCOMES, REFUSALS

PREFIX = "relay700_"
Statistics = Mapping[str, Any]  # number; count by label value; `relay.model.histogram.Form`

_GAUGES = {
    "up": "1 if the relay answers the backend; 0: all other metrics are the backend's own",
    "store_up": "1 if the backend can read the store; 0: what the store knows is missing here",
    "calls_up": "answered calls",
    "calls_setting_up": "calls not answered yet",
    "announcing": "of these, refused callers who are hearing an announcement",
    "attempts": "call attempts in memory, including those that have just ended",
    "messages": "text messages not answered yet",
    "legs": "call legs",
    "transactions": "SIP transactions",
    "timers": "timers of calls and transactions",
    "pending_lookups": "calls waiting for the store or a hook",
    "pending_media": "calls waiting for rtpengine",
    "pending_commits": "calls waiting for their record to be durable",
    "calling_tags": "From tags kept for loop detection",
    "logins": "registered peers without a fixed address",
    "bans": "banned sources (`relay700 bans list`)",
    "rtpengines_up": "rtpengine instances that answer",
    "journal_backlog": "records and events not on disk yet",
    "commit_wait_seconds": "age of the oldest record that is not durable yet and that a call waits for",
    "loop_lag_seconds": "longest queueing delay in the last 10 to 20 s",
    "rss_bytes": "resident memory of the relay process",
    "tasks": "asyncio tasks of the relay process",
    "streams": "TCP and TLS connections",
    "streams_from_strangers": "of these, from unknown sources",
    "follower_behind_seconds": "how far the follower is behind the calls; it grows while the store takes no writes",
    "webhooks_under_way": "webhooks with a delivery in progress",
    "changes_waiting": "changes waiting for the store",
    "sealing_key": "id of the key that seals the store (`relay700 seal-key status`)",
    "outbox_waiting": "events waiting for delivery",
    "outbox_dead": "dead letters: events given up, which can be requeued",
    "recordings_waiting": "recordings of ended calls still unsealed in rtpengine's folder",
    "ledger_faults": "faults found in the store's rows since the start, or since `relay700 verify --accept`",
    "pools_short": "number pools whose usage has reached the warning level (`relay700 pools usage`)",
    "complaints_high": "approved business users whose complaints have reached `[policy] complaint_rate`",
    "filings_expiring": "approved filings of A numbers that end within 30 days (`relay700 filings list --expiring`)",
    "phase_days_left": "days until the phase of the pilot ends (`relay700 phase`); missing while it has no end",
    "papers_expiring": "accepted papers that end within 30 days (`relay700 papers list --ending`)",
    "papers_expired": "accepted papers that have ended and were not replaced (`relay700 papers list --state expired`)",
    "captures_held": "calls under way whose SIP messages the relay holds until it is known whether they are kept",
    "captures_held_bytes": "memory that these messages take",
    "captures_pending": "calls whose SIP messages the backend has, to be stored",
    "captures_pending_bytes": "memory that these messages take",
    "captures_stored": "calls, or parts of them, whose SIP messages are stored",
    "captures_stored_bytes": "size of what is stored of them",
}
_COUNTERS = {
    "backend_starts": "starts of the backend by the relay: after the first one it had ended by itself",
    "bugs": "exceptions in the engine, each logged; must stay 0",
    "leak_check": "messages stopped by the leak check because they held a real number; must stay 0",
    "unexpected_events": "events that the state of a call does not allow, each logged; must stay 0",
    "malformed": "messages that could not be parsed",
    "strangers": "requests from unknown sources",
    "requests_merged": "copies of a call or text message under way, by another path: answered 482, without a record",
    "challenges": "requests from unknown sources that were challenged for credentials",
    "logins_failed": "of these, with wrong credentials",
    "bans_made": "bans of sources",
    "datagrams_banned": "datagrams dropped unread because their source is banned",
    "datagrams_lost": "datagrams dropped because the socket's send buffer was full",
    "datagrams_too_long": "responses and ACKs above the size limit of a datagram",
    "datagrams_unread": "datagrams lost because the socket's receive buffer was full",
    "attempts_lost": "calls and text messages under way at a crash, ended at the next start",
    "responses_stray": "responses that match no transaction",
    "rtpengine_failures": "commands that no rtpengine executed",
    "media_failures": "of these, commands that an SDP was waiting for; it was not passed on",
    "media_refused": "SDP refused because no media may be sent to an address or port in it",
    "media_over_limit": "messages refused because too many of their call were waiting for rtpengine",
    "recordings_begun": "recordings started by rtpengine",
    "recordings_failed": "recordings that did not start or broke off, each logged",
    "recordings_taken": "recordings fetched from rtpengine and sealed",
    "announcements": "announcements played to refused callers",
    "announcements_failed": "announcements not played because of rtpengine or the caller's SDP",
    "answers_unusable": "callees' answers that could not be passed on",
    "forks_over_limit": "early dialogs above the limit per call",
    "reliable_over_limit": "reliable provisional responses above the limit per leg",
    "records_followed": "call records read by the follower",
    "records_unreadable": "altered call records or events",
    "events_made": "webhook events created for ended and live calls",
    "events_delivered": "events accepted by webhooks",
    "events_given_up": "events that became dead letters",
    "deliveries": "requests to webhooks",
    "deliveries_failed": "of these, not accepted",
    "capture_messages": "SIP messages handed to the backend for capture",
    "capture_dropped": "of these, messages dropped because the backend did not keep up",
    "capture_unclaimed": "of these, messages of no call, which are not kept",
    "capture_held_given_up": "SIP messages of calls under way given up because too many were held",
    "capture_given_up": "of those handed over, messages given up because too many calls were pending",
    "captures_kept": "calls whose SIP messages were stored",
    "captures_failed": "calls whose SIP messages the store did not take",
    "hep_sent": "SIP messages and reports sent to the HEP collector",
    "hep_dropped": "SIP messages and reports that the HEP collector was too slow for, or did not take",
}
# name: (labels, description); keys are label values, separated by blanks
_LABELLED: dict[str, tuple[tuple[str, ...], str]] = {
    "refused": (("outcome",), "calls and text messages refused by the relay"),
    "refused_too_often": (
        ("of",),
        "pauses after too many refused attempts of a peer: for calls to one number, for one caller, or for the peer",
    ),
    "shed": (
        ("peer",),
        "calls and text messages answered 503 unread, without a record, because of overload",
    ),
    "over_share": (("peer",), "calls and messages above a peer's fair share of a limit"),
    "calls_in": (("peer", "outcome"), "calls from a peer that have got their final response"),
    "calls_out": (
        ("peer", "outcome"),
        "calls to a peer that have got their final response; after a failover, to the last",
    ),
    "probes": (("peer", "result"), "calls of the probe through a peer: proven, leak, or failed, which proves nothing"),
    "api_requests": (("status",), "requests to the API by class of their status"),
    "calls_ended": (("outcome",), "calls and text messages whose record the follower has read"),
    "fraud_findings": (("signal",), "fraud thresholds reached"),
    "verifications": (("hook", "answer"), "answers of the operator's hook (verify) and of business users' (hook)"),
    "hook_answers_wrong": (("hook", "field"), "answers of hooks that refused a call by a field that is wrong"),
    "streams_closed": (("why",), "closed TCP and TLS connections"),
}
# name: (labels, description); keys are label values, separated by blanks
_LABELLED_GAUGES = {
    "build_info": (
        ("version", "python", "compiled"),
        "1: version of relay700, of Python, and whether mypyc compiled it",
    ),
    "target_up": (
        ("peer", "target"),
        "1 if the target takes calls; 0 if it is down or backing off. A peer without targets has one of no name",
    ),
    "peer_calls": (("peer", "direction"), "ringing and answered calls from a peer (in) and to it (out)"),
    "leader": (
        ("node",),
        "1 if the backend of this node leads: it does for all nodes what is done once",
    ),
    "node_up": (("node",), "1 if the node of the store sends heartbeats; 0 if it is missing, for up to a day"),
    "hook_breaker_open": (
        ("hook", "business"),
        "1 if the circuit breaker of a hook is open: it did not answer several times in a row, and is not asked",
    ),
    "privacy_last_proven_seconds": (
        ("peer",),
        "Unix time of the probe's last call through a peer without a leak; 0: none",
    ),
    "peer_registered": (("peer",), "1 if the peer is registered here, or the relay there; 0 if it should be"),
}

_HISTOGRAMS = {
    "call_setup_seconds": (("peer",), "from a call's INVITE to the answer, by the peer that answered"),
    "call_post_dial_delay_seconds": (
        ("peer",),
        "from a call's INVITE to the first 18x, or to the answer without one, by the peer called (RFC 6076: SRD)",
    ),
    "api_request_seconds": (
        ("method", "route", "status"),
        "time of a request to the API, by route and class of status",
    ),
}
_BY_PEER = ("shed", "over_share")  # counters that the configured peers have
_CALLS = {"calls_in": OFFERED | REFUSALS, "calls_out": OFFERED}

# Label values known in advance.
_LABELS: dict[str, Collection[str]] = {
    "refused": REFUSALS,
    "refused_too_often": ("number", "caller", "peer"),
    "verifications": [
        f"{hook} {answer}"
        for hook in ("verify", "hook")
        for answer in ("allowed", "refused", "failed", "not_asked", "no_room", "not_signed", "wrong")
    ],
    "api_requests": ("2xx", "3xx", "4xx", "5xx"),
    "calls_ended": OUTCOMES,
    "fraud_findings": ("strangers", "short_calls", "sequential"),
    "streams_closed": (
        *("banned", "by_far_end", "crowded", "framing", "half_message", "handshake", "idle", "pings", "refused"),
        *("slow_reader", "unproven", "unreachable"),
    ),
}
_CLOSED = "streams_closed_"  # prefix of the transports' counters of closed connections; the reason follows


def text(statistics: Statistics) -> bytes:
    """Render statistics by the tables above; unknown names become counters without a description."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Statistics(statistics))
    return generate_latest(registry)


def with_zeros(statistics: Statistics, peers: Collection[str]) -> dict[str, int | float | Mapping[str, int]]:
    """Add zeros for counters without a count yet: Prometheus cannot see an increase in a series that starts at 1.

    `peers`: the configured peers' names.
    """
    known: dict[str, Any] = {name: value for name, value in statistics.items() if not name.startswith(_CLOSED)}
    closed = {name.removeprefix(_CLOSED): value for name, value in statistics.items() if name.startswith(_CLOSED)}
    known["streams_closed"] = closed
    labels = _LABELS | dict.fromkeys(_BY_PEER, peers)
    labels |= {name: [f"{peer} {each}" for peer in peers for each in outcomes] for name, outcomes in _CALLS.items()}
    for name, values in labels.items():
        known[name] = dict.fromkeys(values, 0) | known.get(name, {})
    for name in ("call_setup_seconds", "call_post_dial_delay_seconds"):
        histogram = known.get(name, {"bounds": CALL_BOUNDS_S, "rows": {}})
        none = [0] * (len(histogram["bounds"]) + 2)
        known[name] = histogram | {"rows": dict.fromkeys(peers, none) | histogram["rows"]}
    return dict.fromkeys(_COUNTERS, 0) | known


class _Statistics(Collector):
    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        for name, value in self._statistics.items():
            if name in _HISTOGRAMS:
                yield _histogram(name, value)
            elif isinstance(value, Mapping):
                yield _labelled(_family(name), value)
            elif name in _GAUGES:
                yield GaugeMetricFamily(PREFIX + name, _GAUGES[name], value=value)
            else:
                yield CounterMetricFamily(PREFIX + name, _COUNTERS.get(name, ""), value=value)


def _family(name: str) -> CounterMetricFamily | GaugeMetricFamily:
    if name in _LABELLED_GAUGES:
        labels, what = _LABELLED_GAUGES[name]
        return GaugeMetricFamily(PREFIX + name, what, labels=labels)
    labels, what = _LABELLED.get(name, (("kind",), ""))
    return CounterMetricFamily(PREFIX + name, what, labels=labels)


def _labelled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, int]) -> Metric:
    for key, value in sorted(values.items()):
        family.add_metric(key.split(" "), value)
    return family


def _histogram(name: str, histogram: Mapping[str, Any]) -> Metric:
    labels, what = _HISTOGRAMS[name]
    family = HistogramMetricFamily(PREFIX + name, what, labels=labels)
    bounds = [*map(str, histogram["bounds"]), "+Inf"]
    for key, (*counts, total) in sorted(histogram["rows"].items()):
        family.add_metric(key.split(" "), list(zip(bounds, accumulate(counts), strict=True)), total)
    return family
