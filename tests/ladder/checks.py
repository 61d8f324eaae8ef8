"""Invariants of all messages sent by the relay, checked on each message in every test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from relay.call.engine import Engine
from relay.errors import ParseError
from relay.model.call import CallRecord
from relay.sip.message import Flow, Request, Response, parse_message


def check_prescan(engine: Engine, data: bytes) -> None:
    """Check that a message of a call is never dropped as part of a flood, in any spelling."""
    dialogs, transactions = engine._dialogs, engine._ua.transactions
    try:
        message = parse_message(data)
        if isinstance(message, Request):
            belongs = dialogs.leg_of(message) is not None or transactions.find_server(message) is not None
        else:
            belongs = transactions.is_awaited(message.cseq.method, message.branch)
    except ParseError:
        return
    assert not belongs or dialogs.may_belong(data), data.decode(errors="replace")


class Checks:
    """Checks of the wire and the records. A violation raises AssertionError with the message."""

    def __init__(self, *, messages: bool = False) -> None:
        """`messages`: MESSAGE is relayed and leaves a record."""
        self._recorded = ("INVITE", "MESSAGE") if messages else ("INVITE",)
        self.sent: list[tuple[bytes, Flow]] = []
        self.restarted = False
        self._initial: dict[str, str] = {}  # branch -> Call-ID of received initial INVITEs and MESSAGEs
        self._provisional: set[str] = set()  # branches that got a 100
        self._answered: dict[str, int] = {}  # branch -> first final status
        self._requests: dict[tuple[str, str | None, str | None], dict[str, int]] = {}  # dialog -> branch -> our CSeq
        self._last_cseq: dict[tuple[str, str | None, str | None], int] = {}
        self._described: set[bytes] = set()  # messages with SDP
        self._descriptions: dict[tuple[str, str, str], tuple[int, bytes]] = {}  # session -> version, content

    # -- received messages

    def note_delivered(self, data: bytes) -> None:
        try:
            message = parse_message(data)
            if isinstance(message, Request) and message.method in self._recorded and message.to_tag is None:
                message.via, message.from_tag, message.cseq  # noqa: B018 - without these there is no attempt
                self._initial.setdefault(message.branch, message.call_id)
        except ParseError:
            pass

    # -- sent messages

    def check_sent(self, data: bytes, flow: Flow, records: Iterable[CallRecord]) -> None:
        self.sent.append((data, flow))
        message = parse_message(data)
        assert message.get("content-length") == str(len(message.body)), data.decode()
        if isinstance(message, Response):
            self._check_response(message, records)
        else:
            self._check_request(message)
        # A retransmission (RFC 3261 17.1.2) may follow messages of another early dialog.
        if message.get("content-type") == "application/sdp" and data not in self._described:
            self._described.add(data)
            self._check_description(message, flow)

    def _check_response(self, response: Response, records: Iterable[CallRecord]) -> None:
        branch, status, method = response.branch, response.status, response.cseq.method
        if status == 401:  # a challenge, which does not answer an attempt
            return
        if status == 482 and not response.has("reason"):  # merged: the attempt is answered on its first path
            return
        if status == 503 and response.get("retry-after") == "1" and not response.has("reason"):  # shed
            return
        if branch in self._initial and method in self._recorded:
            assert status >= 300 or status == 100 or branch in self._provisional or method == "MESSAGE", (
                f"{status} before 100"
            )
            self._provisional.add(branch)
            if status >= 200:
                first = self._answered.setdefault(branch, status)
                assert first == status or self.restarted, f"{status} after {first} to one {method}"
                assert any(
                    record.caller_leg_call_id == response.call_id and _tells(record, status) for record in records
                ), f"{status} before its record was committed"
        if method == "BYE" and status == 200:
            assert any(
                response.call_id in (record.caller_leg_call_id, record.callee_leg_call_id) and record.ended_at
                for record in records
            ), "200 to BYE before its record was committed"

    def _check_request(self, request: Request) -> None:
        """CSeqs increase within a dialog (RFC 3261 12.2.1.1); ACK and CANCEL have that of their INVITE."""
        assert request.branch.startswith("z9hG4bK")
        number, method = request.cseq
        opening = self._requests.setdefault((request.call_id, request.from_tag, None), {})
        known = self._requests.setdefault((request.call_id, request.from_tag, request.to_tag), opening.copy())
        numbers = {*opening.values(), *known.values()}  # a challenged INVITE was repeated since
        if method in ("ACK", "CANCEL"):
            assert number in numbers or self.restarted, f"{method} with a CSeq of no request"
            return
        if request.branch not in known:
            assert all(number > other for other in numbers), f"CSeq {number} after {numbers}"
        assert known.setdefault(request.branch, number) == number

    def _check_description(self, message: Request | Response, flow: Flow) -> None:
        """RFC 3264 8: the version increases with each change of the SDP, and only then. A challenged INVITE is repeated
        unchanged."""
        origin = next(line for line in message.body.split(b"\r\n") if line.startswith(b"o="))
        _, session, version, *_ = origin.decode().split(" ")
        content = message.body.replace(origin, b"")
        if isinstance(message, Request) and message.to_tag is None:
            self._descriptions.pop((flow.host, message.call_id, session), None)
        last, before = self._descriptions.setdefault((flow.host, message.call_id, session), (int(version), content))
        grown = int(version) - last
        assert grown == (content != before) or self.restarted, f"o= version {version} after {last}"
        self._descriptions[flow.host, message.call_id, session] = (int(version), content)

    # -- at the end

    def check_records(self, records: Iterable[CallRecord]) -> None:
        """Check that each attempt answered to its caller has one closed record, over all restarts, and no others."""
        records = list(records)
        assert all(record.ended_at is not None for record in records), "a record is open"
        assert all(record.outcome and record.ended_by and record.end_reason for record in records)
        counted = Counter(record.caller_leg_call_id for record in records)
        expected = Counter(self._initial[branch] for branch in self._provisional)
        if self.restarted:  # a retransmission after a restart may be a new attempt
            assert not expected - counted, f"not recorded: {expected - counted}"
        else:
            assert counted == expected, f"records {counted}, attempts {expected}"


def _tells(record: CallRecord, status: int) -> bool:
    if status == 200 and record.kind == "call":
        return record.answered_at is not None
    return record.ended_at is not None and record.sip_status == status
