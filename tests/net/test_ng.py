"""rtpengine commands and answers as JSON and bencode: round trips, and refusal of invalid input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.ng import MOST_DEEP, decode, decode_bencode, encode, encode_bencode

VALUES = st.recursive(
    st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES)
def test_encoded_values_decode_to_themselves(value: object) -> None:
    assert decode_bencode(encode_bencode(value)) == value  # type: ignore[arg-type]


def test_bytes_are_encoded_unchanged() -> None:
    assert encode_bencode({"blob": b"\x00\xff", "n": -1, "l": ["a"]}) == b"d4:blob2:\x00\xff1:ni-1e1:ll1:aee"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i1",
        b"ie",
        b"1:",
        b"-1:a",
        b"5:ab",
        b"l1:a",
        b"d1:ae",
        b"x",
        b"i1ei2e",
        b"l" * (MOST_DEEP + 2),
        b"dle1:ae",
    ],
)
def test_invalid_bencode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_bencode(data)


@given(st.binary(max_size=60))
def test_only_value_errors_are_raised(data: bytes) -> None:
    try:
        value = decode_bencode(data)
    except ValueError:
        return
    assert isinstance(value, dict | list | str | int)


# -- Commands and answers


def test_only_a_command_with_a_sound_is_bencoded() -> None:
    assert encode({"command": "ping"}) == b'{"command":"ping"}'
    assert encode({"command": "play media", "blob": b"RIFF"}) == b"d7:command10:play media4:blob4:RIFFe"


def test_an_answer_reads_alike_in_both_encodings() -> None:
    assert decode(b"d6:result2:ok8:durationi7100ee") == decode(b'{"result": "ok", "duration": 7100}')


@pytest.mark.parametrize("data", [b"d6:result", b"{", b'{"sdp": "v=0"}', b"de"])
def test_an_unreadable_answer_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def test_packets_are_counted_by_side_and_loss_by_the_other_side_s_report() -> None:
    stream = '{"flags": ["RTP"], "stats": {"packets": %d}, "ingress SSRCs": [{"SSRC": %d}]}'
    tags = ", ".join(
        f'"{name}": {{"medias": [{{"streams": [{stream % (packets, ssrc)}]}}]}}'
        for name, packets, ssrc in (("a", 100, 1), ("b", 90, 2))
    )
    reports = '"2": {"cumulative loss": 3, "average MOS": {"jitter": 30, "samples": 10}}'
    answer = decode(f'{{"result": "ok", "tags": {{{tags}}}, "SSRC": {{{reports}}}}}'.encode())
    assert dict(answer.counts()) == {"a": (100, 3, 30), "b": (90, None, None)}
