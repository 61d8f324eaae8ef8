"""The engine on any input: nothing is raised, and the counters tell what it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.engine import LONGEST_CALL_ID, MALFORMED_PER_S, Engine
from relay.defence.limits import SHARE
from relay.model.actions import LookUp, Note, Send
from relay.model.call import Refusal
from relay.sip.message import Flow
from tests.call.support import FLOW, Parts, invite, settings

STRANGER = Flow(0, "udp", "198.51.100.1", 5060)
INVITE = invite().serialize()


def engine() -> Engine:
    made = Engine(settings(), Parts().token, 0.0)
    made.clock_offset_s = 1000.0
    return made


def sent(made: Engine) -> list[bytes]:
    return [action.data for action in made.take_actions() if isinstance(action, Send)]


@given(st.binary(max_size=200) | st.tuples(st.sampled_from([b"INVITE ", b"SIP/2.0 200 "]), st.binary()).map(b"".join))
def test_arbitrary_bytes_do_not_raise(data: bytes) -> None:
    made = engine()
    for flow in (FLOW, STRANGER):
        made.receive(data, flow, 1.0)
    made.expire(2.0)
    assert made.statistics()["transactions"] == 0


def test_the_call_id_of_a_message_is_told_once_it_is_parsed() -> None:
    made = engine()
    call_id = invite().get("call-id")
    assert made.receive(INVITE, FLOW, 1.0) == call_id
    assert made.receive(INVITE, STRANGER, 1.0) == call_id
    assert made.receive(b"SIP/2.0 200 OK\r\ni: \xff b\r\n\r\n", FLOW, 1.0) == "\udcff b"
    assert made.receive(INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards 70"), FLOW, 1.0) == ""
    asked = [made.receive(invite(method="OPTIONS").serialize(), FLOW, 1.0) for _ in range(1_000)]
    assert (asked[0], asked[-1]) == (call_id, "")  # more than a peer may ask is not parsed


def test_malformed_messages_of_a_peer_are_logged_within_a_rate_that_counts_the_others() -> None:
    """They may come by the thousand, from a faulty device or a forged source, and fill the disk."""
    made = engine()

    def noted() -> list[object]:
        notes = [action for action in made.take_actions() if isinstance(action, Note)]
        return [note.fields["left_out"] for note in notes if note.event == "message.malformed"]

    for _ in range(5_000):
        made.receive(b"SIP/2.0 200 OK\r\n\r\n", FLOW, 1.0)
    assert noted() == [0] * MALFORMED_PER_S
    for _ in range(2):
        made.receive(b"SIP/2.0 200 OK\r\n\r\n", FLOW, 2.0)
    assert noted() == [5_000 - MALFORMED_PER_S, 0]


@given(st.integers(0, len(INVITE) - 1), st.binary(max_size=4), st.integers(0, 6))
def test_any_damage_to_an_invite_does_not_raise(place: int, put: bytes, cut: int) -> None:
    made = engine()
    made.receive(INVITE[:place] + put + INVITE[place + cut :], FLOW, 1.0)
    for data in sent(made):
        assert data.startswith(b"SIP/2.0 ")


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"\r\n", b"\x00" * 100, b"INVITE", b"SIP/2.0 200 OK\r\n\r\n"])
def test_noise_is_counted_and_dropped(data: bytes) -> None:
    made = engine()
    made.receive(data, FLOW, 1.0)
    assert sent(made) == []
    assert made.statistics().get("malformed", 0) + made.statistics().get("responses_stray", 0) >= 1


def test_malformed_request_of_a_peer_is_400_if_its_via_is_usable() -> None:
    made = engine()
    data = INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards 70")
    made.receive(data, FLOW, 1.0)
    (answer,) = sent(made)
    assert answer.startswith(b"SIP/2.0 400 Bad Request\r\n")
    assert made.statistics()["transactions"] == 0
    assert made.statistics()["calls_setting_up"] == 0


@pytest.mark.parametrize("excess", [0, 1])
def test_new_request_with_a_call_id_longer_than_256_is_400_without_a_record(excess: int) -> None:
    made = engine()
    call_id = b"Call-ID: " + b"x" * (LONGEST_CALL_ID + excess)
    made.receive(re.sub(rb"Call-ID: [^\r]+", call_id, INVITE), FLOW, 1.0)
    actions = made.take_actions()
    answers = [action.data[:11] for action in actions if isinstance(action, Send)]
    assert (answers, len([action for action in actions if isinstance(action, LookUp)])) == (
        ([b"SIP/2.0 400"], 0) if excess else ([], 1)
    )


def test_malformed_request_of_an_unknown_source_is_not_answered() -> None:
    made = engine()
    made.receive(INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards 70"), STRANGER, 1.0)
    (note,) = made.take_actions()
    assert isinstance(note, Note)
    assert note.event == "message.malformed"


def test_garbage_from_unknown_sources_is_logged_within_a_limit() -> None:
    made = engine()
    allowed = made.settings.limits.stranger_answers_per_s // SHARE
    for _ in range(allowed + 5):
        made.receive(b"INVITE garbage", STRANGER, 1.0)
    assert len(made.take_actions()) == allowed
    made.receive(b"INVITE garbage", FLOW, 1.0)  # a peer's is logged nevertheless
    assert [note.event for note in made.take_actions() if isinstance(note, Note)] == ["message.malformed"]
    assert made.statistics()["malformed"] == allowed + 6


@pytest.mark.parametrize("missing", [b"From", b"CSeq", b"Call-ID", b"To", b"Via"])
@pytest.mark.parametrize("flow", [FLOW, STRANGER])
def test_request_without_a_header_to_copy_leaves_no_state(missing: bytes, flow: Flow) -> None:
    made = engine()
    data = b"\r\n".join(line for line in INVITE.split(b"\r\n") if not line.startswith(missing + b":"))
    made.receive(data, flow, 1.0)
    for answer in sent(made):
        assert b"None" not in answer
    assert made.statistics()["calls_setting_up"] == 0
    assert made.statistics()["transactions"] == 0


def test_late_answers_of_the_store_are_ignored() -> None:
    made = engine()
    made.routed(77, Refusal("no_binding", 403, 21), 1.0)
    made.committed(77, 1.0)
    assert made.take_actions() == []


def test_failure_of_an_unused_flow_has_no_effect() -> None:
    made = engine()
    made.transport_failed(FLOW, 1.0)
    made.expire(1.0)
    assert (made.take_actions(), made.next_timeout()) == ([], None)


def test_stray_responses_are_counted() -> None:
    made = engine()
    answer = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n"
    made.receive(f"{answer}To: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\r\n".encode(), FLOW, 1.0)
    assert (sent(made), made.statistics()["responses_stray"]) == ([], 1)


def test_statistics_count_every_table() -> None:
    assert engine().statistics().keys() >= {
        "calls_up",
        "calls_setting_up",
        "attempts",
        "legs",
        "transactions",
        "timers",
        "pending_lookups",
        "pending_commits",
        "calling_tags",
    }


def test_hang_up_of_an_unknown_call_is_false() -> None:
    made = engine()
    made.hang_up_all(1.0)
    assert made.take_actions() == []
