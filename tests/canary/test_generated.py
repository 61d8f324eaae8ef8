"""Headers, descriptions and digits that nobody thought of: whatever they are, no mark crosses."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.model.call import CallRecord
from relay.privacy.canary import Marks
from relay.privacy.canary_lines import ATTRIBUTES, HEADERS, PARTLY
from relay.sip.message import Flow, parse_message
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.checks import Checks
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.settings import X

SCENES = settings(max_examples=100)

_ALL = [line.partition(":")[0] for line in (HEADERS + PARTLY).split("\n")]
NAMES = sorted({name for name in _ALL if name and "{" not in name})
NAMES += "Via From To Contact Call-ID CSeq Content-Type Content-Length Max-Forwards Require RSeq RAck".split()
NAMES += "v f t i m c l".split()
TOKENS = st.text("abcXYZ019-.!%*_+`'~", min_size=1, max_size=12)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)
PIECES = """; = , < > " ' @ : / ? & | 100rel timer INVITE 1800 Q.850;cause=16 refresher=uac sip: tel: boundary lr
application/sdp""".split()
names = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES).map(str.swapcase), TOKENS)
blanks = st.sampled_from(["", " ", "\t", " \t "])


def marked(marks: Marks) -> st.SearchStrategy[str]:
    """Text with a mark in it, among pieces of what does pass."""
    mark = st.sampled_from([marks.word, marks.host, marks.inner, marks.inner6, marks.cell, *marks.notations()])
    piece = st.one_of(st.sampled_from(PIECES), TEXT)
    return st.tuples(st.lists(piece, max_size=3), mark, st.lists(piece, max_size=3)).map(
        lambda parts: "".join((*parts[0], parts[1], *parts[2]))
    )


def lines(marks: Marks) -> st.SearchStrategy[str]:
    line = st.tuples(names, blanks, st.sampled_from(["", " ", "\r\n "]), marked(marks)).map(
        lambda parts: f"{parts[0]}{parts[1]}:{parts[2]}{parts[3]}\r\n"
    )
    return st.lists(line, min_size=1, max_size=8).map("".join)


def quiet(ladder: CanaryLadder) -> None:
    """The clean messages of the harness, but for what a test adds; what identifies the sides is still a mark."""
    ladder.stuffing = False
    ladder.checks = Recording()


class Recording(Checks):
    """Keeps what is sent. Whether a message that is half malformed is answered by the book is other tests' question."""

    def note_delivered(self, data: bytes) -> None:
        pass

    def check_sent(self, data: bytes, flow: Flow, records: Iterable[CallRecord]) -> None:
        self.sent.append((data, flow))


def play(ladder: CanaryLadder, caller: str, callee: str, offer: bytes = OFFER, answer: bytes = ANSWER) -> None:
    """A call as far as it comes: what is malformed is refused, and refusals are looked at too."""
    ladder.caller.invites(X, headers=caller, body=offer)
    invite = next((data for data, flow in ladder.checks.sent if flow.host == ladder.callee.host), None)
    if invite is not None:
        ladder.callee.get("INVITE")
        for status in (183, 200):
            ladder.callee.answers(status, headers=callee, body=answer)
        for side in (ladder.caller, ladder.callee):
            for method, body, kind in (("INFO", offer, "application/dtmf-relay"), ("UPDATE", offer, "application/sdp")):
                learn(ladder)
                side.sends(method, body=body, content_type=kind, headers=caller if side is ladder.caller else callee)
        ladder.callee.sends("BYE", headers=callee)
    ladder.run(40)
    ladder.check_privacy()


def learn(ladder: CanaryLadder) -> None:
    """The caller takes the tag and target of the 200, if there was one."""
    for data, flow in ladder.checks.sent:
        if flow.host == ladder.caller.host and data.startswith(b"SIP/2.0 200"):
            ladder.caller._learn(parse_message(data))  # type: ignore[arg-type]


@SCENES
@given(lines(ALICE), lines(BOB))
def test_headers(caller: str, callee: str) -> None:
    ladder = CanaryLadder()
    quiet(ladder)
    play(ladder, caller, callee)


ATTRIBUTE_NAMES = sorted({line.partition(":")[0] for line in ATTRIBUTES.split() if "{" not in line.partition(":")[0]})
SDP_PIECES = """0-15 8 PCMA/8000 mode-set= maxptime= annexb=no ; , - 101 inline: |2^20 20 IN IP4 / =
AES_CM_128_HMAC_SHA1_80""".split()


def descriptions(marks: Marks) -> st.SearchStrategy[bytes]:
    piece = st.one_of(st.sampled_from(SDP_PIECES), TEXT)
    mark = st.sampled_from([*marks.notations(), marks.word])
    value = st.one_of(marked(marks), st.tuples(piece, st.sampled_from(["", " "]), mark, piece).map("".join))
    name = st.one_of(st.sampled_from(ATTRIBUTE_NAMES), TOKENS)
    attribute = st.tuples(name, value).map(lambda pair: f"a={pair[0]}:{pair[1]}")
    other = st.tuples(st.sampled_from(list("biuepkrzstocmx")), value).map("=".join)
    media = value.map(lambda text: f"m=audio 4000 RTP/AVP 8 {text}")
    return st.lists(st.one_of(attribute, attribute, other, media), max_size=6).map(
        lambda added: "".join(f"{line}\r\n" for line in added).encode("utf-8", "surrogatepass")
    )


@SCENES
@given(descriptions(ALICE), descriptions(BOB))
def test_descriptions(caller: bytes, callee: bytes) -> None:
    ladder = CanaryLadder()
    quiet(ladder)
    play(ladder, "", "", OFFER + caller, ANSWER + callee)
