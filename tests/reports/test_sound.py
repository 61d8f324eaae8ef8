"""Sound of RTP payloads."""

from __future__ import annotations

import struct
from array import array

import pytest

from relay.errors import Refused
from relay.reports import sound as module
from relay.reports.sound import amr_frames, check_codecs, codec_of, make_decoder


def test_g711_is_expanded_as_in_its_tables() -> None:
    """ITU-T G.711, tables 1 and 2: the ends and the middle of both laws, in 16 bits."""
    said = {
        "pcma": {0xAA: 32_256, 0x2A: -32_256, 0xD5: 8, 0x55: -8, 0x80: 5_504},
        "pcmu": {0x80: 32_124, 0x00: -32_124, 0xFF: 0, 0x7F: 0, 0x8F: 16_764},
    }
    for name, samples in said.items():
        decoded = array("h", make_decoder(name, 8_000).decode(bytes(samples)))
        assert list(decoded) == list(samples.values())


def test_g711_beside_a_wide_codec_has_its_rate() -> None:
    decoder = make_decoder("pcma", 16_000)
    made = b"".join(decoder.decode(b"\xaa" * 160) for _ in range(10))
    samples = struct.unpack(f"<{len(made) // 2}h", made)
    assert 3_150 < len(samples) <= 3_200
    assert min(samples[100:-100]) > 30_000


def test_events_are_no_speech() -> None:
    assert codec_of("telephone-event") is None
    assert codec_of("cn") is None
    assert codec_of("amr/octet-align") == codec_of("amr") is not None


def test_a_missing_extra_is_named_once_for_each_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    check_codecs({"pcma", "pcmu"})
    with pytest.raises(Refused, match=r"format: wav of amr, opus needs the extra relay700\[wav\]"):
        check_codecs(["amr/octet-align", "amr", "opus", "pcma"])


def test_wideband_amr_is_taken_apart() -> None:
    """RFC 4867 4.3 and 4.4: two frames of mode 0 (132 bits), and comfort noise, which is silence."""
    speech_bits = [(1 << 132) - 1 - n for n in (1, 2)]
    frames = [b"\x04" + (each << 4).to_bytes(17) for each in speech_bits]
    aligned = (
        b"\xf0" + b"\x84\xcc\x04" + (speech_bits[0] << 4).to_bytes(17) + bytes(5) + (speech_bits[1] << 4).to_bytes(17)
    )
    assert amr_frames(aligned, True, True) == frames
    bits = (15 << 12 | 0b100001 << 6 | 0b000001) << 264 | speech_bits[0] << 132 | speech_bits[1]
    assert amr_frames(bits.to_bytes(35), True, False) == frames
    assert amr_frames(aligned[:10], True, True) == []
