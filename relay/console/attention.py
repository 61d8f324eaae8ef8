"""Present and coming faults of the service that want attention. Each leads to the page that helps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from relay.console.outcomes import OUTCOMES
from relay.console.page import ConsolePage
from relay.events.follower import BEHIND_S
from relay.service.filings import EXPIRING_MS as FILING_EXPIRING_MS
from relay.service.phase import phase_now
from relay.store.call_counts import PeriodCounts
from relay.store.filings import count_expiring as count_expiring_filings
from relay.store.keys import count_expiring
from relay.translation import N_

DAY_MS: Final = 86_400_000
EXPIRING_MS: Final = 14 * DAY_MS
PROVEN_MIN: Final = 120  # minutes since the probe's last proof after which it is late
_PHASES: Final = {"preparation": N_("preparation"), "transition": N_("transition"), "pilot": N_("pilot")}
LAG_S: Final = 0.5  # of the relay's loop
UNUSUAL: Final = 20  # refusals in ten minutes below which nothing is unusual
TIMES: Final = 3.0  # more than the share of the day


Level = Literal["bad", "calm", "good"]  # in order


class Item(NamedTuple):
    """A line. `path`: the page that helps, "" for none."""

    level: Level
    text: str
    path: str = ""


# Counters and gauges that should be 0, with what a higher value means.
_ZERO: Final[tuple[tuple[str, str, str], ...]] = (
    ("leak_check", N_("The leak check stopped %(count)s messages with a real number: a defect, please report it"), ""),
    ("bugs", N_("%(count)s errors in the engine since the start: the log has them"), ""),
    ("ledger_faults", N_("%(count)s rows of the store were changed by something else: run relay700 verify"), "/audit"),
    ("records_unreadable", N_("%(count)s call records were altered: run relay700 verify"), "/audit"),
    ("papers_expired", N_("%(count)s papers have ended: relay700 papers list --state expired"), ""),
    ("outbox_dead", N_("%(count)s dead letters: events that no webhook took"), "/webhooks"),
)


async def attention(
    page: ConsolePage, lately: PeriodCounts, of_day: PeriodCounts, peers: list[dict[str, Any]]
) -> list[Item]:
    """All items, the worst first. `lately`: the last ten minutes. A business user sees what concerns it."""
    items: list[Item] = []
    if page.may("operator"):
        statistics = await page.backend.statistics()
        items += _service(page, statistics)
        items += _phase(page)
        items += _targets(page, peers)
        items += _proofs(page, statistics)
        items += _complaints(page, statistics)
    items += _refusals(page, lately, of_day)
    if page.may("keys"):
        items += await _keys(page)
    if page.may("filings"):
        items += await _filings(page)
    return sorted(items, key=lambda item: item.level)


def _service(page: ConsolePage, statistics: Mapping[str, Any]) -> Iterator[Item]:
    if not statistics["up"]:
        yield Item("bad", page.words(N_("The relay does not answer: it is stopped, or starts again")))
    for name, text, path in _ZERO:
        if count := statistics.get(name, 0):
            yield Item("bad", page.words(text) % {"count": count}, path)
    for node in [name for name, is_up in statistics.get("node_up", {}).items() if not is_up]:
        yield Item("bad", page.words(N_("Node %(node)s is missing: another carries its calls")) % {"node": node})
    if count := statistics.get("papers_expiring", 0):
        yield Item("calm", page.words(N_("%(count)s papers end within 30 days")) % {"count": count})
    if count := sum(statistics.get("hook_breaker_open", {}).values()):
        text = page.words(N_("%(count)s hooks do not answer: calls are refused, or let through unasked"))
        yield Item("bad", text % {"count": count})
    for pool, free in statistics["short_pools"].items():
        text = page.words(N_("Pool %(pool)s has %(free)s%% free")) % {"pool": pool, "free": free}
        yield Item("bad" if free == 0 else "calm", text, "/numbers")
    if statistics.get("follower_behind_seconds", 0) > BEHIND_S:
        yield Item("bad", page.words(N_("Records are followed late: caps over hours count too few calls")))
    if statistics.get("loop_lag_seconds", 0) > LAG_S:
        yield Item("bad", page.words(N_("The relay is slow: calls wait for more than half a second")))


def _phase(page: ConsolePage) -> Iterator[Item]:
    """The end of the pilot's phase, once it is near."""
    now_ms = int(page.now_s * 1000)
    phase = phase_now(page.backend.settings.rules, now_ms)
    if (warned := phase.warned_days(now_ms)) is not None:
        text = N_("The phase %(phase)s ends in %(days)s days: relay700 phase says what is left to do")
        values = {"phase": page.words(_PHASES[phase.phase]), "days": phase.days_left(now_ms)}
        yield Item("bad" if warned == 1 else "calm", page.words(text) % values)


