"""The overview: what wants attention, figures, outcomes over time, peers, businesses. It reads few rows, however many
calls there were."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from unicodedata import normalize

from starlette.responses import JSONResponse, Response

from relay.console.ask import ApiError
from relay.console.attention import Item, attention
from relay.console.calls import CALLS
from relay.console.charts import DAY_S, RANGES, Chart, Range, by_class, stacked
from relay.console.outcomes import OUTCOMES, Class, class_of
from relay.console.page import ConsolePage, PageRoute, get
from relay.console.references import holds_real_number
from relay.console.tables import search_party
from relay.model.outcomes import ANSWERED
from relay.service.complaints import complaint_rates
from relay.store.call_counts import (
    PeriodCounts,
    counts_of_businesses,
    owner_of_business,
    owner_of_peer,
    owner_of_sender,
    read_counts,
    sum_counts,
)
from relay.store.connection import Connection

USUAL: Final = "1h"
MOST_BUSINESSES: Final = 6
MOST_OUTCOMES: Final = 7
LATELY_S: Final = 600


class Figures(NamedTuple):
    """Shares are percent; None if there were no calls."""

    live: int | None  # None: the relay does not answer
    per_s: float
    answered: float | None
    answered_before: float | None  # in the same time before
    refused: float | None
    ringing_s: tuple[float | None, float | None]  # p50, p99


class Compared(NamedTuple):
    """An outcome today until now, and on the same day of last week until the same time."""

    outcome: str
    today: int
    before: int


class Row(NamedTuple):
    """A line of the table of peers or of businesses."""

    name: str
    calls: int
    answered: float | None
    refused: float | None
    failed: float | None
    often: str  # the most frequent refusal or fault, "" for none
    ringing_s: float | None
    calls_in: int = 0  # of a peer: calls from it; `calls` went to it
    complaints: float | None = None  # of a business user, percent of the answered calls of thirty days


class Overview(NamedTuple):
    """Everything on the page."""

    range_: str
    items: list[Item]
    figures: Figures
    chart: Chart
    compared: list[Compared]
    peers: list[tuple[dict[str, Any], Row]]
    businesses: list[Row]


class _Read(NamedTuple):
    """Data of the page that is read from the store."""

    now: dict[int, PeriodCounts]
    before: PeriodCounts
    lately: PeriodCounts
    day: PeriodCounts
    today: PeriodCounts
    last_week: PeriodCounts
    peers: dict[str, PeriodCounts]
    senders: dict[str, PeriodCounts]
    businesses: dict[str, PeriodCounts]
    complaints: dict[str, float | None]


_NONE: Final = sum_counts([])
_NOTHING: Final = _Read({}, _NONE, _NONE, _NONE, _NONE, _NONE, {}, {}, {}, {})


async def overview(page: ConsolePage, *, whole: bool = True) -> Overview:
    """All parts of the page, for the viewer; without `whole` only those that follow the calls."""
    name = page.query.get("range", USUAL)
    name = name if name in RANGES else USUAL
    range_ = RANGES[name]
    begin_s = int(page.now_s) // range_.span_s * range_.span_s - range_.length_s + range_.span_s
    peers = await _peers(page)
    names = [each["name"] for each in peers]
    read = _NOTHING
    if page.may("calls:read"):
        read = await page.read(lambda connection: _read(connection, page, range_, begin_s, names, whole=whole))
    total = sum_counts(read.now.values())
    return Overview(
        name,
        await attention(page, read.lately, read.day, peers),
        await _figures(page, total, read.before, page.now_s - begin_s),
        stacked(range_, begin_s, read.now, page.zone),
        _compared(read.today, read.last_week),
        [(peer, _peer_row(peer["name"], read)) for peer in peers],
        [
            row._replace(complaints=read.complaints.get(row.name))
            for row in sorted((_row(*each) for each in read.businesses.items()), key=lambda row: -row.calls)
        ][:MOST_BUSINESSES],
    )


async def _peers(page: ConsolePage) -> list[dict[str, Any]]:
    """For operators; none while the relay does not answer."""
    if not page.may("operator"):
        return []
    try:
        return list((await page.get("/v1/peers"))["items"])
    except ApiError:
        return []


def _read(
    connection: Connection, page: ConsolePage, range_: Range, begin_s: int, peers: list[str], *, whole: bool
) -> _Read:
    owner, now_s = owner_of_business(page.business), int(page.now_s)

    def between(span_s: int, since_s: int, until_s: int, of: str = owner) -> PeriodCounts:
        return sum_counts(read_counts(connection, of, span_s, since_s, until_s).values())

    local = datetime.fromtimestamp(now_s, UTC).astimezone(page.zone)
    midnight_s = int(local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    hour_s = now_s - now_s % 3_600
    end_s = begin_s + range_.length_s
    return _Read(
        read_counts(connection, owner, range_.span_s, begin_s, end_s),
        between(range_.span_s, begin_s - range_.length_s, begin_s),
        between(60, now_s - LATELY_S, end_s),
        between(3_600, hour_s - DAY_S, hour_s + 3_600),
        between(3_600, midnight_s, hour_s + 3_600),
        sum_counts(
            [
                between(3_600, midnight_s - 7 * DAY_S, hour_s - 7 * DAY_S),
                _share(between(3_600, hour_s - 7 * DAY_S, hour_s - 7 * DAY_S + 3_600), (now_s - hour_s) / 3_600),
            ]
        ),
        {peer: between(range_.span_s, begin_s, end_s, owner_of_peer(peer)) for peer in peers},
        {peer: between(range_.span_s, begin_s, end_s, owner_of_sender(peer)) for peer in peers},
        counts_of_businesses(connection, hour_s - DAY_S) if whole and page.may("operator") else {},
        _complaints(connection, now_s) if whole and page.may("operator") else {},
    )


def _complaints(connection: Connection, now_s: int) -> dict[str, float | None]:
    rates = complaint_rates(connection, None, 1_000 * now_s, limit_ppm=0)
    return {rate.business: rate.percent for rate in rates if not rate.prefix}


async def _figures(page: ConsolePage, total: PeriodCounts, before: PeriodCounts, length_s: float) -> Figures:
    live = None
    if page.may("calls:read"):
        try:
            live = (await page.get("/v1/calls/live", limit="1"))["total"]
        except ApiError:
            live = None
    ringing_s = (total.ringing_s(0.5), total.ringing_s(0.99))
    return Figures(live, total.total / length_s, _answered(total), _answered(before), _refused(total), ringing_s)


def _share(counts: PeriodCounts, share: float) -> PeriodCounts:
    """A share of counts: of an hour of last week the store has no parts."""
    return counts._replace(outcomes={name: round(share * count) for name, count in counts.outcomes.items()})


def _row(name: str, counts: PeriodCounts) -> Row:
    bad = {each: count for each, count in counts.outcomes.items() if class_of(each) in ("refused", "bad")}
    often = max(bad, key=lambda each: bad[each]) if bad else ""
    failed = _part(counts, "bad")
    return Row(name, counts.total, _answered(counts), _refused(counts), failed, often, counts.ringing_s(0.99))


def _peer_row(name: str, read: _Read) -> Row:
    """Rates are of the calls to a peer; of those from it if none went to it."""
    to, received = read.peers.get(name, _NONE), read.senders.get(name, _NONE)
    return _row(name, to if to.total else received)._replace(calls=to.total, calls_in=received.total)


def _compared(today: PeriodCounts, before: PeriodCounts) -> list[Compared]:
    names = sorted(OUTCOMES, key=lambda name: -today.outcomes.get(name, 0) - before.outcomes.get(name, 0))
    found = [Compared(name, today.outcomes.get(name, 0), before.outcomes.get(name, 0)) for name in names]
    return [each for each in found[:MOST_OUTCOMES] if each.today or each.before]


def _answered(counts: PeriodCounts) -> float | None:
    return 100 * counts.outcomes.get(ANSWERED, 0) / counts.total if counts.total else None


def _refused(counts: PeriodCounts) -> float | None:
    return _part(counts, "refused")


def _part(counts: PeriodCounts, class_: Class) -> float | None:
    return 100 * by_class(counts)[class_] / counts.total if counts.total else None


async def _show(page: ConsolePage) -> Response:
    it = await overview(page)
    if page.query.get("format") == "json":
        return JSONResponse(_as_json(it))
    return page.render("overview.html", it=it, ranges=list(RANGES))


def _as_json(it: Overview) -> dict[str, Any]:
    return {
        "range": it.range_,
        "attention": [item._asdict() for item in it.items],
        "figures": it.figures._asdict(),
        "bars": [{"at": bar.at, **bar.counts} for bar in it.chart.bars],
        "outcomes": [each._asdict() for each in it.compared],
        "peers": [row._asdict() for _, row in it.peers],
        "businesses": [row._asdict() for row in it.businesses],
    }


async def overview_parts(page: ConsolePage) -> Mapping[str, str]:
    """The parts that follow the calls, for the stream."""
    it = await overview(page, whole=False)
    names = ("attention", "figures", "peers")
    return {name: page.part(f"overview_{name}.html", it=it) for name in names}


async def _find(page: ConsolePage) -> Response:
    """Where a text leads: a call, the calls of a 700 number or of a party, else those of the order.

    A browser that asks for this page again, as for another language, has no text.
    """
    text = page.form.get("q", "").strip()
    if len(text) == 32 and all(each in "0123456789abcdef" for each in text):
        return page.redirect(f"/calls/{text}")
    if text.isdigit() and text.startswith("700"):
        return page.go("/calls", number=text)
    if holds_real_number(text) and page.may("parties:read"):
        return await search_party(page, CALLS, normalize("NFKC", text))
    return page.go("/calls", order_id=text)


ROUTES: Final[list[PageRoute]] = [get("/", _show), get("/find", _find, "calls:read")]
