"""The log: structlog events as JSON lines or console text, with real numbers masked.

Masking covers every string of an event, tracebacks included.
"""

from __future__ import annotations

import logging
import math
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, Literal, Protocol, cast

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger

from relay.errors import Report
from relay.model.numbers import mask_number
from relay.privacy.texts import MASK


class Output(Protocol):
    """The sink of the log."""

    def write(self, line: bytes, /) -> object: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

# A subscriber's number has at least 7 digits; shorter runs are ports, statuses or extensions.
_LEAST: Final = 7
_NUMBER = re.compile(rf"(?:\+|00)?[0-9]{{{_LEAST},}}")
_DIGITS = re.compile(rf"[0-9]{{{_LEAST}}}")
# Fields never masked: our hexadecimal identifiers, and what structlog itself adds.
_OWN = frozenset({"call_id", "binding_id", "request_id", "actor", "webhook", "timestamp", "level"})


PATIENCE_S: Final = 2.0  # of the log with its reader, within REST_S: calls wait as long
REST_S: Final = 60.0


class WholeLines:
    """A buffered sink for a file or pipe shared by several processes: lines up to PIPE_BUF are never interleaved.

    The buffer is written by `flush`, or when it is full. For a reader that is slow it waits, PATIENCE_S in all within
    REST_S. Lines that cannot be written, as on a full disk, or to a reader that stands still, are dropped and counted:
    a call never fails because of the log.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = bytearray()
        self._lost = 0
        self._is_torn = False  # the last write ended within a line
        self._patience_s = 0.0  # left until `_rests_at`
        self._rests_at = -math.inf

    def write(self, lines: bytes) -> None:
        """Append one or several lines, each ending with a newline."""
        if len(self._lines) + len(lines) > select.PIPE_BUF:
            self.flush()
        self._lines += lines

    def flush(self) -> None:
        """Write the buffer."""
        lines = (b"\n" if self._is_torn else b"") + bytes(self._lines)
        self._lines.clear()
        done = 0
        try:
            while done < len(lines) and self._has_room():
                done += os.write(self._descriptor, lines[done : done + select.PIPE_BUF])
        except OSError:
            pass
        self._lost += lines.count(b"\n", max(done, self._is_torn))
        if done:
            self._is_torn = lines[done - 1] != ord("\n")

    def _has_room(self) -> bool:
        """Whether PIPE_BUF bytes can be written at once or soon (pipe(7)), or to a terminal, which people stop and see.

        Not by a `select.poll`, which two threads must not ask at once. Raises OSError.
        """
        return self._is_writable(0) or self.isatty() or self._has_soon()

    def _has_soon(self) -> bool:
        now = time.monotonic()
        if now >= self._rests_at:
            self._patience_s, self._rests_at = PATIENCE_S, now + REST_S
        is_writable = self._is_writable(max(self._patience_s, 0.0))
        self._patience_s -= time.monotonic() - now
        return is_writable

    def _is_writable(self, timeout_s: float) -> bool:
        return bool(select.select((), (self._descriptor,), (), timeout_s)[1])

    def report_lost(self, report: Callable[[int], None]) -> None:
        """Report the number of lines lost, if any; again later if the report is lost as well."""
        if lost := self._lost:
            report(lost)
            self._lost = 0 if self._lost == lost else lost

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


STANDARD_OUTPUT: Final = WholeLines(1)


def configure(format_: Format, level: Level, output: Output = STANDARD_OUTPUT) -> FilteringBoundLogger:
    """Set up structlog for this process and return its logger."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask_event,
            *_renderers(format_, output),
        ],
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, output)),
        cache_logger_on_first_use=True,
    )
    logging.root.handlers = [*(one for one in logging.root.handlers if not isinstance(one, _Libraries)), _Libraries()]
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger.bind()


class _Libraries(logging.Handler):
    """Routes `logging` records of libraries, such as asyncio's unhandled exceptions, through the masked log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Only of an error the traceback is of use: a library that warns goes on, or tries again."""
        log: FilteringBoundLogger = structlog.get_logger()
        said: dict[str, Any] = {"library": record.name, "said": record.getMessage()}
        if record.levelno >= logging.ERROR:
            log.error("library.said", **said, exc_info=record.exc_info)
            return
        if record.exc_info is not None and (error := record.exc_info[1]) is not None:
            said["reason"] = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("library.said", **said)


def take_over_stderr() -> None:
    """Log what Python would print: warnings, what ends a thread, and exceptions that nobody can catch."""
    logging.captureWarnings(True)
    sys.unraisablehook = _unraisable
    threading.excepthook = _thread_failed


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    log: FilteringBoundLogger = structlog.get_logger()
    log.error(
        "python.unraisable", at=f"{found.err_msg or 'Exception ignored in'}: {found.object!r}", exc_info=_of(found)
    )


