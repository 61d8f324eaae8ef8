"""A recording as a WAV file: the sound of each side, in the order and at the times of its RTP.

Made from the sealed capture as a stream: some seconds of sound are in memory, whatever the length. The file has sound
and nothing else: no address, no number, no text. Payloads that are no speech, such as DTMF events, are silence.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from relay.errors import Refused, StoreError
from relay.model.rtp_streams import LINK_ETHERNET, STATIC, RtpStream, read_note
from relay.reports.sound import Decoder, check_codecs, codec_of, make_decoder
from relay.store.recordings import Channels, Recording

MEDIA_TYPE: Final = "audio/wav"
SIDES: Final = ("caller", "callee")  # left, right

LONGEST_S: Final = 12 * 3_600  # a WAV file has at most 4 GiB
STEP_US: Final = 1_000_000  # of the recording's time between two parts of the file
REORDER_US: Final = 500_000  # a packet is placed when this time has passed since it came
RESYNC_US: Final = 1_000_000  # a timestamp that differs more from the time of arrival begins anew
MOST_SOURCES: Final = 16  # synchronisation sources of a side; beyond, the oldest is forgotten
_MOST_WAITING: Final = 2_000  # packets of a side within a step; more are no telephony
_LATE: Final = 1_000  # packets


# -- Packets of a capture


class _Packet(NamedTuple):
    at_us: int
    port: int  # of rtpengine
    ssrc: int
    seq: int
    timestamp: int
    type: int  # of the payload
    payload: bytes


_FILE_HEAD: Final = 24  # bytes
_PACKET_HEAD: Final = 16
_UDP: Final = 17
_rtp: Final = struct.Struct("!BBHII")


def _packets(parts: Iterable[bytes]) -> Iterator[_Packet]:
    """The RTP packets of a capture."""
    for at_us, data in _datagrams(parts):
        if (packet := _rtp_packet(at_us, data)) is not None:
            yield packet


def _datagrams(parts: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The IP packets of a capture in order; their times never go back."""
    data, place, begun, at_us = b"", 0, False, 0
    head, ahead = struct.Struct("<IIII"), 0
    for part in parts:
        data, place = data[place:] + part, 0
        if not begun:
            if len(data) < _FILE_HEAD:
                continue
            order = "<" if data[0] == 0xD4 else ">"
            head, (link,) = struct.Struct(f"{order}IIII"), struct.unpack_from(f"{order}I", data, 20)
            ahead, place, begun = 14 if link == LINK_ETHERNET else 0, _FILE_HEAD, True
        while len(data) >= place + _PACKET_HEAD:
            seconds, micros, size, _ = head.unpack_from(data, place)
            begin, end = place + _PACKET_HEAD + ahead, place + _PACKET_HEAD + size
            if len(data) < end:
                break
            at_us, place = max(at_us, seconds * 1_000_000 + micros), end
            yield at_us, data[begin:end]


def _rtp_packet(at_us: int, data: bytes) -> _Packet | None:
    """The RTP packet in an IP packet; None if there is none (RFC 3550 5.1)."""
    begin = _udp_of(data)
    if begin is None or len(data) < begin + 8 + _rtp.size:
        return None
    first, type_, seq, timestamp, ssrc = _rtp.unpack_from(data, begin + 8)
    if first >> 6 != 2 or 192 <= type_ <= 223:  # RFC 5761 4: RTCP on the same port
        return None
    place, end = begin + 8 + _rtp.size + 4 * (first & 0x0F), len(data)
    if first & 0x10:  # header extension
        place += 4 + 4 * int.from_bytes(data[place + 2 : place + 4])
    if first & 0x20:  # padding
        end -= data[-1]
    port = int.from_bytes(data[begin + 2 : begin + 4])
    return _Packet(at_us, port, ssrc, seq, timestamp, type_ & 0x7F, data[place:end]) if place <= end else None


def _udp_of(data: bytes) -> int | None:
    """The offset of the UDP header; None if there is none."""
    match data[0] >> 4 if len(data) >= 20 else 0:
        case 4 if data[9] == _UDP:
            return (data[0] & 0x0F) * 4
        case 6 if data[6] == _UDP:
            return 40
    return None


# -- The file


