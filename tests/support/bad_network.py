"""Two networks and a bad link between them: packets are lost, duplicated, reordered and delayed; hosts vanish.

Both are network namespaces of the test, joined by a pair of TUN devices. A thread carries IP packets between them, so
that UDP and TCP of any program are affected alike; impairments are drawn packet by packet. Use it after
`reran_as_root`.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NEAR = "10.77.0.10"  # the relay
FAR_CALLER, FAR_CALLEE, FAR_OTHER = "10.77.1.11", "10.77.1.22", "10.77.1.12"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Weather:
    """Impairments of packets in either direction. Probabilities are 0 to 1."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # probability of being held back for `held_s`, so that later packets overtake it
    delay_s: float = 0.0
    held_s: float = 0.08


class BadNetwork:
    """Use as `with BadNetwork(weather, dice()) as network`.

    Sockets and processes that this thread creates meanwhile are on the near side; in `network.far()`, on the far one.
    """

    def __init__(self, weather: Weather, draw: random.Random) -> None:
        self.weather = weather
        self.carried = self.lost = self.doubled = self.held = 0
        self._draw = draw
        self._cut: set[bytes] = set()
        self._serial = itertools.count()
        self._waiting: list[tuple[float, int, int, bytes]] = []  # (due at, serial, destination device, packet)
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> BadNetwork:
        self._home = _this_namespace()
        try:
            self._far_space, self._far = _new_namespace("10.77.0.0/24", FAR_CALLER, FAR_CALLEE, FAR_OTHER)
            self._near_space, self._near = _new_namespace("10.77.1.0/24", NEAR)
        except BaseException:
            _enter(self._home)
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _enter(self._home)
        os.write(self._wake[1], b".")
        self._thread.join()
        for descriptor in (self._near, self._far, self._near_space, self._far_space, self._home, *self._wake):
            os.close(descriptor)

    @contextmanager
    def far(self) -> Iterator[None]:
        """Sockets and processes that this thread creates in the block are on the far side."""
        _enter(self._far_space)
        try:
            yield
        finally:
            _enter(self._near_space)

    @contextmanager
    def without(self, host: str) -> Iterator[None]:
        """Drop all packets to and from a host of the far side, without an ICMP error."""
        address = bytes(map(int, host.split(".")))
        self._cut.add(address)
        try:
            yield
        finally:
            self._cut.discard(address)

    def _carry(self) -> None:
        to = {self._near: self._far, self._far: self._near}
        while True:
            wait_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready, _, _ = select.select([self._near, self._far, self._wake[0]], [], [], wait_s)
            if self._wake[0] in ready:
                return
            for device in ready:
                self._take(os.read(device, 65_536), to[device])
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                _, _, device, packet = heapq.heappop(self._waiting)
                os.write(device, packet)

    def _take(self, packet: bytes, device: int) -> None:
        weather, draw = self.weather, self._draw
        if packet[0] >> 4 != 4 or not self._cut.isdisjoint((packet[12:16], packet[16:20])):
            return
        self.carried += 1
        if draw.random() < weather.loss:
            self.lost += 1
            return
        doubled = draw.random() < weather.duplication
        self.doubled += doubled
        for _ in range(1 + doubled):
            held = draw.random() < weather.reordering
            self.held += held
            due_at = time.monotonic() + weather.delay_s + (weather.held_s if held else 0.0)
            heapq.heappush(self._waiting, (due_at, next(self._serial), device, packet))


def _this_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _new_namespace(other_side: str, *addresses: str) -> tuple[int, int]:
    """A namespace, which this thread is now in, and its device."""
    _check(_libc.unshare(_CLONE_NEWNET))
    return _this_namespace(), _device(other_side, *addresses)


def _enter(namespace: int) -> None:
    _check(_libc.setns(namespace, _CLONE_NEWNET))


def _device(other_side: str, *addresses: str) -> int:
    """A TUN device of this thread's namespace, the route to the other side, with local addresses."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"between", _IFF_TUN | _IFF_NO_PI))
    commands = ["link set lo up", "link set between up", f"route add {other_side} dev between"]
    commands += [f"address add {address}/32 dev lo" for address in addresses]
    commands.append(f"route change {other_side} dev between src {addresses[0]}")
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)
    return device


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "cannot change the network namespace")
