"""A verification hook for tests: an HTTP server in a thread that answers by the 700 number dialled."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # at the default of 5, connections of a burst wait for TCP retransmissions


class Hook:
    """Allows every call except to numbers in `refused`; those to numbers in `held` wait for `release`."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self._grown = threading.Condition()
        self._released = threading.Event()
        self._server = _Server((HOST, 0), self._handler())

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def toml(self, folder: Path, **more: object) -> str:
        """The table of the configuration; writes the secret's file."""
        secret = folder / "verify.secret"
        secret.touch(0o600)
        secret.write_text("secret of the tests")
        values = {"url": f"http://{HOST}:{self.port}/verify", "secret_file": str(secret), "timeout_ms": 10_000, **more}
        return "\n[verify]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    def wait_until_asked(self, times: int, timeout_s: float = 20.0) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.asked) >= times, timeout_s), len(self.asked)

    def release(self) -> None:
        """Answer the held requests: refuse numbers in `refused`, allow the others."""
        self._released.set()

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.release()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _allows(self, question: dict[str, Any]) -> bool:
        with self._grown:
            self.asked.append(question)
            self._grown.notify_all()
        if question["number"] in self.held:
            self._released.wait()
        return question["number"] not in self.refused

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["content-length"])))
                body = json.dumps({"allow": hook._allows(question)}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler
