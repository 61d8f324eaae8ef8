"""One UDP address shared by several workers: a socket for each, and the kernel told which datagrams are for which.

All are bound by the parent, in the order of the workers, and never closed while it serves: what comes for a worker that
has died waits in its socket for the next one.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import ExitStack
from typing import Final

from structlog.typing import FilteringBoundLogger

from relay.call.settings import Listener
from relay.net.bpf import steering_program
from relay.net.udp import bound_socket

_SO_ATTACH_REUSEPORT_CBPF: Final = 51  # asm-generic/socket.h: the socket module does not name it
_INSTRUCTION_BYTES: Final = 8


def open_ports(listener: Listener, workers: int, log: FilteringBoundLogger) -> list[socket.socket]:
    """The sockets of a UDP listener, in the order of the workers. Raises OSError, EADDRINUSE where anybody is there.

    Another program of the same user could share the port from then on; before that, it is found out.
    """
    bound_socket(listener.host, listener.port).close()  # one that is not shared: refused also beside shared ones
    with ExitStack() as at_an_error:
        ports = [at_an_error.enter_context(_shared_port(listener)) for _ in range(workers)]
        at_an_error.pop_all()
    _steer(ports[0], steering_program(listener, workers), log)
    return ports


def _shared_port(listener: Listener) -> socket.socket:
    return bound_socket(listener.host, listener.port, shared=True)


def _steer(port: socket.socket, program: bytes, log: FilteringBoundLogger) -> None:
    """Has the kernel choose by the program among all that share the port."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog, linux/filter.h
    filter_program = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(instructions))
    try:
        port.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, filter_program)
    except OSError as error:  # in a sandbox
        log.warning("steering.refused", reason=error.strerror, effect="workers hand over what is for others")
