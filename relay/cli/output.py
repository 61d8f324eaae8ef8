"""Output of commands: JSON objects for programs, tables for people, private files, progress.

Real numbers are masked, unless `relay.cli.options.in_clear` allows them.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGTERM, getsignal, signal
from typing import Any, BinaryIO, Final, NamedTuple, TextIO, TypeVar

import click

from relay.cli import localised, say
from relay.errors import StoreError
from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.model.numbers import mask_number
from relay.privacy.records import Value
from relay.privacy.texts import mask_numbers
from relay.reports.disclosure import printable, record_form, with_moments
from relay.service.fields import format_moment
from relay.store.bindings import state_of
from relay.translation import columns_of

Show = Callable[[str], str]
T = TypeVar("T")

A_SCREEN: Final = 50  # rows of a list on a terminal without --limit


def shower(*, reveal: bool) -> Show:
    """Return the function that shows a number: in full, or masked."""
    return str if reveal else mask_number


def shower_of_text(*, reveal: bool) -> Show:
    """Return the function that shows a business user's text: as it is, or with the numbers in it masked."""
    return str if reveal else partial(mask_numbers, sender="")


def show_one(value: NamedTuple | dict[str, Any], *, as_json: bool) -> None:
    """Print one object: a line of JSON, or a line per field."""
    values = value if isinstance(value, dict) else plain(value)
    if as_json:
        click.echo(json_line(values))
        return
    width = max(map(len, values))
    for name, each in values.items():
        say(f"{name:<{width}} {_cell(each)}")


def newest(values: Iterable[T], made_at: Callable[[T], int]) -> list[T]:
    """Return the values, newest first. For lists that fit in memory."""
    return sorted(values, key=made_at, reverse=True)


def first_of(values: Iterable[T], limit: int | None) -> Iterator[T]:
    """Yield at most `limit` values; without one all, but on a terminal A_SCREEN of them and a note on stderr."""
    if limit is not None or not sys.stdout.isatty():
        yield from islice(values, limit)
        return
    source = iter(values)
    yield from islice(source, A_SCREEN)
    if next(source, None) is not None:
        say(f"the first {A_SCREEN}; --limit N shows more", err=True)


def show_list(
    values: Iterable[NamedTuple | dict[str, Any]], columns: Sequence[str], *, as_json: bool, limit: int | None = None
) -> None:
    """Print a list: a line of JSON per object, or a table of the named fields. `limit` as for `first_of`."""
    objects = (value if isinstance(value, dict) else plain(value) for value in first_of(values, limit))
    if as_json:
        for values_ in objects:
            click.echo(json_line(values_))
        return
    for line in table(columns, _cells(objects, columns)):
        click.echo(line)


def _cells(objects: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[list[str]]:
    for values in objects:
        yield [_cell(values[name]) for name in columns]


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_cell, value)) or "-"
    if isinstance(value, dict):  # a changed field: its name, its former and its new value
        name, before, after = value.values()
        return f"{name}: {_cell(before)} -> {_cell(after)}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def binding_object(binding: Binding, now_ms: int) -> dict[str, Any]:
    """A binding as `--json` prints it. `state`: live, expired, ended."""
    return plain(binding) | {"state": state_of(binding, now_ms)}


def masked_binding(binding: Binding, now_ms: int, *, clear: bool) -> dict[str, Any]:
    """A binding as `--json` prints it; without `clear` numbers are masked, also in the business user's texts."""
    show, show_text = shower(reveal=clear), shower_of_text(reveal=clear)
    values = binding_object(binding, now_ms)
    values |= {name: values[name] and show(values[name]) for name in ("a", "b")}
    return values | {
        name: values[name] and show_text(values[name]) for name in ("order_id", "consent", "user_data", "industrial_id")
    }


def record_object(record: CallRecord, *, clear: bool = True) -> dict[str, Value]:
    """A call record as `--json` prints it, in the order of `CallRecord`; without `clear` numbers are masked."""
    return with_moments(record_form(record, reveal=clear))


