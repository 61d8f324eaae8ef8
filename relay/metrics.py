"""Metrics in Prometheus' text format, from the plain numbers that the parts of relay700 count.

It counts nothing itself.

Labels are outcomes, signals and the like: never a number, a business's text or a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.policy.outcomes import OUTCOMES, REFUSALS

PREFIX = "relay700_"
Statistics = Mapping[str, int | float | Mapping[str, int]]

_GAUGES = {
    "up": "1 where the relay answers the desk, 0 where the other metrics are the desk's alone",
    "calls_up": "answered calls that go on",
    "calls_setting_up": "calls that are not answered yet",
    "announcing": "of these, refused callers who hear why",
    "attempts": "calls that are kept, also those that ended a moment ago",
    "messages": "text messages that are not answered yet",
    "legs": "halves of calls",
    "transactions": "SIP transactions",
    "timers": "timers of calls and transactions",
    "pending_lookups": "calls that wait for the store or the verification hook",
    "pending_media": "calls that wait for rtpengine",
    "pending_commits": "calls that wait for their record",
    "calling_tags": "tags of callers that are remembered",
    "logins": "peers without a fixed address that are registered",
    "bans": "sources that are not heard (`relay700 bans list`)",
    "rtpengines_up": "instances of rtpengine that answer",
    "journal_backlog": "records and events that are not on disk yet",
    "loop_lag_seconds": "the longest that something has waited to be served in the last 10 to 20 s",
    "rss_bytes": "memory of the relay",
    "tasks": "asyncio tasks of the process that carries calls",
    "streams": "TCP and TLS connections",
    "streams_from_strangers": "of these, from sources that are no peer",
    "follower_behind_seconds": "age of the newest record that the follower has read, while there are more",
    "webhooks_under_way": "webhooks that are being delivered to",
    "acts_waiting": "changes that wait for the store",
    "sealing_key": "id of the key that the store is sealed with (`relay700 seal-key status`)",
    "outbox_waiting": "events that wait for their delivery",
    "outbox_dead": "events that were given up and can be sent again",
    "recordings_waiting": "recordings of ended calls that are in clear in rtpengine's folder yet",
    "ledger_faults": "faults that were found in the store's rows since the start (`relay700 verify`)",
    "pools_short": "pools of which as much is in use as they warn from (`relay700 pools usage`)",
}
_COUNTERS = {
    "bugs": "exceptions in the engine, each logged; none may happen",
    "tripwire": "messages held back because a real number stood in them; none may happen",
    "malformed": "messages that could not be parsed",
    "strangers": "requests from sources that are no peer",
    "challenges": "requests from unknown sources that were asked for credentials",
    "logins_failed": "of these, those whose credentials were wrong",
    "bans_made": "sources that were banned",
    "datagrams_banned": "datagrams that were dropped unread, since their source is banned",
    "datagrams_lost": "datagrams that the system did not take",
    "datagrams_too_long": "responses and ACKs that were longer than a datagram may be",
    "datagrams_unread": "datagrams that came while the system's buffer for them was full",
    "attempts_lost": "calls and text messages that were under way at a crash and were ended at the start",
    "responses_stray": "responses that belong to no transaction",
    "rtpengine_failures": "commands that no rtpengine carried out",
    "media_failures": "of these, those that a description waited for: it was not passed on",
    "media_over_limit": "messages that came while too many of their call waited for rtpengine",
    "recordings_begun": "calls that rtpengine began to record",
    "recordings_failed": "calls that were to be recorded and were not, or not to their end, each logged",
    "recordings_taken": "recordings that were taken over from rtpengine and sealed",
    "announcements": "sounds that refused callers got to hear",
    "announcements_failed": "sounds that they did not, since rtpengine or their description did not allow it",
    "answers_unusable": "answers of callees that could not be passed on",
    "forks_over_limit": "early dialogs beyond the limit of a call",
    "reliable_over_limit": "reliable provisional responses beyond the limit of a leg",
    "records_followed": "call records that the follower has read",
    "records_unreadable": "call records or events that were altered",
    "events_made": "events left for webhooks by ended and ongoing calls",
    "events_delivered": "events that webhooks took",
    "events_given_up": "events that became dead letters",
    "deliveries": "requests to webhooks",
    "deliveries_failed": "of these, those that were not taken",
}
# name: its label, what it counts
_LABELLED = {
    "refused": ("outcome", "calls and text messages that the relay refused"),
    "refused_too_often": (
        "of",
        "pauses after too many refused attempts of a peer: of its calls to a number, in a caller's name, or of all",
    ),
    "shed": (
        "peer",
        "calls and text messages without a record: the relay was behind and answered them 503 unread",
    ),
    "over_share": ("peer", "calls and messages beyond a peer's share of what is bounded"),
    "calls_ended": ("outcome", "calls and text messages whose record the follower has read"),
    "fraud_findings": ("signal", "thresholds of fraud signals that were reached"),
    "verifications": ("answer", "answers of the verification hook"),
    "streams_closed": ("why", "connections that the relay closed"),
}
# name: the labels of a gauge whose keys are their values with blanks between, what it says
_LABELLED_GAUGES = {
    "target_up": (("peer", "target"), "1 where a target of a peer takes calls, 0 where it is down or rests"),
    "peer_calls": (("peer", "direction"), "calls from a peer (in) and to it (out), that ring or are up"),
    "peer_registered": (("peer",), "1 where a peer is registered here, or the relay there; 0 where it should be"),
}


# What the labels of counters can be, as far as it is known from the start.
_LABELS: dict[str, Collection[str]] = {
    "refused": REFUSALS,
    "calls_ended": OUTCOMES,
    "fraud_findings": ("strangers", "short_calls", "sequential"),
    "streams_closed": (
        *("banned", "by_far_end", "framing", "half_message", "handshake", "idle", "pings", "refused", "slow_reader"),
        *("unproven", "unreachable"),
    ),
}
_CLOSED = "streams_closed_"  # the names of counts of closed connections begin so; why they were stands behind it


def text(statistics: Statistics) -> bytes:
    """What is known under its name of the tables above; what is not, as a counter without a description."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Statistics(statistics))
    return generate_latest(registry)


def with_zeros(statistics: Statistics, peers: Collection[str]) -> dict[str, int | float | Mapping[str, int]]:
    """Also the counters that have counted nothing yet: where one appears with its first count, nobody sees it rise.

    `peers`: the names of those that are configured.
    """
    told: dict[str, Any] = {name: value for name, value in statistics.items() if not name.startswith(_CLOSED)}
    closed = {name.removeprefix(_CLOSED): value for name, value in statistics.items() if name.startswith(_CLOSED)}
    told["streams_closed"] = closed
    for name, labels in (_LABELS | {"shed": peers}).items():
        told[name] = dict.fromkeys(labels, 0) | told.get(name, {})
    return dict.fromkeys(_COUNTERS, 0) | told


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
