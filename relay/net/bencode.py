"""Bencode (BEP 3) for rtpengine commands that carry binary data; all others use JSON, which is faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = bytes | str | int | Sequence["Value"] | Mapping[str, "Value"]
MOST_DEEP = 32  # nesting of containers


def encode(value: Value) -> bytes:
    match value:
        case bytes():
            return b"%d:%b" % (len(value), value)
        case str():
            return encode(value.encode())
        case int():
            return b"i%de" % value
        case Mapping():
            return b"d%be" % b"".join([encode(key) + encode(entry) for key, entry in value.items()])
        case _:
            return b"l%be" % b"".join([encode(entry) for entry in value])


def decode(data: bytes) -> object:
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
