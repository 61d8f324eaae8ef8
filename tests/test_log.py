from __future__ import annotations

import asyncio
import fcntl
import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.typing import FilteringBoundLogger

from relay import log as log_module
from relay.errors import StoreError
from relay.log import Outage, WholeLines, configure, ended_calls, mask_digit_runs
from tests.events.conftest import Log

NUMBER = "13800000001"


def logger(format_: str = "json", level: str = "info") -> tuple[FilteringBoundLogger, io.BytesIO]:
    output = io.BytesIO()
    return configure(format_, level, output), output  # type: ignore[arg-type]


def logged(**fields: object) -> dict[str, Any]:
    log, output = logger()
    log.info("event", **fields)
    event: dict[str, Any] = json.loads(output.getvalue())
    return event


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("13800000001", "138****0001"),
        ("+8613800000001", "138****0001"),
        ("008613800000001", "138****0001"),
        ("sip:8613800000001@127.0.0.1:5060;user=phone", "sip:138****0001@127.0.0.1:5060;user=phone"),
        ("x13800000001y and 02112345678", "x138****0001y and 021****5678"),
        ("12345678901234567890", "123****7890"),
        ("1234567", "12****67"),
        ("700100000010001", "700100000010001"),
        ("sip:+700100000010001@x", "sip:700100000010001@x"),
        ("7001000000100012", "700****0012"),
        ("123456", "123456"),
        ("2026-01-01T00:00:00.000Z 10.0.0.1:5060 503", "2026-01-01T00:00:00.000Z 10.0.0.1:5060 503"),
    ],
)
def test_only_real_numbers_are_masked(text: str, masked: str) -> None:
    assert mask_digit_runs(text) == masked


def test_an_event_is_one_json_line() -> None:
    event = logged(listen=["udp:127.0.0.1:5060"], count=3, nothing=None, flag=True)
    assert event["timestamp"].endswith("Z")
    del event["timestamp"]
    assert event == {
        "event": "event",
        "level": "info",
        "listen": ["udp:127.0.0.1:5060"],
        "count": 3,
        "nothing": None,
        "flag": True,
    }


@pytest.mark.parametrize(
    "value",
    [
        f"+86{NUMBER}",
        [f"sip:{NUMBER}@x"],
        {"a": {NUMBER: ("x", NUMBER)}},
        {NUMBER},
        NUMBER.encode(),
        ValueError(f"no such {NUMBER}"),
    ],
)
def test_numbers_are_masked_in_nested_values_and_objects(value: object) -> None:
    text = json.dumps(logged(value=value))
    assert NUMBER not in text
    assert "138****0001" in text


def test_numbers_are_masked_in_the_event_name() -> None:
    log, output = logger()
    log.info(f"call of {NUMBER}")
    assert NUMBER.encode() not in output.getvalue()


def test_our_own_identifiers_are_not_masked() -> None:
    identifier = "0123456789abcdef0123456789abcdef"
    own = dict.fromkeys(("call_id", "binding_id", "request_id", "webhook"), identifier) | {"actor": f"key:{identifier}"}
    assert own.items() <= logged(**own).items()


@pytest.mark.parametrize("format_", ["json", "console"])
def test_numbers_are_masked_in_tracebacks(format_: str) -> None:
    log, output = logger(format_)
    try:
        raise ValueError(f"sip:{NUMBER}@x")
    except ValueError:
        log.exception("failed")
    text = output.getvalue().decode()
    assert "ValueError: sip:138****0001@x" in text
    assert NUMBER not in text


@pytest.mark.parametrize("format_", ["json", "console"])
def test_invalid_utf8_can_be_logged(format_: str) -> None:
    log, output = logger(format_)
    log.info("event", header=b"\xff\xfe 13800000001".decode("utf-8", "surrogateescape"), text="号码")
    assert "号码" in output.getvalue().decode()
    assert "138****0001" in output.getvalue().decode()


def test_events_below_the_level_are_dropped() -> None:
    log, output = logger(level="warning")
    log.info("no")
    log.warning("yes")
    assert [json.loads(line)["event"] for line in output.getvalue().splitlines()] == ["yes"]


