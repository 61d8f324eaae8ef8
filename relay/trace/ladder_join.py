"""The messages of a captured call without retransmissions, and which of them was made from which.

That follows from the messages alone: requests are relayed one to one, responses by the transactions of their requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from relay.errors import ParseError
from relay.model.capture import REGISTRATIONS, CapturedCall, CapturedMessage, Side
from relay.privacy.capture_mask import METHODS
from relay.privacy.captured import Line, lines_of
from relay.privacy.masking import mask_provisional
from relay.sip.message import PHRASES, Request, parse_message

_Transaction = tuple[int, bool, str, str]  # lane, whether the request is the relay's, branch, method


class JoinedMessage:
    """A message as its place in the call needs it. Malformed ones have no method, and are joined with nothing."""

    __slots__ = (
        "branch",
        "captured",
        "cseq",
        "is_request",
        "lane",
        "lines",
        "method",
        "place",
        "side",
        "status",
        "tags",
    )

    def __init__(self, place: int, captured: CapturedMessage, lines: list[Line], lane: int, side: Side) -> None:
        self.place = place
        self.captured = captured
        self.lines = lines
        self.lane = lane
        self.side = side
        self.method = self.branch = ""
        self.status = self.cseq = 0
        self.is_request = not lines[0].text.startswith("SIP/2.0 ")
        self.tags: tuple[str | None, str | None] = (None, None)  # From, To
        try:
            message = parse_message(captured.data)
            self.cseq, self.method = message.cseq
            self.branch = message.branch
            self.tags = message.from_tag, message.to_tag
            self.status = 0 if isinstance(message, Request) else message.status
        except ParseError:
            self.method = ""

    @property
    def sent(self) -> bool:
        return self.captured.sent

    @property
    def what(self) -> str:
        method = self.method if self.method in METHODS else "malformed message" if not self.method else "request"
        if not self.status:
            return method
        phrase = f"{self.status} {PHRASES.get(self.status, '')}".rstrip()
        return phrase if self.method == "INVITE" else f"{phrase} ({method})"

    @property
    def leg_tag(self) -> str | None:
        """The callee's tag, which tells the early dialogs of one INVITE apart."""
        from_relay = self.sent == self.is_request
        return self.tags[1] if from_relay == (self.side == "callee") else self.tags[0]

    @property
    def transaction(self) -> _Transaction:
        """Common to a request and its responses; the ACK to a refusal has one of its own here."""
        return self.lane, self.sent == self.is_request, self.branch, self.method


class Lanes:
    """The lane of each SIP Call-ID. Registrations are no calls: all with one peer share a lane."""

    def __init__(self, call: CapturedCall) -> None:
        self.sides: list[Side] = ["caller"]
        self.peers = [""]
        self.addresses = [""]
        self._by_call_id: dict[str, int] = {}
        self._by_remote: dict[str, int] = {}
        registers = call.call_id.startswith(REGISTRATIONS)
        for dialog in call.dialogs:
            lane = 0
            if dialog.side == "callee":
                lane = 1 if registers and len(self.sides) > 1 else len(self.sides)
                if lane == len(self.sides):
                    self.sides.append("callee")
                    self.peers.append("")
                    self.addresses.append("")
            self.peers[lane] = dialog.peer
            self._by_call_id[dialog.sip_call_id] = lane

    def lane_of(self, message: CapturedMessage, lines: list[Line]) -> int:
        """By Call-ID, or, if that is unreadable, by the address of the peer."""
        call_id = next((line.value for line in lines if line.name == "call-id"), "")
        lane = self._by_call_id.get(call_id)
        if lane is None:
            return self._by_remote.get(message.remote, 0)
        self.addresses[lane] = self.addresses[lane] or message.remote
        self._by_remote.setdefault(message.remote, lane)
        return lane


def fold(messages: Iterable[CapturedMessage], lanes: Lanes) -> tuple[list[JoinedMessage], list[tuple[int, ...]]]:
    """The messages without retransmissions, and the times of these. A retransmission has the same bytes."""
    seen: list[JoinedMessage] = []
    again: list[tuple[int, ...]] = []
    places: dict[tuple[bool, str, bytes], int] = {}
    for message in messages:
        key = (message.sent, message.remote, message.data)
        if (place := places.get(key)) is not None:
            again[place] += (message.at_us,)
            continue
        place = places[key] = len(seen)
        lines = lines_of(message.data)
        lane = lanes.lane_of(message, lines)
        seen.append(JoinedMessage(place, message, lines, lane, lanes.sides[lane]))
        again.append(())
    return seen, again


# -- Which message of one side was made from which one of the other


