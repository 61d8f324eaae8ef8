"""The ladder of a captured call: its messages in order of time, and the parts of each that did not cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from relay.call.invite_session import LOST_AT_RESTART
from relay.model.call import CallRecord
from relay.model.capture import LONGEST_AFTER_S, CapturedCall, CaptureRules, Mark, Side
from relay.model.numbers import is_700, mask_number
from relay.privacy.capture_mask import CaptureMask, wire
from relay.privacy.captured import Line, shown_name
from relay.reports.disclosure import printable
from relay.service.fields import format_duration, format_moment
from relay.trace.ladder_join import Join, JoinedMessage, Lanes, fold

Verdict = Literal["crossed", "rewritten", "withheld"]


class Lane(NamedTuple):
    """The caller, or an attempt at one target."""

    number: int  # 0: the caller; attempts from 1, in order
    side: Side
    peer: str  # "" if it is not shown
    address: str  # as shown
    early_dialogs: int  # 0 or more than one


class Crossing(NamedTuple):
    """Lines of one name of the received message, and what became of them in the sent one."""

    name: str
    verdict: Verdict
    lines: int


class LadderRow(NamedTuple):
    """A message, with its retransmissions."""

    at_us: int
    lane: int
    sent: bool  # by the relay
    what: str  # INVITE; 180 Ringing; 200 OK (BYE)
    status: int  # 0: a request
    early_dialog: str  # "a", "b", … if the lane has several
    again_at_us: tuple[int, ...]  # of its retransmissions
    transport: str
    local: str  # addresses as shown
    remote: str
    lines: tuple[str, ...]  # of its text
    data: bytes  # on the wire, masked like the lines
    made_from: int | None = None  # the row of the other side that it was made from
    verdicts: tuple[Verdict | None, ...] = ()  # of each line of that row; None: no header and no line of SDP
    crossings: tuple[Crossing, ...] = ()


class Ladder(NamedTuple):
    call_id: str
    is_masked: bool
    side: Side | None  # the only side that is shown; None: both
    lanes: tuple[Lane, ...]
    rows: tuple[LadderRow, ...]
    marks: tuple[Mark, ...]
    lost: int
    record: CallRecord | None

    @property
    def started_at_us(self) -> int:
        """The time of the first message or mark; 0 if there is none."""
        return min([row.at_us for row in self.rows[:1]] + [mark.at_us for mark in self.marks[:1]], default=0)


class View(NamedTuple):
    """The viewer's side, and the real numbers to show."""

    side: Side | None = None  # None: both
    clear: frozenset[str] | None = frozenset()  # numbers to show; None: everything, as it was on the wire


def operator_view(*, reveal: bool) -> View:
    """Both sides; with `reveal` every byte."""
    return View(clear=None if reveal else frozenset())


def business_view(record: CallRecord, *, reveal: bool) -> View:
    """A business user's view: the side of party a, its courier, driver or group. Never addresses or names of peers;
    with `reveal` only the numbers of the two parties."""
    parties = frozenset(filter(None, (record.caller, record.callee)))
    return View("callee" if record.direction == "b_to_a" else "caller", parties if reveal else frozenset())


def build_ladder(call: CapturedCall, record: CallRecord | None, view: View) -> Ladder:
    """The ladder as `view` may see it."""
    lanes = Lanes(call)
    seen, again = fold(call.messages, lanes)
    sources = Join(seen).sources()
    shown = _Shown(seen, record, view, lanes)
    rows = [shown.row(one, again[one.place]) for one in seen]
    crossed = [
        row
        if source is None or view.side
        else _with_crossings(row, source, seen[source].lines, one.lines, masked=view.clear is not None)
        for row, source, one in zip(rows, sources, seen, strict=True)
    ]
    return Ladder(
        call.call_id,
        view.clear is not None,
        view.side,
        tuple(shown.lanes()),
        tuple(row for row in crossed if view.side in (None, lanes.sides[row.lane])),
        call.marks,
        call.lost,
        record,
    )


# -- What crossed


def _with_crossings(row: LadderRow, source: int, received: list[Line], sent: list[Line], *, masked: bool) -> LadderRow:
    verdicts = _verdicts(received, sent)
    counts = Counter(
        (shown_name(line, masked=masked), verdict)
        for line, verdict in zip(received, verdicts, strict=True)
        if verdict is not None
    )
    crossings = tuple(Crossing(name, verdict, count) for (name, verdict), count in counts.items())
    return row._replace(made_from=source, verdicts=verdicts, crossings=crossings)


def _verdicts(received: list[Line], sent: list[Line]) -> tuple[Verdict | None, ...]:
    """The verdict on each received line: the same line was sent, another one of that name, or none."""
    lines = {(_kind(line), line.value) for line in sent}
    kinds = {_kind(line) for line in sent}
    return tuple(
        None
        if line.part == "start" or (line.part == "body" and not line.value)
        else "crossed"
        if (_kind(line), line.value) in lines
        else "rewritten"
        if _kind(line) in kinds
        else "withheld"
        for line in received
    )


def _kind(line: Line) -> tuple[str, str, int]:
    return line.part, line.name, line.stream


# -- As it is shown