class Wav(NamedTuple):
    """The result of a first reading of a capture. `names`: codec by port and payload type; `tracks`: by port."""

    begin_us: int
    end_us: int
    rate: int  # Hz
    channels: int
    names: dict[tuple[int, int], str]
    tracks: dict[int, int]  # 0 or 1

    @property
    def samples(self) -> int:
        """The length of the file: to the end of the last packet, which is taken for one of 20 ms."""
        return (self.end_us - self.begin_us) * self.rate // 1_000_000 + self.rate // 50

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return _HEAD_SIZE + 2 * self.samples * self.channels

    def parts(self, capture: Iterable[bytes]) -> Iterator[bytes]:
        """The file in parts of about a second, from the same capture."""
        yield _head(self)
        tracks, done, next_us = (_Track(self), _Track(self)), 0, self.begin_us + STEP_US
        for packet in _packets(capture):
            if packet.port not in self.tracks:
                continue
            while packet.at_us >= next_us:
                settled = self._sample_at(next_us - REORDER_US - RESYNC_US)
                for track in tracks:
                    track.settle(next_us - REORDER_US)
                if settled > done:
                    yield _mixed([track.take(settled - done) for track in tracks], self.channels)
                    done = settled
                next_us += STEP_US
            tracks[self.tracks[packet.port]].receive(packet)
        for track in tracks:
            track.settle(self.end_us + 1)
        while done < self.samples:
            count = min(self.samples - done, self.rate)
            yield _mixed([track.take(count) for track in tracks], self.channels)
            done += count

    def _sample_at(self, at_us: int) -> int:
        return (at_us - self.begin_us) * self.rate // 1_000_000


def survey_capture(recording: Recording, capture: Iterable[bytes], channels: Channels) -> Wav:
    """Read the capture once. Raises StoreError if it is not the recording's, Refused if no file can be made of it."""
    digest, streams = hashlib.sha256(), dict[int, RtpStream]()
    begin_us, end_us, used = 0, 0, dict[tuple[int, int], str | None]()
    for n, (at_us, data) in enumerate(_datagrams(_hashed(capture, digest))):
        if n == 0:
            streams = read_note(data)
        if (packet := _rtp_packet(at_us, data)) is not None:
            begin_us, end_us = begin_us or at_us, at_us
            kind = packet.port, packet.type
            if kind not in used:
                stream = streams.get(packet.port, RtpStream("", {}))
                used[kind] = stream.types.get(packet.type) or STATIC.get(packet.type)
    if digest.hexdigest() != recording.sha256:
        raise StoreError(f"the recording of the call {recording.call_id} was changed: its hash is not the store's")
    names = {kind: name for kind, name in used.items() if name is not None and codec_of(name) is not None}
    heard = {port for port, _ in names}
    mute = {port for (port, _), name in used.items() if name is None and port not in heard}
    if mute & streams.keys() or (mute and not streams):  # others are of video
        raise Refused("state_conflict", "format", "a codec of the recording is not known: operators can read its pcap")
    check_codecs(set(names.values()))
    wide = any(codec.is_wide for codec in map(codec_of, names.values()) if codec is not None)
    tracks = _tracks([port for port, _ in names], streams, channels)
    wav = Wav(begin_us, end_us, 16_000 if wide else 8_000, 2 if channels == "stereo" else 1, names, tracks)
    if wav.samples > LONGEST_S * wav.rate:
        raise Refused("state_conflict", "format", f"the recording is longer than {LONGEST_S // 3600} hours, too long")
    return wav


