from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.interop.ladders import FLOWS
from tests.support.ladder import parse_ladder, scenario

REPEATED = {"request": "INVITE", "optional": "true"}


def steps_of(ladder: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(scenario("test", ladder)))


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_becomes_xml_with_one_step_per_line(name: str) -> None:
    for ladder in (FLOWS[name].caller, FLOWS[name].callee):
        elements = [step for step in steps_of(ladder) if step.tag != "Reference" and step.attrib != REPEATED]
        assert len(elements) == len(parse_ladder(ladder))


def test_an_invalid_line_is_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        parse_ladder("> INVITE\nINVITE")


def test_cancel_and_the_ack_to_a_refusal_have_the_branch_of_their_invite() -> None:
    sends = [step.text or "" for step in steps_of(FLOWS["cancel_while_ringing"].caller) if step.tag == "send"]
    assert [text.split()[0] for text in sends] == ["INVITE", "CANCEL", "ACK"]
    assert ["[branch-3]" in text for text in sends] == [False, True, False]
    assert "[branch-6]" in sends[2]


def test_each_invite_that_its_ack_follows_is_a_transaction_of_its_own() -> None:
    steps = steps_of("> INVITE\n< 100?\n< 200\n> ACK\n> INVITE\n< 200\n> ACK\n> BYE\n< 200")
    named = [[(name, value) for name, value in step.attrib.items() if name.endswith("_txn")] for step in steps]
    assert named == [
        *([("start_txn", "invite0")], [("response_txn", "invite0")], [("response_txn", "invite0")]),
        *([("ack_txn", "invite0")], [("start_txn", "invite4")], [("response_txn", "invite4")]),
        *([("ack_txn", "invite4")], [], []),
    ]


def test_invite_that_is_cancelled_has_no_named_transaction() -> None:
    steps = steps_of("> INVITE\n> CANCEL\n< 200\n< 487\n> ACK")
    assert not any(name.endswith("_txn") for step in steps for name in step.attrib)


def test_an_invite_may_be_repeated_after_two_responses() -> None:
    steps = steps_of("< INVITE\n> 180\n> 200\n< ACK\n< BYE\n> 200")
    assert [place for place, step in enumerate(steps) if step.attrib == REPEATED] == [3]
    assert not any(step.attrib == REPEATED for step in steps_of("< INVITE\n> 200\n< ACK"))


def test_requests_of_a_callee_swap_from_and_to() -> None:
    bye = [step.text or "" for step in steps_of(FLOWS["callee_hangs_up"].callee) if step.tag == "send"][-1]
    assert "From:[$to];tag=" in bye
    assert "To:[$from]" in bye


def test_header_lines_and_bodies_are_in_their_message() -> None:
    (send,) = steps_of("> INVITE sdp=sendonly\n    Require: 100rel")
    assert send.text is not None
    head, _, body = send.text.partition("\n\n")
    assert "Require: 100rel" in head
    assert "a=sendonly" in body


def test_a_pause_from_the_numbers_file_uses_its_variable() -> None:
    nop, pause = steps_of("pause [field2]")
    text, number = nop.findall("action/*")
    assert text.attrib["value"] == "[field2]"
    assert number.attrib["variable"] == text.attrib["assign_to"]
    assert pause.attrib["variable"] == number.attrib["assign_to"]


def test_an_alternative_last_message_ends_the_ladder() -> None:
    instead, usual, end = steps_of("> BYE\n< 481? last\n< 200")[1:]
    assert (instead.attrib["response"], instead.attrib["optional"]) == ("481", "true")
    assert "next" not in usual.attrib
    assert (end.tag, end.attrib["id"]) == ("label", instead.attrib["next"])