class _Shown:
    """The texts of one ladder, masked in order of time."""

    def __init__(self, seen: Sequence[JoinedMessage], record: CallRecord | None, view: View, lanes: Lanes) -> None:
        self._lanes = lanes
        self._tags: list[list[str]] = [[] for _ in lanes.sides]
        self._mask: CaptureMask | None = None
        self._business = view.side is not None
        if view.clear is not None:
            numbers = (record.number_dialled, record.number_shown or "") if record else ()
            self._mask = CaptureMask(view.clear | {number for number in numbers if is_700(number)})
            for one in seen:
                self._mask.know(one.captured.local, "relay")
                self._mask.know(one.captured.remote, one.side)
        for one in seen:
            self._note_tag(one)

    def lanes(self) -> Iterator[Lane]:
        for number, (side, peer, address) in enumerate(
            zip(self._lanes.sides, self._lanes.peers, self._lanes.addresses, strict=True)
        ):
            tags = self._tags[number]
            shown = self._address(address, side) if address else ""
            yield Lane(number, side, "" if self._business else peer, shown, len(tags) if len(tags) > 1 else 0)

    def _note_tag(self, one: JoinedMessage) -> None:
        """Early dialogs are those of the responses to an INVITE (RFC 3261 12.1)."""
        tags = self._tags[one.lane]
        if 100 < one.status < 300 and one.method == "INVITE" and one.leg_tag and one.leg_tag not in tags:
            tags.append(one.leg_tag)

    def row(self, one: JoinedMessage, again: tuple[int, ...]) -> LadderRow:
        captured = one.captured
        if self._mask is None:
            texts, data = [line.text for line in one.lines], captured.data
        else:
            texts = self._mask.masked(one.lines, one.side, sent=one.sent)
            data = wire(one.lines, texts)
        tags = self._tags[one.lane]
        return LadderRow(
            at_us=captured.at_us,
            lane=one.lane,
            sent=one.sent,
            what=one.what,
            status=one.status,
            early_dialog=_letter(tags.index(one.leg_tag)) if len(tags) > 1 and one.leg_tag in tags else "",
            again_at_us=again,
            transport=captured.transport,
            local=self._address(captured.local, "relay"),
            remote=self._address(captured.remote, one.side),
            lines=tuple(texts),
            data=data,
        )

    def _address(self, address: str, whose: Side | Literal["relay"]) -> str:
        return address if self._mask is None else self._mask.know(address, whose)


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26)


def record_of(values: Mapping[str, Any]) -> CallRecord:
    """The record of a call that only the relay knows yet, from its answer; fields that it does not show are None."""
    return CallRecord._make(values.get(name) for name in CallRecord._fields)


def why_absent(record: CallRecord | None, rules: CaptureRules, now_ms: int) -> str:
    """Why there is no capture of a call, or of a peer's registrations (no record), and what to do."""
    ended_ms = None if record is None else record.ended_at
    if rules.keep == "off":
        return 'nothing is captured: set [capture] keep to "failed" or "all"'
    if record is None:
        return "no registration of this peer is kept; `relay700 capture arm --peer` keeps the next ones"
    if ended_ms is None:
        return (
            "the call is not over: its messages are kept when it ends; "
            "until then the API and the console of its node have them"
        )
    if ended_ms + rules.keep_ms < now_ms:
        return f"captures are deleted after {format_duration(rules.keep_ms)}, as [capture] keep_for says"
    if rules.keep == "armed":
        return 'only what `relay700 capture arm` names is kept; [capture] keep = "all" keeps every call'
    if rules.keep == "failed" and record.outcome == "answered" and record.end_reason == "bye":
        return (
            "only failed calls are kept, and this one was answered and hung up by a party: "
            '`relay700 capture arm` keeps the next ones, [capture] keep = "all" every call'
        )
    if record.end_reason == LOST_AT_RESTART:
        return "the relay stopped during the call: what it had captured until then is lost"
    if now_ms - ended_ms < LONGEST_AFTER_S * 1000:
        return "the call has just ended: its messages come some seconds later; ask again"
    return "its messages are not there: deleted to make room, as [capture] max_mb says, or not captured at the time"


# -- As JSON


def ladder_object(ladder: Ladder) -> dict[str, Any]:
    """As `--json` and the API show it; docs/API.md says what the fields mean."""
    start = ladder.started_at_us
    return {
        "call_id": ladder.call_id,
        "masked": ladder.is_masked,
        "side": ladder.side,
        "started_at": format_moment(start // 1000) if start else None,
        "lost": ladder.lost,
        "lanes": [lane._asdict() for lane in ladder.lanes],
        "messages": [_row_object(row, ladder) for row in ladder.rows],
        "marks": [{"after_ms": (mark.at_us - start) / 1000, "step": mark.step} for mark in ladder.marks],
    }


def _row_object(row: LadderRow, ladder: Ladder) -> dict[str, Any]:
    values = row._asdict()
    for name in ("at_us", "again_at_us", "lines", "data", "verdicts"):
        del values[name]
    received = () if row.made_from is None else ladder.rows[row.made_from].lines
    start = ladder.started_at_us
    return values | {
        "after_ms": (row.at_us - start) / 1000,
        "again_after_ms": [(each - start) / 1000 for each in row.again_at_us],
        "text": printable(row.data.decode("utf-8", "surrogateescape")),
        "crossings": [crossing._asdict() for crossing in row.crossings],
        "received_lines": [
            {"text": printable(text), "verdict": verdict} for text, verdict in zip(received, row.verdicts, strict=True)
        ],
    }


def story_of(ladder: Ladder, words: Callable[[str], str] = str) -> str:
    """The call's record in one line; "" without a record. `words`: a translation."""
    record = ladder.record
    if record is None:
        return ""
    show = mask_number if ladder.is_masked else str
    parts = [f"{show(record.caller) or '?'} dialled {show(record.number_dialled)}", record.outcome or "live"]
    if record.duration_ms is not None:
        parts.append(f"{record.duration_ms / 1000:.1f} s")
    if record.ended_by:
        parts.append(f"ended by {record.ended_by}: {record.end_reason}")
    if record.sip_status:
        parts.append(f"SIP {record.sip_status}")
    if record.q850_cause:
        parts.append(f"Q.850 {record.q850_cause}")
    return ", ".join(map(words, parts))
