"""Runs classic BPF programs without a kernel, as its documentation (networking/filter.rst) says."""

from __future__ import annotations

import struct

NO_SOCKET = 0xFFFFFFFF

_SIZES = {0x40: 4, 0x50: 1}
_ARITHMETIC = {
    0x0C: lambda a, x, k: a + x,
    0x14: lambda a, x, k: a - k,
    0x24: lambda a, x, k: a * k,
    0x54: lambda a, x, k: a & k,
    0x94: lambda a, x, k: a % k,
}
_CONDITIONS = {0x15: lambda a, k: a == k, 0x35: lambda a, k: a >= k}


class Machine:
    """A, X and memory, and the packet that they are loaded from."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.a = self.x = 0
        self.memory: dict[int, int] = {}

    def run(self, program: bytes) -> int:
        """What it returns; 0 where it reads beyond the end, as in the kernel."""
        lines = list(struct.iter_unpack("=HBBI", program))
        at = 0
        while True:
            code, if_true, if_false, k = lines[at]
            at += 1
            if code == 0x05:
                at += k
            elif code in _CONDITIONS:
                at += if_true if _CONDITIONS[code](self.a, k) else if_false
            elif code in (0x06, 0x16):
                return k if code == 0x06 else self.a
            elif code in _SIZES:
                found = self.data[self.x + k : self.x + k + _SIZES[code]]
                if len(found) < _SIZES[code]:
                    return 0
                self.a = int.from_bytes(found, "big")
            else:
                self._compute(code, k)

    def _compute(self, code: int, k: int) -> None:
        if code == 0x01:
            self.x = k
        elif code == 0x61:
            self.x = self.memory[k]
        elif code == 0x02:
            self.memory[k] = self.a
        else:
            self.a = _ARITHMETIC[code](self.a, self.x, k) & 0xFFFFFFFF


def run(program: bytes, data: bytes) -> int:
    return Machine(data).run(program)
