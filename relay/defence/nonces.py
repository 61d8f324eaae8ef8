"""The nonces of signed HTTP requests, so that no request is accepted twice."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, insort
from typing import Final

_BUCKET_S: Final = 60
_SLOTS: Final = 64  # of a bucket, so that insertions move little


class SeenNonces:
    """The nonces of requests that are in time: at most `behind_s` old, or `ahead_s` ahead, by their own signed time.

    They are in memory only, so requests signed before `earliest_s` are refused. Hashes in sorted arrays take 9 bytes
    each, where a set takes 150. One of 64 bits lets no repetition through; it refuses a new nonce wrongly once in 2**44
    requests or more. Times are Unix seconds.
    """

    def __init__(self, earliest_s: float, behind_s: int, ahead_s: int) -> None:
        self._earliest_s = earliest_s
        self._behind_s = behind_s
        self._ahead_s = ahead_s
        self._buckets: dict[int, list[array[int]]] = {}  # by the minute of the request's time

    def is_in_time(self, at_s: int, now_s: float) -> bool:
        """Whether a request of this time may be accepted. Forgets nonces that are out of time."""
        for bucket in list(self._buckets):
            end_s = (bucket + 1) * _BUCKET_S
            if end_s + self._behind_s < now_s:
                del self._buckets[bucket]
                self._earliest_s = max(self._earliest_s, end_s)  # holds even if the clock is set back
        return max(now_s - self._behind_s, self._earliest_s) <= at_s <= now_s + self._ahead_s

    def is_known(self, at_s: int, key_id: str, nonce: str) -> bool:
        hash_ = _hash(key_id, nonce)
        slots = self._buckets.get(at_s // _BUCKET_S)
        if slots is None:
            return False
        slot = slots[hash_ % _SLOTS]
        place = bisect_left(slot, hash_)
        return place < len(slot) and slot[place] == hash_

    def keep(self, at_s: int, key_id: str, nonce: str) -> None:
        """Call it only for requests within their limits, which thereby bound the memory."""
        hash_ = _hash(key_id, nonce)
        slots = self._buckets.setdefault(at_s // _BUCKET_S, [])
        if not slots:
            slots.extend(array("Q") for _ in range(_SLOTS))
        insort(slots[hash_ % _SLOTS], hash_)


def _hash(key_id: str, nonce: str) -> int:
    return int.from_bytes(hashlib.blake2s(f"{key_id} {nonce}".encode(), digest_size=8).digest())