class Join:
    """One pass over the messages in order of time: all that it finds is earlier."""

    def __init__(self, seen: Sequence[JoinedMessage]) -> None:
        self._seen = seen
        self._sources: list[int | None] = [None] * len(seen)
        self._requests: dict[_Transaction, JoinedMessage] = {}
        self._answers: defaultdict[_Transaction, list[JoinedMessage]] = defaultdict(list)
        self._received: defaultdict[tuple[Side, str], list[JoinedMessage]] = defaultdict(list)  # requests, by method
        self._open: defaultdict[tuple[Side, str], dict[int, JoinedMessage]] = defaultdict(
            dict
        )  # neither relayed nor answered
        self._sent: defaultdict[tuple[int, str], list[JoinedMessage]] = defaultdict(
            list
        )  # requests, by lane and method
        self._made: defaultdict[int, list[JoinedMessage]] = defaultdict(list)  # requests, by the place of their source

    def sources(self) -> list[int | None]:
        """For each message the one that it was made from: sent by the relay, and not of its own accord."""
        for one in self._seen:
            if not one.method:
                continue
            source = None
            if one.sent:
                source = self._of_request(one) if one.is_request else self._of_response(one)
                self._sources[one.place] = None if source is None else source.place
            self._note(one, source)
        return self._sources

    def _note(self, one: JoinedMessage, source: JoinedMessage | None) -> None:
        if not one.is_request:
            self._answers[one.transaction].append(one)
            if one.status >= 200 and (asked := self._requests.get(one.transaction)) is not None:
                self._open[asked.side, asked.method].pop(asked.place, None)
            return
        self._requests[one.transaction] = one
        if one.sent:
            self._sent[one.lane, one.method].append(one)
            if source is not None:
                self._made[source.place].append(one)
                self._open[source.side, source.method].pop(source.place, None)
        else:
            self._received[one.side, one.method].append(one)
            self._open[one.side, one.method][one.place] = one

    def _source(self, one: JoinedMessage) -> JoinedMessage | None:
        place = self._sources[one.place]
        return None if place is None else self._seen[place]

    # Requests: CANCEL and BYE go on whatever the answer; an initial request goes to each target; any other one is
    # relayed once, before it is answered, the first one first.

    def _of_request(self, one: JoinedMessage) -> JoinedMessage | None:
        if one.method == "ACK":
            return self._of_ack(one)
        received_by: Side = "caller" if one.side == "callee" else "callee"
        received = self._received[received_by, one.method]
        if one.method in ("CANCEL", "BYE"):
            return _last(received, lambda _: True)
        if one.tags[1] is None:
            return _last(received, lambda each: each.tags[1] is None)
        first = next(iter(self._open[received_by, one.method].values()), None)
        return first or self._of_challenged(one)

    def _of_challenged(self, one: JoinedMessage) -> JoinedMessage | None:
        """The source of the request before, if it is sent again with credentials."""
        asked = _last(self._sent[one.lane, one.method], lambda _: True)
        if asked is None or not any(each.status in (401, 407) for each in self._answers[asked.transaction]):
            return None
        return self._source(asked)

    def _of_ack(self, ack: JoinedMessage) -> JoinedMessage | None:
        """The ACK to a 2xx is that of the INVITE's source; one to a refusal is the relay's own."""
        invite = _last(self._sent[ack.lane, "INVITE"], lambda each: each.cseq == ack.cseq)
        source = None if invite is None else self._source(invite)
        if source is None or invite is None or ack.branch == invite.branch:
            return None
        place = (source.lane, source.cseq)
        return _last(self._received[source.side, "ACK"], lambda each: (each.lane, each.cseq) == place)

    def _of_response(self, one: JoinedMessage) -> JoinedMessage | None:
        """100 and the answers to CANCEL are the relay's own."""
        asked = self._requests.get(one.transaction)
        if asked is None or one.status == 100 or one.method == "CANCEL":
            return None
        made = self._made[asked.place]
        if one.status >= 300:
            return _last(self._answers[made[-1].transaction], lambda each: each.status >= 300) if made else None
        answers = sorted((each for request in made for each in self._answers[request.transaction]), key=_place)
        if one.status < 200:
            return _last(answers, lambda each: mask_provisional(each.status) == one.status)
        accepted = [each for each in answers if 200 <= each.status < 300]
        last = max((each.lane for each in accepted), default=0)
        return next((each for each in accepted if each.lane == last), None)


def _last(found: Sequence[JoinedMessage], fits: Callable[[JoinedMessage], bool]) -> JoinedMessage | None:
    return next(filter(fits, reversed(found)), None)


def _place(one: JoinedMessage) -> int:
    return one.place