@pytest.mark.parametrize(
    ("order_id", "masked"),
    [
        (f"for {NUMBER}", "for 138****0001"),
        ("SF1234567890", "SF123****7890"),
        ("parcel 17, floor 3", "parcel 17, floor 3"),
        *(
            (f"for {number}", "****")
            for number in (
                *("138-0000-0001", "(138) 0000 0001", "138/0000/0001", "138_0000_0001", "138·0000·0001"),
                *("１３８００００００００１", "一三八零〇〇〇〇〇〇一", f"1 {NUMBER}", f"{NUMBER} or 139000"),
            )
        ),
    ],
)
@pytest.mark.parametrize("kind", ["call", "message"])
@pytest.mark.parametrize(
    ("format_", "level", "written"), [("json", "info", 1), ("json", "warning", 0), ("console", "info", 1)]
)
def test_the_order_id_of_an_ended_call_is_masked(
    format_: str, level: str, written: int, kind: str, order_id: str, masked: str
) -> None:
    log, output = logger(format_, level)
    fields = {"kind": kind, "outcome": "busy", "order_id": order_id}
    ended_calls(log, format_, level, output)(fields)  # type: ignore[arg-type]
    lines = output.getvalue().decode().splitlines()
    assert len(lines) == written
    assert all(f"{kind}.ended" in line for line in lines)
    if format_ == "json" and lines:
        ended = json.loads(lines[0])
        assert set(ended) == {"event", "level", "timestamp", "outcome", "order_id"}
        assert ended["order_id"] == masked
    elif lines:
        assert re.search(f"order_id='?{re.escape(masked)}", lines[0])


def test_what_is_empty_is_no_part_of_a_line_on_a_console() -> None:
    log, output = logger("console")
    ended_calls(log, "console", "info", output)({"kind": "call", "peer_in": "", "peer_out": None, "duration_ms": 0})
    line = output.getvalue().decode()
    assert "duration_ms=0" in line and "peer_" not in line


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger; its handlers are restored afterwards."""
    handlers = logging.root.handlers
    yield logging.root
    logging.root.handlers = handlers


@pytest.mark.usefixtures("root")
async def test_library_log_records_are_masked_and_written_once() -> None:
    logger()
    _, output = logger()

    async def fail() -> None:
        raise ValueError("13800000001")

    await asyncio.wait([asyncio.create_task(fail(), name="call of 13800000001")])
    gc.collect()
    logging.getLogger("aiohttp.server").warning("from %s", "+8613800000001")
    logging.getLogger("aiohttp.client").info("nothing of interest")
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    ours = [line for line in lines if "138****0001" in line["said"]]  # other tests' leftovers may be logged too
    assert [(line["event"], line["library"], line["level"]) for line in ours] == [
        ("library.said", "asyncio", "error"),
        ("library.said", "aiohttp.server", "warning"),
    ]
    assert "ValueError: 138****0001" in ours[0]["exception"]
    assert b"13800000001" not in output.getvalue()


@pytest.mark.usefixtures("root")
def test_a_library_that_goes_on_leaves_a_reason_and_no_traceback() -> None:
    _, output = logger()
    try:
        raise OSError("no route\nto 13800000001")
    except OSError:
        logging.getLogger("asyncpg").warning("trying again", exc_info=True)
    said = json.loads(output.getvalue())
    assert (said["said"], said["reason"]) == ("trying again", "OSError: no route to 138****0001")
    assert "exception" not in said


PRINTED = """
import threading, warnings
from relay.log import configure, take_over_stderr
configure("json", "info")
take_over_stderr()
warnings.warn("call of 13800000001", stacklevel=1)

class Gone:
    def __del__(self):
        raise ValueError("13800000001 is gone")

