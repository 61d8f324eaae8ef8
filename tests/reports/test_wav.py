"""Recordings as WAV files: who is heard on which channel, when, and what is not heard."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from relay.errors import Refused, StoreError
from relay.model.rtp_streams import RtpStream, note_packet
from relay.reports import sound as sound_module
from relay.reports import wav as module
from relay.reports.sound import make_decoder
from relay.reports.wav import survey_capture
from relay.store.recordings import Channels
from tests.support.recorded_rtp import (
    CALLEE_HOST,
    CALLEE_PORT,
    CALLER_HOST,
    CALLER_PORT,
    EVENT,
    STREAMS,
    Heard,
    Sent,
    a_law,
    capture_of,
    datagram,
    in_parts,
    recording_of,
    speech,
)
from tests.support.spool import HEAD, packet

TONE, OTHER = 440, 1300  # Hz
LEFT, RIGHT = 0, 1


def heard(sent: Sequence[Sent], channels: Channels = "stereo", streams: dict[int, RtpStream] = STREAMS) -> Heard:
    data = capture_of(*sent, streams=streams)
    wav = survey_capture(recording_of(data), in_parts(data), channels)
    made = b"".join(wav.parts(in_parts(data)))
    assert len(made) == wav.size
    return Heard(made)


def both(seconds: float = 3.0) -> list[Sent]:
    return [*speech(CALLER_PORT, a_law(TONE, seconds)), *speech(CALLEE_PORT, a_law(OTHER, seconds), ssrc=8)]


def test_the_caller_is_left_and_the_callee_right() -> None:
    wav = heard(both())
    assert (wav.rate, [len(each) for each in wav.channels]) == (8_000, [24_000, 24_000])
    for channel, own, others in ((LEFT, TONE, OTHER), (RIGHT, OTHER, TONE)):
        assert wav.share(channel, own) > 0.95
        assert wav.share(channel, others) < 0.01


def test_mono_has_both() -> None:
    wav = heard(both(), "mono")
    assert len(wav.channels) == 1
    assert 0.4 < wav.share(0, TONE) < 0.6
    assert 0.4 < wav.share(0, OTHER) < 0.6


@pytest.mark.parametrize(
    ("one", "other", "mean"), [(0xAA, 0xAA, 32_256), (0x2A, 0x2A, -32_256), (0xAA, 0x2A, 0), (0xAA, 0xD5, 16_132)]
)
def test_mono_is_the_mean_of_both_which_never_overflows(one: int, other: int, mean: int) -> None:
    sides = ((CALLER_PORT, one), (CALLEE_PORT, other))
    wav = heard([each for port, byte in sides for each in speech(port, [bytes([byte]) * 160] * 10, ssrc=port)], "mono")
    assert set(wav.channels[0]) == {mean}


def test_the_file_has_sound_and_nothing_else() -> None:
    data = heard(both()).data
    assert data[:44] == struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", len(data) - 8, b"WAVE", b"fmt ", 16, 1, 2, 8_000, 32_000, 4, 16, b"data",
        len(data) - 44,
    )  # fmt: skip
    for host in (CALLER_HOST, CALLEE_HOST):
        assert socket.inet_aton(host) not in data
        assert host.encode() not in data


def test_a_gap_is_silence_and_what_follows_keeps_its_time() -> None:
    sent = speech(CALLER_PORT, a_law(TONE, 1)) + speech(
        CALLER_PORT, a_law(OTHER, 1), at_ms=3_000, seq=50, timestamp=24_000
    )
    wav = heard([*sent, *speech(CALLEE_PORT, a_law(OTHER, 4), ssrc=8)])
    assert wav.share(LEFT, TONE, 0, 1) > 0.95
    assert wav.is_silent(LEFT, 1, 3)
    assert wav.share(LEFT, OTHER, 3, 4) > 0.95
    assert wav.share(RIGHT, OTHER) > 0.95


def test_jitter_and_reordering_are_not_heard() -> None:
    """Each packet comes up to 200 ms late, some twice; the file is the same."""
    late = random.Random(7)
    sent = both()
    shaken = [(at_ms + late.randrange(200), data) for at_ms, data in sent[1:]]
    shaken += shaken[::5]
    assert heard([sent[0], *shaken]).channels[LEFT][:23_000] == heard(sent).channels[LEFT][:23_000]


def test_sequence_numbers_and_timestamps_wrap_around() -> None:
    tone = a_law(TONE, 3)
    plain = heard(speech(CALLER_PORT, tone), "mono")
    assert heard(speech(CALLER_PORT, tone, seq=65_500, timestamp=2**32 - 8_000), "mono").data == plain.data


def test_the_time_between_packets_may_change() -> None:
    first, second = a_law(TONE, 1), a_law(TONE, 1, size=480)
    sent = speech(CALLER_PORT, first)
    sent += speech(CALLER_PORT, second, at_ms=1_000, every_ms=60, step=480, seq=50, timestamp=8_000)
    wav = heard(sent, "mono")
    assert wav.share(0, TONE, 0, 1.98) > 0.95


@pytest.mark.parametrize(("ssrc", "timestamp"), [(7, 3_000_000_000), (7, 480_000), (9, 3_000_000_000)])
def test_a_sender_that_begins_anew_goes_on_where_it_is(ssrc: int, timestamp: int) -> None:
    """Another source, or other timestamps, as after a hold."""
    sent = speech(CALLER_PORT, a_law(TONE, 1))
    sent += speech(CALLER_PORT, a_law(TONE, 1), at_ms=2_000, seq=30_000, timestamp=timestamp, ssrc=ssrc)
    wav = heard([*sent, *speech(CALLEE_PORT, a_law(OTHER, 3), ssrc=8)])
    assert wav.share(LEFT, TONE, 0, 1) > 0.95
    assert wav.is_silent(LEFT, 1, 2)
    assert wav.share(LEFT, TONE, 2, 3) > 0.95


def test_pressed_digits_are_silence() -> None:
    event = struct.pack("!BBH", 5, 10, 800)
    sent = speech(CALLER_PORT, a_law(TONE, 1))
    sent += speech(CALLER_PORT, [event] * 50, at_ms=1_000, type_=EVENT, step=0, seq=50, timestamp=8_000)
    sent += speech(CALLER_PORT, a_law(TONE, 1), at_ms=2_000, seq=100, timestamp=16_000)
    wav = heard([*sent, *speech(CALLEE_PORT, a_law(OTHER, 3), ssrc=8)])
    assert wav.is_silent(LEFT, 1, 2)
    assert wav.share(LEFT, TONE, 2, 3) > 0.95


def test_rtcp_and_video_are_not_heard() -> None:
    loud = b"\xaa" * 160
    video = speech(31_000, [loud] * 50, at_ms=700, type_=97)
    assert heard([*both(), (500, datagram(CALLER_PORT, 200, 1, 0, loud)), *video]).data == heard(both()).data


def test_a_side_of_which_nothing_is_known_is_not_left_out() -> None:
    """rtpengine was killed, and had written down a new offer to the other alone."""
    streams = {CALLEE_PORT: RtpStream("", {111: "opus"})}
    wav = heard(both(), "mono", streams)
    assert wav.share(0, TONE) > 0.4
    assert wav.share(0, OTHER) > 0.4
    with pytest.raises(Refused, match="take mono"):
        heard(both(), "stereo", streams | {CALLER_PORT: RtpStream("caller", {})})


def test_a_header_extension_and_padding_are_no_sound() -> None:
    """RFC 3550 5.1 and 5.3.1."""
    plain, padded = [], []
    for n, payload in enumerate(a_law(TONE, 1)):
        plain.append((20 * n, datagram(CALLER_PORT, 8, n, 160 * n, payload)))
        long = b"\xbe\xde\x00\x01\x10\xaa\x00\x00" + payload + b"\0\0\0\4"
        data = bytearray(datagram(CALLER_PORT, 8, n, 160 * n, long))
        data[28] |= 0x30
        padded.append((20 * n, bytes(data)))
    assert heard(padded, "mono").data == heard(plain, "mono").data


def test_a_capture_with_ethernet_heads_is_read() -> None:
    sent = both(1)
    framed = [(0, note_packet(STREAMS, 1)), *((at_ms, bytes(14) + each) for at_ms, each in sorted(sent))]
    data = HEAD[:20] + struct.pack("<I", 1) + b"".join(packet(at_ms, each) for at_ms, each in framed)
    made = b"".join(survey_capture(recording_of(data), [data], "stereo").parts([data]))
    assert made == heard(sent).data


def test_sides_that_are_not_known_can_be_mixed_only() -> None:
    """RTCP that comes before the second side is of none."""
    later = speech(CALLEE_PORT, a_law(OTHER, 3), at_ms=10, ssrc=8)
    wav = heard([*speech(CALLER_PORT, a_law(TONE, 3)), (5, datagram(31_000, 200, 1, 0, bytes(20))), *later], "mono", {})
    assert wav.share(0, TONE) > 0.4
    assert wav.share(0, OTHER) > 0.4
    with pytest.raises(Refused, match="take mono"):
        heard(both(), "stereo", {})


@pytest.mark.parametrize("streams", [{}, STREAMS])
def test_a_side_without_a_known_codec_is_refused(streams: dict[int, RtpStream]) -> None:
    """Not silent: who hears the other alone takes that for all."""
    with pytest.raises(Refused, match="not known"):
        heard([*speech(CALLER_PORT, [b"?" * 30] * 50, type_=97), *both()[150:]], "mono", streams)


def test_a_changed_capture_is_refused() -> None:
    data = capture_of(*both(1))
    with pytest.raises(StoreError, match="was changed"):
        survey_capture(recording_of(data), [data[:-1] + b"?"], "mono")


def test_an_endless_recording_is_refused() -> None:
    sent = [*both(1), *speech(CALLER_PORT, a_law(TONE, 1), at_ms=module.LONGEST_S * 1000)]
    with pytest.raises(Refused, match="longer than 12 hours"):
        heard(sent)


def test_memory_does_not_grow_with_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, packets and sources of a side, in a minute with a flood of other sources."""
    most = [0, 0, 0]
    settle = module._Track.settle

    def measured(track: Any, until_us: int) -> None:
        sizes = len(track._samples) // 2, len(track._waiting), len(track._sources)
        most[:] = map(max, most, sizes)
        settle(track, until_us)

    monkeypatch.setattr(module._Track, "settle", measured)
    flood = [(30_000, datagram(CALLER_PORT, 8, n, n * 160, b"\xd5" * 160, n)) for n in range(5_000)]
    heard([*both(60), *flood])
    samples, packets, sources = most
    assert 0 < samples <= 4 * 8_000
    assert packets == module._MOST_WAITING
    assert sources == module.MOST_SOURCES


def test_a_repeated_packet_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders have a memory: a repetition would be heard in what follows."""
    decoded: list[bytes] = []
    made = make_decoder("pcma", 8_000)

    class Counted:
        def decode(self, payload: bytes) -> bytes:
            decoded.append(payload)
            return made.decode(payload)

    monkeypatch.setattr(module, "make_decoder", lambda name, rate: Counted())
    sent = speech(CALLER_PORT, [bytes([n]) * 160 for n in range(100)])
    heard([*sent, *sent[::3], (1_990, sent[10][1])])
    assert decoded == [bytes([n]) * 160 for n in range(100)]


# -- Codecs of the extra


def encoded(name: str, rate: int, frequency: int, size: int, seconds: float = 2.0) -> list[bytes]:
    """A tone in packets of `size` samples."""
    import av

    encoder: Any = av.CodecContext.create(name, "w")
    encoder.format, encoder.layout, encoder.sample_rate = "s16", "mono", rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate, frame_size=size)
    table = sound_module._TABLES["pcma"]
    packets: list[bytes] = []
    for payload in [*a_law(frequency, seconds), None]:
        frame = None
        if payload is not None:
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(payload))
            frame.sample_rate = 8_000
            samples = bytearray(2 * len(payload))
            samples[::2], samples[1::2] = payload.translate(table[0]), payload.translate(table[1])
            frame.planes[0].update(bytes(samples))
        for each in resampler.resample(frame):
            each.pts = None
            packets += [bytes(made) for made in encoder.encode(each)]
    return packets


def amr_payloads(frames: Sequence[bytes], *, is_aligned: bool) -> list[bytes]:
    """RFC 4867: a frame of 12.2 kbit/s in each, with a mode request for any."""
    if is_aligned:
        return [b"\xf0" + frame for frame in frames]
    made = []
    for frame in frames:
        speech_bits = int.from_bytes(frame[1:]) >> 4  # of 248 bits 244
        bits = 15 << 6 | (frame[0] >> 3 & 15) << 1 | 1
        made.append(((bits << 244 | speech_bits) << 2).to_bytes(32))
    return made


@pytest.mark.parametrize(
    ("codec", "payloads", "step", "rate"),
    [
        ("pcmu", lambda: encoded("pcm_mulaw", 8_000, TONE, 160), 160, 8_000),
        ("g722", lambda: encoded("g722", 16_000, TONE, 320), 160, 16_000),
        ("opus", lambda: encoded("libopus", 48_000, TONE, 960), 960, 16_000),
        ("amr", lambda: amr_payloads(encoded("libopencore_amrnb", 8_000, TONE, 160), is_aligned=False), 160, 8_000),
        (
            "amr/octet-align",
            lambda: amr_payloads(encoded("libopencore_amrnb", 8_000, TONE, 160), is_aligned=True),
            160,
            8_000,
        ),
    ],
)
def test_each_codec_is_heard_beside_another(codec: str, payloads: Any, step: int, rate: int) -> None:
    streams = STREAMS | {CALLER_PORT: RtpStream("caller", {96: codec})}
    sent = speech(CALLER_PORT, payloads(), type_=96, step=step)
    wav = heard([*sent, *speech(CALLEE_PORT, a_law(OTHER, 2), ssrc=8)], "stereo", streams)
    assert wav.rate == rate
    assert wav.share(LEFT, TONE, 0.2, 1.8) > 0.9
    assert wav.share(RIGHT, OTHER, 0.2, 1.8) > 0.9
    assert not wav.is_silent(LEFT, 1.75, 1.8)


def test_without_the_extra_g711_is_read_and_the_rest_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_module, "find_spec", lambda name: None)
    monkeypatch.setattr(sound_module, "import_module", lambda name: pytest.fail("not installed"))
    assert heard(both()).share(LEFT, TONE) > 0.95
    streams = STREAMS | {CALLER_PORT: RtpStream("caller", {96: "opus"})}
    with pytest.raises(Refused, match=r"wav of opus needs the extra relay700\[wav\]"):
        heard(speech(CALLER_PORT, [b"?"] * 50, type_=96), "mono", streams)


@pytest.mark.parametrize("codec", ["pcma", "g722", "amr", "amr/octet-align", "amr-wb", "opus"])
def test_garbage_makes_no_fault(codec: str) -> None:
    noise = random.Random(7)
    payloads = [noise.randbytes(noise.randrange(200)) for _ in range(100)]
    heard(speech(CALLER_PORT, payloads, type_=96), "stereo", {CALLER_PORT: RtpStream("caller", {96: codec})})
