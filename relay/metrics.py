"""Metrics in Prometheus' text format, from the counters of relay700's parts. It counts nothing itself.

Labels are outcomes, signals and peers: never a number, a business's text or a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.policy.evaluate import OUTCOMES, REFUSALS

PREFIX = "relay700_"
Statistics = Mapping[str, int | float | Mapping[str, int]]

_GAUGES = {
    "up": "1 if the relay answers the backend; 0: all other metrics are the backend's own",
    "calls_up": "answered calls",
    "calls_setting_up": "calls not answered yet",
    "announcing": "of these, refused callers who are hearing an announcement",
    "attempts": "call attempts in memory, including those that have just ended",
    "messages": "text messages not answered yet",
    "legs": "call legs",
    "transactions": "SIP transactions",
    "timers": "timers of calls and transactions",
    "pending_lookups": "calls waiting for the store or the verification hook",
    "pending_media": "calls waiting for rtpengine",
    "pending_commits": "calls waiting for their record to be durable",
    "calling_tags": "From tags kept for loop detection",
    "logins": "registered peers without a fixed address",
    "bans": "banned sources (`relay700 bans list`)",
    "rtpengines_up": "rtpengine instances that answer",
    "journal_backlog": "records and events not on disk yet",
    "loop_lag_seconds": "longest queueing delay in the last 10 to 20 s",
    "rss_bytes": "resident memory of the relay process",
    "tasks": "asyncio tasks of the relay process",
    "streams": "TCP and TLS connections",
    "streams_from_strangers": "of these, from unknown sources",
    "follower_behind_seconds": "age of the newest record read by the follower, while more are waiting",
    "webhooks_under_way": "webhooks with a delivery in progress",
    "acts_waiting": "changes waiting for the store",
    "sealing_key": "id of the key that seals the store (`relay700 seal-key status`)",
    "outbox_waiting": "events waiting for delivery",
    "outbox_dead": "dead letters: events given up, which can be requeued",
    "recordings_waiting": "recordings of ended calls still unsealed in rtpengine's folder",
    "ledger_faults": "faults found in the store's rows since the start (`relay700 verify`)",
    "pools_short": "number pools whose usage has reached the warning level (`relay700 pools usage`)",
}
_COUNTERS = {
    "bugs": "exceptions in the engine, each logged; must stay 0",
    "leak_check": "messages stopped by the leak check because they held a real number; must stay 0",
    "unexpected_events": "events that the state of a call does not allow, each logged; must stay 0",
    "malformed": "messages that could not be parsed",
    "strangers": "requests from unknown sources",
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
}
# name: (label, description)
_LABELLED = {
    "refused": ("outcome", "calls and text messages refused by the relay"),
    "refused_too_often": (
        "of",
        "pauses after too many refused attempts of a peer: for calls to one number, for one caller, or for the peer",
    ),
    "shed": (
        "peer",
        "calls and text messages answered 503 unread, without a record, because of overload",
    ),
    "over_share": ("peer", "calls and messages above a peer's fair share of a limit"),
    "calls_ended": ("outcome", "calls and text messages whose record the follower has read"),
    "fraud_findings": ("signal", "fraud thresholds reached"),
    "verifications": ("answer", "answers of the verification hook"),
    "streams_closed": ("why", "closed TCP and TLS connections"),
}
# name: (labels, description); the keys of these gauges are the label values, separated by blanks
_LABELLED_GAUGES = {
    "target_up": (("peer", "target"), "1 if the target takes calls; 0 if it is down or backing off"),
    "peer_calls": (("peer", "direction"), "ringing and answered calls from a peer (in) and to it (out)"),
    "peer_registered": (("peer",), "1 if the peer is registered here, or the relay there; 0 if it should be"),
}


# Label values known in advance.
_LABELS: dict[str, Collection[str]] = {
    "refused": REFUSALS,
    "calls_ended": OUTCOMES,
    "fraud_findings": ("strangers", "short_calls", "sequential"),
    "streams_closed": (
        *("banned", "by_far_end", "framing", "half_message", "handshake", "idle", "pings", "refused", "slow_reader"),
        *("unproven", "unreachable"),
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
    for name, labels in (_LABELS | {"shed": peers}).items():
        known[name] = dict.fromkeys(labels, 0) | known.get(name, {})
    return dict.fromkeys(_COUNTERS, 0) | known


class _Statistics(Collector):
    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        for name, value in self._statistics.items():
            if isinstance(value, Mapping):
                yield _labelled_gauge(name, value) if name in _LABELLED_GAUGES else _labelled(name, value)
            elif name in _GAUGES:
                yield GaugeMetricFamily(PREFIX + name, _GAUGES[name], value=value)
            else:
                yield CounterMetricFamily(PREFIX + name, _COUNTERS.get(name, ""), value=value)


def _labelled(name: str, values: Mapping[str, int]) -> Metric:
    label, what = _LABELLED.get(name, ("kind", ""))
    family = CounterMetricFamily(PREFIX + name, what, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _labelled_gauge(name: str, values: Mapping[str, int]) -> Metric:
    labels, what = _LABELLED_GAUGES[name]
    family = GaugeMetricFamily(PREFIX + name, what, labels=labels)
    for key, value in values.items():
        family.add_metric(key.split(" "), value)
    return family