Gone()
thread = threading.Thread(target=lambda: 1 / 0, name="writer")
thread.start()
thread.join()
"""


def test_what_python_would_print_is_a_line_of_the_log() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTED], capture_output=True, text=True, check=True)
    assert (done.stderr, "13800000001" in done.stdout) == ("", False)
    warned, ignored, failed = map(json.loads, done.stdout.splitlines())
    assert (warned["event"], warned["library"]) == ("library.said", "py.warnings")
    assert "UserWarning: call of 138****0001" in warned["said"]
    assert (ignored["event"], failed["event"]) == ("python.unraisable", "python.thread_failed")
    assert "Gone.__del__" in ignored["at"] and "ValueError: 138****0001 is gone" in ignored["exception"]
    assert failed["thread"] == "writer" and "ZeroDivisionError" in failed["exception"]


def test_lines_that_cannot_be_written_are_counted() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        output = WholeLines(full.fileno())
        log = configure("json", "info", output)
        log.info("one")
        log.info("two")
        output.write(b"three\n" * 1000)
        output.flush()
    assert lost(output) == 1002
    assert lost(output) == 0


def lost(output: WholeLines) -> int:
    """As reported to a log of another output."""
    reports: list[int] = []
    output.report_lost(reports.append)
    return sum(reports)


def test_slow_reader_loses_no_line() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    log = configure("json", "info", WholeLines(writing))
    with ThreadPoolExecutor(1) as thread, open(reading, "rb") as pipe:
        reader = thread.submit(lambda: [json.loads(pipe.readline())["number"] for _ in range(1000)])
        for number in range(1000):
            log.info("line", number=number)
        os.close(writing)
        assert reader.result() == list(range(1000))


def test_lines_are_lost_while_a_reader_stands_still_and_told_once_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stands still, such as a pager, must not stop the calls."""
    monkeypatch.setattr(log_module, "PATIENCE_S", 0.01)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    output = WholeLines(writing)
    log = configure("json", "info", output)
    reports: list[int] = []

    def report(lines: int) -> None:
        reports.append(lines)
        log.error("log.lines_lost", lines=lines)

    for number in range(1000):
        log.info("line", number=number)
    output.report_lost(report)
    output.report_lost(report)  # the first report was lost, too
    kept = os.read(reading, 10_000).splitlines()
    output.report_lost(report)
    output.report_lost(report)
    assert reports == [1000 - len(kept)] * 3
    told = json.loads(os.read(reading, 10_000))
    assert (told["event"], told["lines"]) == ("log.lines_lost", 1000 - len(kept))
    assert [json.loads(line)["number"] for line in kept] == list(range(len(kept)))
    os.close(reading)
    os.close(writing)


def test_a_torn_line_is_ended_before_the_next() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    output = WholeLines(writing)
    output.write(b"x" * 6000 + b"\n")
    output.flush()
    assert os.read(reading, 10_000) == b"x" * 4096
    output.write(b"next\n")
    output.flush()
    assert os.read(reading, 10_000) == b"\nnext\n"
    assert lost(output) == 1
    os.close(reading)
    os.close(writing)


TEXTS = st.text(max_size=12) | st.sampled_from([NUMBER, f"for +86{NUMBER} é", "\udcff", "700100000010001"])


@given(
    st.sampled_from(["call", "message"]),
    st.none() | TEXTS,
    st.dictionaries(st.sampled_from(["outcome", "mode", "duration_ms"]), st.none() | st.integers(0, 999_999)),
)
def test_directly_encoded_events_equal_structlog_events(
    kind: str, order_id: str | None, fields: dict[str, object]
) -> None:
    written = []
    for way in ("straight", "as any"):
        log, output = logger()
        given_fields = {"kind": kind, "order_id": order_id, **fields}
        if way == "straight":
            ended_calls(log, "json", "info", output)(given_fields)  # type: ignore[arg-type]
        else:
            del given_fields["kind"]
            log.info(f"{kind}.ended", **given_fields)
        event = json.loads(output.getvalue())
        assert event.pop("timestamp").endswith("Z")
        written.append(event)
    assert written[0] == written[1]


def test_begin_and_end_of_an_outage_are_logged_once() -> None:
    log = Log()
    outage = Outage("follower", log.logger)
    outage.over()
    for _ in range(3):
        outage.failed(StoreError("disk full"))
    outage.over()
    outage.over()
    outage.failed(StoreError("disk full"))
    assert log.events() == ["follower.failed", "follower.recovered", "follower.failed"]
    assert log.said[0][1]["reason"] == "disk full"
