"""A ladder whose two sides stuff all they send with their marks, and which looks at every byte the relay sends."""

from __future__ import annotations

from relay.model.call import Refusal, Route
from relay.privacy.canary import Marks, insert_marks
from relay.sip.message import Flow
from relay.trace.ladder import build_ladder, operator_view
from relay.trace.ladder_text import ladder_text
from tests.canary.marks import ALICE, BOB
from tests.ladder.ladder import Ladder
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST
from tests.ladder.side import Side


class CanaryLadder(Ladder):
    """`turn` is how header lines are written (see `insert_marks`); `multipart` wraps descriptions among other parts."""

    def __init__(
        self,
        turn: int = 0,
        *,
        multipart: bool = False,
        routes: dict[tuple[str, str], Route | Refusal] | None = None,
        **settings: object,
    ) -> None:
        self.stuffing = True
        self._looked_at = 0  # number of messages in the last masked ladder
        self.turn = turn
        self.multipart = multipart
        self.marks = {CALLER_HOST: ALICE, CALLEE_HOST: BOB}
        super().__init__(routes, **settings)  # type: ignore[arg-type]

    def side(self, host: str, name: str) -> Side:
        side = self.sides[host] = Stuffed(self, host, self.marks.setdefault(host, BOB))
        return side

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.turn += 1
        if self.stuffing:
            data = insert_marks(data, self.marks[flow.host], self.turn, multipart=self.multipart)
        super().deliver(data, flow)

    def check_privacy(self) -> None:
        """No mark of one side in what went to the other, nor in what is logged; nothing went anywhere else."""
        for data, flow in self.checks.sent:
            assert flow.host in self.marks, f"sent to {flow}:\n{data.decode('utf-8', 'replace')}"
            own = self.marks[flow.host].word
            for other in self.marks.values():
                found = other.found_in(data) if other.word != own else None
                assert not found, f"{found} reached {flow.host}:\n{data.decode('utf-8', 'replace')}"
        for note in self.notes:
            log = f"{note.event} {note.fields}".replace(CALLER_HOST, "").replace(CALLEE_HOST, "").encode()
            assert not ALICE.found_in(log) + BOB.found_in(log), f"in a note: {note}"
        if self._looked_at != len(self.messages):
            self._looked_at = len(self.messages)
            check_masked_ladder(self)


def check_masked_ladder(ladder: Ladder) -> None:
    """No mark in what the ladder of the captured messages shows masked."""
    call = ladder.captured()
    record = ladder.records[call.call_id][0] if call.call_id in ladder.records else None
    shown = build_ladder(call, record, operator_view(reveal=False))
    lines = {line for row in shown.rows for line in row.data.split(b"\r\n")}
    lines |= {line.encode() for line in ladder_text(shown)}
    text = b"\n".join(sorted(lines))  # each once: most are in every message
    assert not ALICE.found_in(text) + BOB.found_in(text), text.decode()
    for row in shown.rows:
        if row.made_from is not None:
            source = shown.rows[row.made_from]
            assert (row.sent, source.sent, source.at_us <= row.at_us) == (True, False, True)
            assert shown.lanes[source.lane].side != shown.lanes[row.lane].side
        else:  # INFO and UPDATE are never the relay's own
            assert not row.sent or row.what not in ("INFO", "UPDATE")


class Stuffed(Side):
    """A side whose own identifiers are marks too: Call-ID, tags, branches, sequence numbers, Contact."""

    def __init__(self, ladder: Ladder, host: str, marks: Marks) -> None:
        super().__init__(ladder, host, marks.word)
        self.call_id = f"{marks.word}-{marks.friend}@{marks.inner}"
        self.tag = f"{marks.word}.{marks.friend}"
        self.cseq = marks.cseq
        self.contact = f"<sip:{marks.friend}@{host}:5060>"