def json_line(value: object) -> str:
    """JSON in one line; in ASCII where standard output has another encoding than UTF-8."""
    return json.dumps(value, ensure_ascii=(sys.stdout.encoding or "").lower() != "utf-8")


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines in columns under translated names. The first thousand rows set the widths: a long list starts at once."""
    source = iter(rows)
    heading = [localised(name.replace("_", " ")) for name in heading]
    first = [row for _, row in zip(range(1_000), source, strict=False)]
    widths = [max(map(columns_of, cells)) for cells in zip(heading, *first, strict=True)]
    yield _line(heading, widths)
    for row in first:
        yield _line(row, widths)
    for row in source:
        yield _line(row, widths)


BINDING_HEADING = ("binding", "mode", "x", "y", "a", "b", "state", "expires", "order", "business")


def binding_row(binding: Binding, now_ms: int, *, reveal: bool) -> tuple[str, ...]:
    show, show_text = shower(reveal=reveal), shower_of_text(reveal=reveal)
    numbers = (binding.x, binding.y or "-", show(binding.a or "") or "-", show(binding.b or "") or "-")
    expires = _moment(binding.expires_at)
    rest = (state_of(binding, now_ms), expires, show_text(binding.order_id or "-"), binding.business)
    return (binding.binding_id, binding.mode, *numbers, *rest)


RECORD_HEADING = ("received", "kind", "outcome", "status", "dialled", "caller", "callee", "talked", "ended by", "call")


def record_row(record: CallRecord, show: Show) -> tuple[str, ...]:
    talked = "-" if record.duration_ms is None else f"{record.duration_ms / 1000:.1f}s"
    numbers = (show(record.number_dialled) or "-", show(record.caller) or "-", show(record.callee or "") or "-")
    status = "-" if record.sip_status is None else str(record.sip_status)
    what = (record.kind, record.outcome or "live", status)
    return (_moment(record.received_at), *what, *numbers, talked, record.ended_by or "-", record.call_id)


def plain(value: NamedTuple) -> dict[str, Any]:
    """The fields of a tuple for JSON: times in RFC 3339, bytes left out."""
    fields: dict[str, Any] = value._asdict()
    return {name: _value(name, each) for name, each in fields.items() if not isinstance(each, bytes)}


def _value(name: str, value: object) -> object:
    if isinstance(value, int) and (name == "at" or name.endswith(("_at", "_until"))):
        return format_moment(value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple | frozenset):
        return sorted(value) if isinstance(value, frozenset) else list(value)
    return value


def _moment(moment_ms: int | None) -> str:
    return "-" if moment_ms is None else format_moment(moment_ms)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell + " " * (width - columns_of(cell)) for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


# -- Output files readable by their user alone

FILE_OR_DASH = click.Path(path_type=Path, dir_okay=False, allow_dash=True)  # -: standard output


@contextmanager
def written(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Yield the file to write, or standard output for "-". Raises StoreError if it cannot be written.

    A plain file stays as it was until the new content is complete and durable, and also if that fails. The new file
    copies its mode; if it is `private`, only the user's part.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with (
            _ending_as_by_ctrl_c(),
            _replaced(path, private=private) if _is_plain(path) else os.fdopen(_open_private(path), "wb") as file,
        ):
            yield file
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _is_plain(path: Path) -> bool:
    """Whether there is a plain file or none. The target of a link, such as /dev/stdout, may be open elsewhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


@contextmanager
def _ending_as_by_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored, as by nohup. In another thread than
    the main one, which alone may handle signals, they do as before."""
    is_main = threading.current_thread() is threading.main_thread()
    ends = [each for each in (SIGTERM, SIGHUP) if is_main and getsignal(each) is SIG_DFL]

    def interrupt(*_: object) -> None:
        for each in ends:  # a closed terminal sends more than one
            signal(each, SIG_IGN)
        raise KeyboardInterrupt

    for each in ends:
        signal(each, interrupt)
    try:
        yield
    finally:
        for each in ends:
            signal(each, SIG_DFL)


@contextmanager
def _replaced(path: Path, *, private: bool) -> Iterator[BinaryIO]:
    """Yield a file beside `path` that takes its place at the end. It is deleted if anything fails. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_rights(path, descriptor, 0o700 if private else 0o7777)
            yield file
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _keep_rights(path: Path, descriptor: int, kept: int) -> None:
    """Give the new file group and mode of the existing one, of that the bits in `kept`.

    Raises OSError if that is another user's.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if found.st_uid != os.geteuid():
        raise _others()
    os.fchown(descriptor, -1, found.st_gid)
    os.fchmod(descriptor, found.st_mode & kept)


@contextmanager
def appended(path: Path) -> Iterator[BinaryIO]:
    """Yield the file for appending; synced to disk at the end. Raises StoreError."""
    try:
        with os.fdopen(_open_private(path, keep=True), "ab") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _open_private(path: Path, *, keep: bool = False) -> int:
    """Open the file for writing; without `keep` it is emptied. A new one gets mode 0600, an existing one keeps its.

    Raises OSError, also for a file, pipe or link that belongs to another user.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if keep else 0)
    us = os.geteuid()
    try:
        descriptor, is_checked = os.open(path, flags | os.O_NOFOLLOW, 0o600), False
    except OSError as error:
        if error.errno != errno.ELOOP or os.lstat(path).st_uid not in (0, us):  # root owns the link /dev/stdout
            raise _others() if error.errno == errno.ELOOP else error from None
        descriptor, is_checked = os.open(path, flags, 0o600), True
    found = os.fstat(descriptor)
    is_file = stat.S_ISREG(found.st_mode)
    if found.st_uid != us and (is_file or (stat.S_ISFIFO(found.st_mode) and not is_checked)):
        os.close(descriptor)
        raise _others()
    if is_file and not keep:
        os.ftruncate(descriptor, 0)
    return descriptor


def _others() -> PermissionError:
    return PermissionError(errno.EPERM, "it belongs to another user: name another file")


# -- Progress bars of long commands


@contextmanager
def progress(length: int, label: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of steps just done, of `length` in all; 0 if unknown."""
    if not length or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=localised(label), file=sys.stderr) as bar:
        yield bar.update
        bar.finish()


@contextmanager
def file_progress(file: TextIO, label: str) -> Iterator[Callable[[], None]]:
    """Yield a function to call now and then while the file is read; it shows how far."""
    size = _size(file)
    read = 0
    with progress(size, label) as step:

        def done() -> None:
            nonlocal read
            if size:
                place = file.buffer.tell()
                step(place - read)
                read = place

        yield done


def _size(file: TextIO) -> int:
    """Size in bytes; 0 for anything but a regular file."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