def _hashed(parts: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for part in parts:
        digest.update(part)
        yield part


def _tracks(ports: Iterable[int], streams: Mapping[int, RtpStream], channels: Channels) -> dict[int, int]:
    """The track of each port; one and the other in turn where the side is not known. Raises Refused for stereo then."""
    tracks: dict[int, int] = {}
    for port in dict.fromkeys(ports):
        side = streams[port].side if port in streams else ""
        if side not in SIDES and channels == "stereo":
            raise Refused("state_conflict", "channels", "which side is which is not known of this recording: take mono")
        tracks[port] = SIDES.index(side) if side in SIDES else len(tracks) % 2
    return tracks


_HEAD_SIZE: Final = 44


def _head(wav: Wav) -> bytes:
    """RIFF with the chunks "fmt " and "data" alone: no time, no software, no names."""
    size, frame = wav.size - _HEAD_SIZE, 2 * wav.channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, wav.channels, wav.rate, wav.rate * frame, frame, 16)
    return struct.pack("<4sI4s", b"RIFF", wav.size - 8, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def _mixed(tracks: list[bytes], channels: int) -> bytes:
    """Samples of both tracks side by side, or their mean, which needs no clipping."""
    if channels == 2:
        both = array("h", bytes(2 * len(tracks[0])))
        both[::2], both[1::2] = (array("h", track) for track in tracks)
        return both.tobytes()
    # All at once, as digits of long numbers: one by one an hour takes half a minute. x + y is 2 (x & y) + (x ^ y),
    # so half of it needs no further bit; the bias makes signed samples unsigned.
    size = len(tracks[0])
    bias, low_bits = (int.from_bytes(digit * (size // 2), "little") for digit in (b"\x00\x80", b"\xff\x7f"))
    one, other = (int.from_bytes(track, "little") ^ bias for track in tracks)
    mean = (one & other) + ((one ^ other) >> 1 & low_bits)
    return (mean ^ bias).to_bytes(size, "little")


# -- The time line of one side


class _Source:
    """A synchronisation source (RFC 3550): its decoders, and where its timestamps are on the time line."""

    def __init__(self) -> None:
        self.last_seq: int | None = None
        self.decoders: dict[str, Decoder] = {}
        self._clock = 0
        self._timestamp = self._sample = 0  # the same moment

    def is_new(self, seq: int) -> bool:
        """Whether the packet is neither a repetition nor late. A sequence number far behind means that its sender
        began anew."""
        behind = 0 if self.last_seq is None else -_signed(seq - self.last_seq, 16)
        if self.last_seq is not None and 0 <= behind < _LATE:
            return False
        self.last_seq = seq
        return True

    def place(self, timestamp: int, clock: int, arrived: int, rate: int) -> int:
        """The sample at which a packet belongs. `arrived`: the sample at which it came."""
        if clock == self._clock:
            sample = self._sample + _signed(timestamp - self._timestamp, 32) * rate // clock
            if abs(sample - arrived) <= RESYNC_US * rate // 1_000_000:
                return sample
        self._clock, self._timestamp, self._sample = clock, timestamp, arrived
        return arrived


class _Track:
    """The sound of one side: packets that wait for earlier ones, and samples not taken yet."""

    def __init__(self, wav: Wav) -> None:
        self._wav = wav
        self._waiting: list[_Packet] = []
        self._sources: dict[int, _Source] = {}
        self._samples = bytearray()
        self._begin = 0  # place of the first of them

    def receive(self, packet: _Packet) -> None:
        if len(self._waiting) < _MOST_WAITING and (packet.port, packet.type) in self._wav.names:
            self._waiting.append(packet)

    def settle(self, until_us: int) -> None:
        """Decode the packets that came before, and those sent before them, in the order of their sequence numbers."""
        waiting: dict[int, list[_Packet]] = {}
        for packet in self._waiting:
            waiting.setdefault(packet.ssrc, []).append(packet)
        self._waiting = []
        for ssrc, packets in waiting.items():
            source = self._source(ssrc)
            first = packets[0].seq if source.last_seq is None else source.last_seq
            packets.sort(key=lambda packet: _signed(packet.seq - first, 16))
            due = max((n for n, packet in enumerate(packets, 1) if packet.at_us < until_us), default=0)
            for packet in packets[:due]:
                if source.is_new(packet.seq):
                    self._add(source, packet)
            self._waiting += packets[due:]

    def _source(self, ssrc: int) -> _Source:
        if ssrc not in self._sources and len(self._sources) >= MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        return self._sources.setdefault(ssrc, _Source())

    def _add(self, source: _Source, packet: _Packet) -> None:
        """Put the packet's sound at its place. Silence fills a gap; existing sound stays."""
        wav, name = self._wav, self._wav.names[packet.port, packet.type]
        codec = codec_of(name)
        assert codec is not None
        if name not in source.decoders:
            source.decoders[name] = make_decoder(name, wav.rate)
        arrived = (packet.at_us - wav.begin_us) * wav.rate // 1_000_000
        place = source.place(packet.timestamp, codec.clock, arrived, wav.rate)
        sound = source.decoders[name].decode(packet.payload)
        gap = place - self._begin - len(self._samples) // 2
        if gap > wav.rate // 100:  # less is a decoder's delay
            self._samples += bytes(2 * gap)
        elif gap < -(wav.rate // 100):
            sound = sound[-2 * gap :]
        self._samples += sound

    def take(self, count: int) -> bytes:
        """The next samples; silence where there are none."""
        taken = bytes(self._samples[: 2 * count])
        del self._samples[: 2 * count]
        self._begin += count
        return taken.ljust(2 * count, b"\0")


def _signed(difference: int, bits: int) -> int:
    """A difference of counters that wrap around."""
    half = 1 << bits - 1
    return (difference + half) % (1 << bits) - half
