"""A hook for tests: an HTTP server in a thread that answers by the 700 number dialled, signed as relay700 wants it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from relay.net.hook_client import SIGNATURE, answer_signature

HOST = "127.0.0.1"
SECRET = "secret of the tests"


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # at the default of 5, connections of a burst wait for TCP retransmissions


class Hook:
    """Allows every call except to numbers in `refused`; those to numbers in `held` wait for `release`.

    `answers`: other answers, by the number dialled.
    """

    def __init__(self) -> None:
        self.secret = SECRET
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.answers: dict[str, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self._grown = threading.Condition()
        self._released = threading.Event()
        self._server = _Server((HOST, 0), self._handler())

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/verify"

    def toml(self, folder: Path, **more: object) -> str:
        """The table of the configuration; writes the secret's file."""
        secret = folder / "verify.secret"
        secret.touch(0o600)
        secret.write_text(SECRET)
        values = {"url": self.url, "secret_file": str(secret), "timeout_ms": 10_000, **more}
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

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        number = question["number"]
        with self._grown:
            self.asked.append(question)
            self._grown.notify_all()
        if number in self.held:
            self._released.wait()
        return self.answers.get(number, {"allow": number not in self.refused})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["content-length"])))
                body = json.dumps(hook._answer(question)).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.send_header(SIGNATURE, answer_signature(hook.secret, self.headers[SIGNATURE], body))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        return Handler
