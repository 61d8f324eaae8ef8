"""Encoding of rtpengine's "ng" control protocol (rtpengine's docs/ng_control_protocol.md), without the cookie.

JSON, which is faster; bencode (BEP 3) for commands that carry a sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from relay.model.actions import RtpCounts


class _Stats(Struct):
    packets: int = 0


class _Ingress(Struct):
    ssrc: int = field(name="SSRC")


class _NgStream(Struct):
    flags: tuple[str, ...] = ()
    stats: _Stats = field(default_factory=_Stats)
    ingress: tuple[_Ingress, ...] = field(name="ingress SSRCs", default=())


class _Media(Struct):
    streams: tuple[_NgStream, ...] = ()


class _Tag(Struct):
    medias: tuple[_Media, ...] = ()


class _Mean(Struct):
    jitter: int = 0
    samples: int = 1


class _Reports(Struct):
    """RTCP statistics of one SSRC.

    rtpengine 12.5 stores the loss of sent packets and the reported loss in the same field, and copies it to the other
    side with its own reports (`rtcp_send_report`): late in a call both values may come from one side.
    """

    lost: int | None = field(name="cumulative loss", default=None)
    mean: _Mean | None = field(name="average MOS", default=None)


class _Recording(Struct):
    on: int = field(name="call recording", default=0)


class NgReply(Struct):
    """The answer to a command; unused fields are ignored."""

    result: str
    error: str = field(name="error-reason", default="")
    sdp: str = ""
    tags: dict[str, _Tag] = field(default_factory=dict)
    reports: dict[str, _Reports] = field(name="SSRC", default_factory=dict)
    duration: int = 0  # milliseconds
    recording: _Recording = field(default_factory=_Recording)

    def counts(self) -> tuple[tuple[str, RtpCounts], ...]:
        """RTP statistics of each side, by tag."""
        streams = {name: _sound_of(tag) for name, tag in self.tags.items()}
        return tuple(
            (
                name,
                _counts_of(own, [each for other in streams if other != name for each in streams[other]], self.reports),
            )
            for name, own in streams.items()
        )


_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(NgReply).decode


def encode(message: dict[str, object]) -> bytes:
    return encode_bencode(message) if "blob" in message else _encode_json(message)  # type: ignore[arg-type]


def decode(data: bytes) -> NgReply:
    """Raises ValueError, of which msgspec's errors are subclasses."""
    return msgspec.convert(decode_bencode(data), NgReply) if data.startswith(b"d") else _decode_json(data)


def _sound_of(tag: _Tag) -> list[_NgStream]:
    return [stream for media in tag.medias for stream in media.streams if "RTP" in stream.flags]


def _counts_of(own: list[_NgStream], others: list[_NgStream], reports: dict[str, _Reports]) -> RtpCounts:
    """Packets of the `own` streams, with loss and jitter as reported by the SSRCs of their receivers."""
    receivers = {str(each.ssrc) for stream in others for each in stream.ingress}
    known = [reports[ssrc] for ssrc in receivers if ssrc in reports]
    losses = [report.lost for report in known if report.lost is not None]
    means = [report.mean for report in known if report.mean is not None]
    samples = sum(mean.samples for mean in means)
    return RtpCounts(
        sum(stream.stats.packets for stream in own),
        max(sum(losses), 0) if losses else None,
        round(sum(mean.jitter * mean.samples for mean in means) / samples) if samples else None,
    )


# -- Bencode (BEP 3)

Bencodable = bytes | str | int | Sequence["Bencodable"] | Mapping[str, "Bencodable"]
MOST_DEEP = 32  # nesting of containers


def encode_bencode(value: Bencodable) -> bytes:
    match value:
        case bytes():
            return b"%d:%b" % (len(value), value)
        case str():
            return encode_bencode(value.encode())
        case int():
            return b"i%de" % value
        case Mapping():
            return b"d%be" % b"".join([encode_bencode(key) + encode_bencode(entry) for key, entry in value.items()])
        case _:
            return b"l%be" % b"".join([encode_bencode(entry) for entry in value])


def decode_bencode(data: bytes) -> object:
    """Decode exactly one value. Strings become str, non-UTF-8 bytes as surrogates. Raises ValueError."""
    value, end = _read(data, 0, 0)
    if end != len(data):
        raise ValueError("more than one value")
    return value


def _read(data: bytes, start: int, depth: int) -> tuple[object, int]:
    """The value at `start`, and the offset behind it."""
    kind = data[start : start + 1]
    if depth > MOST_DEEP:
        raise ValueError("too deep")
    if kind == b"i":
        end = data.index(b"e", start)
        return int(data[start + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        entries: list[object] = []
        place = start + 1
        while data[place : place + 1] != b"e":
            entry, place = _read(data, place, depth + 1)
            entries.append(entry)
        return (entries if kind == b"l" else _paired(entries)), place + 1
    colon = data.index(b":", start)
    end = colon + 1 + int(data[start:colon])
    if not colon < end <= len(data):
        raise ValueError("cut off")
    return data[colon + 1 : end].decode("utf-8", "surrogateescape"), end


def _paired(entries: list[object]) -> dict[str, object]:
    keys = [key for key in entries[::2] if isinstance(key, str)]
    if 2 * len(keys) != len(entries):
        raise ValueError("a key is not a string, or has no value")
    return dict(zip(keys, entries[1::2], strict=True))