def _thread_failed(found: threading.ExceptHookArgs) -> None:
    log: FilteringBoundLogger = structlog.get_logger()
    log.error("python.thread_failed", thread=found.thread and found.thread.name, exc_info=_of(found))


def _of(found: sys.UnraisableHookArgs | threading.ExceptHookArgs) -> BaseException:
    error = found.exc_type() if found.exc_value is None else found.exc_value
    return error.with_traceback(found.exc_traceback)


def _renderers(format_: Format, output: Output) -> list[structlog.typing.Processor]:
    if format_ == "json":
        return [_json]
    console = structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return [console, cast(structlog.typing.Processor, _encode)]  # the logger takes bytes


def ended_calls(
    log: FilteringBoundLogger, format_: Format, level: Level, output: Output = STANDARD_OUTPUT
) -> Callable[[dict[str, object]], None]:
    """Return the writer of `call.ended` and `message.ended`, by the field `kind`.

    The caller must mask the numbers in the fields; `order_id` is masked here. JSON lines bypass structlog and stay in
    the output's buffer until the next flush: a fifth of the cost. On a console what is empty is left out.
    """
    if format_ != "json" or level not in ("debug", "info"):
        return lambda fields: log.info(
            f"{fields.pop('kind')}.ended", **{name: value for name, value in fields.items() if value not in (None, "")}
        )
    write, encode = output.write, msgspec.json.Encoder().encode

    def write_line(fields: dict[str, object]) -> None:
        if order_id := fields.get("order_id"):
            fields["order_id"] = _mask_order(order_id)
        fields |= {"event": f"{fields.pop('kind')}.ended", "level": "info", "timestamp": datetime.now(UTC)}
        write(encode(fields) + b"\n")

    return write_line


def reporter(log: FilteringBoundLogger) -> Report:
    """Return a function that logs an event as an error, or as info if it ends in `.recovered`."""

    def report(event: str, fields: dict[str, object]) -> None:
        (log.info if event.endswith(".recovered") else log.error)(event, **fields)

    return report


def mask_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: mask the numbers in every value, nested ones included."""
    for key, value in event.items():
        if key not in _OWN and value is not None:
            event[key] = _mask_order(value) if key == "order_id" else _mask_value(value)
    return event


def _mask_order(order_id: Any) -> Any:
    """The order id, a text of a business user: **** if it may have a number written otherwise than as one plain run.

    `relay.privacy.texts` would find the number itself, but takes too long for the loop.
    """
    if isinstance(order_id, str) and order_id.isascii():  # most are: a third of the instructions
        return _mask_ascii_order(order_id)
    if isinstance(order_id, str) and sum(map(str.isnumeric, order_id)) >= _LEAST:
        beside = _NUMBER.sub("", order_id, count=1)
        return MASK if any(map(str.isnumeric, beside)) else _mask_value(order_id)
    return _mask_value(order_id)


def _mask_ascii_order(order_id: str) -> str:
    digits = len(order_id) - len(order_id.encode().translate(None, b"0123456789"))
    if digits < _LEAST:
        return order_id
    run = _NUMBER.search(order_id)
    if run is None or digits > len(run[0].removeprefix("+")):
        return MASK
    return mask_digit_runs(order_id)


def _mask_value(value: Any) -> Any:
    if isinstance(value, str):
        if not value.isascii():  # lone surrogates, from bytes that were not UTF-8
            value = value.encode("utf-8", "backslashreplace").decode()
        return mask_digit_runs(value) if _DIGITS.search(value) else value
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {_mask_value(key): _mask_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_mask_value(each) for each in value]
    return None if value is None else mask_digit_runs(str(value))


def mask_digit_runs(text: str) -> str:
    """Mask each run of 7 or more digits, 700 numbers excepted: +8613800000001 -> 138****0001."""
    return _NUMBER.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    return mask_number(found[0].lstrip("+").removeprefix("00"))


def _json(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return msgspec.json.encode(event)


def _encode(_: object, __: str, line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


class Outage:
    """A repeated failure of one part: one line when it begins, one when it is over. `name` begins its log events."""

    def __init__(self, name: str, log: FilteringBoundLogger) -> None:
        self._name = name
        self._log = log
        self._lasts = False

    def failed(self, error: Exception) -> None:
        """An attempt failed and will be repeated."""
        if not self._lasts:
            self._lasts = True
            self._log.warning(f"{self._name}.failed", reason=str(error), effect="retried until it succeeds")

    def over(self) -> None:
        """An attempt succeeded."""
        if self._lasts:
            self._lasts = False
            self._log.info(f"{self._name}.recovered")
