"""What is captured of calls under way: held, forgotten or written, in bounded memory; and the Call-ID of a message."""

from __future__ import annotations

import pytest

from relay.net.capture import ENDED, LINK, MARK, RECEIVED
from relay.net.held import ITEM_BYTES, MOST_CALL_BYTES, QUIET_S, HeldCalls, Item, own_call_id, sip_call_id
from relay.sip.message import parse_message


class Bench:
    """Held calls, and what they wrote: of each item its kind and text."""

    def __init__(self, most_bytes: int = 1_000_000, most: int = 10_000) -> None:
        self.written: list[tuple[int, object]] = []
        self.at = 1_000.0
        self.calls = HeldCalls(self._write, most_bytes, most, most)

    def _write(self, item: Item) -> None:
        self.written.append((item[0], item[3] if item[0] == RECEIVED else item[2]))

    def message(self, key: str, text: bytes = b"INVITE") -> None:
        self.calls.message((RECEIVED, self.at, None, text, key.encode()), key.encode())

    def link(self, call_id: str, key: str, peer: str = "carrier") -> None:
        self.calls.link((LINK, self.at, call_id, None, None), call_id, key.encode(), peer)

    def begin(self, call_id: str, text: bytes = b"INVITE", peer: str = "carrier") -> None:
        self.message(f"{call_id}@a", text)
        self.link(call_id, f"{call_id}@a", peer)

    def step(self, call_id: str, step: str) -> None:
        self.calls.step((MARK, self.at, f"{call_id} {step}", None, None), call_id)

    def end(self, call_id: str) -> None:
        self.calls.end((ENDED, self.at, call_id, None, None), call_id)


def test_nothing_of_a_good_call_is_written() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.link("c1", "c1@b")
    bench.message("c1@b", b"200")
    bench.step("c1", "commit")
    assert bench.calls.bytes > 0 and len(bench.calls) == 1
    assert bench.calls.forget("c1")
    bench.message("c1@a", b"BYE again")
    bench.step("c1", "committed")
    assert bench.written == [] and bench.calls.bytes == 0 and len(bench.calls) == 0


def test_a_failed_call_is_written_whole_and_in_order_with_what_follows() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.step("c1", "look_up")
    bench.link("c1", "c1@b")
    bench.message("c1@b", b"486")
    bench.end("c1")
    bench.step("c1", "committed")
    bench.message("c1@a", b"ACK")
    assert bench.written == [
        *((LINK, "c1"), (RECEIVED, b"INVITE"), (MARK, "c1 look_up"), (LINK, "c1"), (RECEIVED, b"486")),
        *((ENDED, "c1"), (MARK, "c1 committed"), (RECEIVED, b"ACK")),
    ]
    assert bench.calls.bytes == 0


def test_what_follows_is_written_until_it_is_quiet() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.end("c1")
    bench.at += QUIET_S
    bench.message("c1@a", b"again")
    bench.at += QUIET_S
    bench.begin("c2")
    bench.end("c2")
    bench.message("c1@a", b"still")
    bench.at += QUIET_S + 1
    bench.begin("c3")
    bench.end("c3")
    before = len(bench.written)
    bench.message("c1@a", b"late")
    assert len(bench.written) == before
    assert (RECEIVED, b"again") in bench.written and (RECEIVED, b"still") in bench.written


def test_a_call_that_is_looked_at_is_written_then_and_to_its_end() -> None:
    bench = Bench()
    bench.begin("c1")
    assert bench.calls.give("c1") and not bench.calls.give("c2")
    assert bench.written == [(LINK, "c1"), (RECEIVED, b"INVITE")]
    bench.link("c1", "c1@b")
    bench.message("c1@b", b"200")
    assert not bench.calls.forget("c1")  # a part is written: its end is, too
    bench.end("c1")
    assert bench.written[2:] == [(LINK, "c1"), (RECEIVED, b"200"), (ENDED, "c1")]


def test_two_calls_with_one_call_id_are_written_for_the_reader_to_tell_apart() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.message("c1@a", b"another INVITE")
    bench.link("c2", "c1@a")
    bench.message("c1@a", b"180")
    assert [text for _, text in bench.written] == ["c1", b"INVITE", b"another INVITE", "c2", b"180"]


def test_what_one_of_two_calls_with_one_call_id_leaves_goes_to_the_other() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.link("c2", "c1@a")
    bench.end("c2")
    bench.at += 2 * QUIET_S
    bench.begin("c3")
    bench.end("c3")
    bench.written.clear()
    bench.message("c1@a", b"of c1")
    bench.end("c1")
    assert bench.written == [(RECEIVED, b"of c1"), (ENDED, "c1")]


def test_a_registration_with_the_call_id_of_a_call_takes_nothing_from_it() -> None:
    bench = Bench()
    bench.begin("c1")
    bench.message("c1@a", b"REGISTER")
    bench.calls.register((LINK, bench.at, "register:phone", None, None), "register:phone", b"c1@a", "phone")
    bench.message("c1@a", b"BYE")
    bench.end("c1")
    texts = [text for _, text in bench.written]
    assert texts == ["c1", b"INVITE", b"REGISTER", "register:phone", b"BYE", "c1"]