def _complaints(page: ConsolePage, statistics: Mapping[str, Any]) -> Iterator[Item]:
    """Business users at the limit of complaints, which only an operator suspends."""
    for business, rate in statistics.get("high_complaints", {}).items():
        values = {"business": business, "count": rate.complaints, "answered": rate.answered}
        text = N_("%(business)s: %(count)s complaints in 30 days, %(answered)s answered calls: suspend it?")
        yield Item("bad", page.words(text) % values, f"/businesses/{business}")


def _proofs(page: ConsolePage, statistics: Mapping[str, Any]) -> Iterator[Item]:
    """The probe's findings, if there is a probe."""
    counts, proven = statistics.get("probes", {}), statistics.get("privacy_last_proven_seconds", {})
    for peer in proven:
        if leaks := counts.get(f"{peer} leak", 0):
            text = N_("Probe through %(peer)s: %(count)s calls showed a real number to the other side")
            yield Item("bad", page.words(text) % {"peer": peer, "count": leaks}, "/audit?action=probe.leak")
    if proven and (oldest_s := min(proven.values())):
        minutes = max(int(page.now_s - oldest_s) // 60, 0)
        level: Level = "good" if minutes < PROVEN_MIN else "calm"
        yield Item(level, page.words(N_("Privacy proven %(minutes)s min ago")) % {"minutes": minutes}, "/audit")
    elif proven:
        yield Item("calm", page.words(N_("Privacy is not proven yet through each peer")), "/audit")


def _targets(page: ConsolePage, peers: list[dict[str, Any]]) -> Iterator[Item]:
    for peer in peers:
        if peer["registered"] is False:
            yield Item("bad", page.words(N_("%(peer)s is not registered")) % {"peer": peer["name"]}, "/#peers")
        down = [target for target in peer["targets"] if target["state"] == "down"]
        for target in down:
            values = {"peer": peer["name"], "target": target["target"]}
            level: Level = "bad" if len(down) == len(peer["targets"]) else "calm"
            yield Item(level, page.words(N_("%(peer)s: %(target)s does not answer")) % values, "/#peers")


def _refusals(page: ConsolePage, lately: PeriodCounts, of_day: PeriodCounts) -> Iterator[Item]:
    """A refusal that is far more frequent than over the day."""
    for name, count in lately.outcomes.items():
        if OUTCOMES.get(name) is None or OUTCOMES[name].class_ in ("good", "calm") or count < UNUSUAL:
            continue
        share, usual = count / lately.total, of_day.outcomes.get(name, 0) / max(of_day.total, 1)
        if share > TIMES * usual or (share > 0.5 and usual > 0.5):
            values = {"share": round(100 * share), "outcome": page.outcome(name), "usual": round(100 * usual)}
            text = page.words(N_("%(outcome)s: %(share)s%% of the calls of ten minutes, %(usual)s%% over the day"))
            yield Item("bad", text % values, f"/calls?outcome={name}")


async def _keys(page: ConsolePage) -> list[Item]:
    """API keys that end within two weeks: those of the business user, or all."""
    now_ms = int(page.now_s * 1000)
    business, until_ms = page.business, now_ms + EXPIRING_MS
    count = await page.read(lambda connection: count_expiring(connection, business, now_ms, until_ms))
    if not count:
        return []
    path = f"/businesses/{business}" if business else "/businesses"
    return [Item("calm", page.words(N_("%(count)s API keys expire within two weeks")) % {"count": count}, path)]


async def _filings(page: ConsolePage) -> list[Item]:
    """Filings in force that end within thirty days: those of the business user, or all."""
    now_ms, business = int(page.now_s * 1000), page.business
    until_ms = now_ms + FILING_EXPIRING_MS
    count = await page.read(lambda connection: count_expiring_filings(connection, business, now_ms, until_ms))
    if not count:
        return []
    text = page.words(N_("%(count)s filings of A numbers end within 30 days")) % {"count": count}
    return [Item("calm", text, "/filings?expiring=true")]