def test_registrations_are_written_as_they_come() -> None:
    bench = Bench()
    bench.message("r@a", b"REGISTER")
    bench.calls.register((LINK, bench.at, "register:phone", None, None), "register:phone", b"r@a", "phone")
    bench.message("r@a", b"401")
    assert [text for _, text in bench.written] == ["register:phone", b"REGISTER", b"401"]


def test_answered_calls_go_first_then_the_oldest_of_the_peer_with_most() -> None:
    size = ITEM_BYTES * 2 + 1_000  # of a call with one message
    bench = Bench(4 * size)
    bench.begin("mine", b"x" * 1_000, "mine")
    for number in range(3):
        bench.begin(f"c{number}", b"x" * 1_000)
    bench.calls.answered("c1")
    bench.begin("c3", b"x" * 1_000)
    assert bench.calls.given_up == 2  # c1's dialog and message
    bench.begin("c4", b"x" * 1_000)
    bench.end("c0")
    bench.end("c1")
    assert bench.written == []
    bench.end("mine")
    assert [kind for kind, _ in bench.written] == [LINK, RECEIVED, ENDED]


def test_a_peer_whose_calls_ring_takes_nothing_from_the_answered_calls_of_another() -> None:
    size = ITEM_BYTES * 2 + 1_000
    bench = Bench(20 * size)
    for number in range(5):
        bench.begin(f"good{number}", b"x" * 1_000, "good")
        bench.calls.answered(f"good{number}")
    for number in range(100):
        bench.begin(f"evil{number}", b"x" * 1_000, "evil")
    for number in range(5):
        bench.end(f"good{number}")
    assert [kind for kind, _ in bench.written] == [LINK, RECEIVED, ENDED] * 5


def test_a_call_that_somebody_looked_at_is_not_given_up() -> None:
    size = ITEM_BYTES * 2 + 1_000
    bench = Bench(3 * size)
    bench.begin("seen", b"x" * 1_000)
    bench.calls.answered("seen")
    bench.calls.give("seen")
    for number in range(20):
        bench.begin(f"c{number}", b"x" * 1_000)
    bench.written.clear()
    bench.message("seen@a", b"BYE")
    bench.end("seen")
    assert bench.written == [(RECEIVED, b"BYE"), (ENDED, "seen")]
    assert bench.calls.bytes <= 3 * size


def test_one_call_cannot_take_the_memory_of_all() -> None:
    bench = Bench(10 * MOST_CALL_BYTES)
    bench.begin("c1")
    for _ in range(30):
        bench.message("c1@a", b"x" * 50_000)
    assert bench.calls.bytes <= MOST_CALL_BYTES and bench.calls.given_up > 0


def test_calls_whose_end_is_never_told_take_bounded_memory() -> None:
    bench = Bench(most=10)
    for number in range(30):
        bench.begin(f"c{number}")
    assert len(bench.calls) == 10
    for number in range(100, 130):
        bench.begin(f"c{number}")
        bench.end(f"c{number}")
    bench.written.clear()
    bench.message("c100@a", b"late")
    bench.message("c129@a", b"late")
    assert bench.written == [(RECEIVED, b"late")]


# -- The Call-ID of a message


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"INVITE sip:x SIP/2.0\r\nVia: y\r\n\r\nCall-ID: z", b"\xff" * 50])
def test_a_message_without_call_id_has_none(data: bytes) -> None:
    assert sip_call_id(data) == b""


@pytest.mark.parametrize(
    ("before", "line"),
    [
        (b"", b"Call-ID: a@b"),
        (b"", b"Call-ID:  a@b \t"),
        (b"", b"i:a@b \t"),
        (b"", b"CALL-ID \t:\r\n\t a@b"),
        (b"", b"Call-ID: \r\n a@b"),
        (b"\r\n\r\n", b"Call-ID: a@b"),
    ],
)
def test_a_peer_cannot_hide_its_call_id_from_the_capture(before: bytes, line: bytes) -> None:
    data = before + b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP y;branch=z9hG4bK1\r\n" + line + b"\r\n\r\n"
    assert sip_call_id(data) == b"a@b"
    assert parse_message(data).values("call-id") == ["a@b"]


@pytest.mark.parametrize("call_id", [b"a@b", b"a@b \t", b""])
def test_the_call_id_of_a_message_of_the_relay_is_found_faster(call_id: bytes) -> None:
    data = b"SIP/2.0 200 OK\r\nVia: y\r\nCall-ID: " + call_id + b"\r\nCSeq: 1 INVITE\r\n\r\n"
    assert own_call_id(data) == sip_call_id(data) == call_id.strip()
    assert own_call_id(b"\r\n") == b""


@pytest.mark.parametrize("first", [b"i: x", b"I: x", b"call-id: x", b"CALL-ID : x", b"Via: y\r\nCall-Id:x"])
def test_the_first_call_id_of_several_counts(first: bytes) -> None:
    assert sip_call_id(b"OPTIONS sip:x SIP/2.0\r\n" + first + b"\r\nCall-ID: a@b\r\n\r\n") == b"x"
