"""Help and usage errors in Chinese, which click writes in English.

Commands stay as they are: copies of them are run, with translated texts and a formatter that breaks Chinese lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from copy import copy
from inspect import cleandoc
from io import StringIO
from typing import Any, NoReturn

import click

from relay.translation import columns_of, translation

_zh = translation("zh")
_NEVER_FIRST, _NEVER_LAST = "，。；：、！？）」』】》…·", "（「『【《"
_MISSING = re.compile(r"(Missing \w+) ('[^']*')\. ?(.*)", re.DOTALL)
_LEAST_WIDTH = 10  # of a column of texts, as click has it


def run_in_chinese(group: click.Group, *args: Any, **options: Any) -> NoReturn:
    """Run the command, and exit with its status."""
    try:
        status: Any = click.Group.main(_copy(group), *args, **options | {"standalone_mode": False})
    except click.ClickException as error:
        written = StringIO()
        error.show(written)
        click.echo(_usage_error(written.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo(_zh("Aborted!"), err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _usage_error(text: str) -> str:
    """Click's lines: the usage, a hint, and the error, which may be of several lines."""
    usage, is_error, message = text.partition("Error: ")
    if not is_error:  # help, where a command is missing
        return text
    error = _zh("Error: {message}").replace("{message}", _fault(message.rstrip("\n")))
    return "\n".join([*map(_zh, usage.split("\n")[:-1]), error, ""])


def _fault(message: str) -> str:
    """Click's message. For a missing parameter it is put together from the kind, the name and the choices."""
    if found := _MISSING.fullmatch(message):
        return f"{_zh(found[1])} {found[2]}。{_zh(found[3])}"
    return _zh(message)


def _copy(command: click.Command) -> click.Command:
    """The command with Chinese help; of a group also its commands."""
    copied = copy(command)
    copied.context_class = _Context
    copied.help, copied.epilog = _paragraphs(command.help), _paragraphs(command.epilog)
    copied.short_help = (copied.help or "").partition("\n\n")[0].partition("。")[0]
    if isinstance(copied, click.Group):
        found = copied.get_command

        def get_command(ctx: click.Context, cmd_name: str) -> click.Command | None:
            command = found(ctx, cmd_name)
            return None if command is None else _copy(command)

        copied.get_command = get_command  # type: ignore[method-assign]
    return copied


def _paragraphs(text: str | None) -> str | None:
    return text and "\n\n".join(map(_paragraph, cleandoc(text).split("\n\n")))


def _paragraph(text: str) -> str:
    """A translated paragraph, with its lines if click keeps them."""
    mark, kept, lines = text.partition("\b\n")
    return f"{kept}{_zh(lines)}" if kept else _zh(" ".join(mark.split()))


# -- Layout: a Chinese character has two columns, and a line may end behind it


class _Formatter(click.HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, "用法：" if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':{self.current_indent}}{_zh(heading)}：\n")

    def write_text(self, text: str) -> None:
        super().write_text("\n\n".join(_kept(part, self.width - self.current_indent) for part in text.split("\n\n")))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        first = min(max(len(name) for name, _ in rows), col_max) + col_spacing
        width = max(self.width - first - 2, _LEAST_WIDTH)
        super().write_dl([(name, _kept(_row(text), width)) for name, text in rows], col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


def _row(text: str) -> str:
    """The help of an option; click has put default and range into brackets behind it."""
    words, bracket, extras = f"  {text}".rpartition("  [")
    if not bracket or not text.endswith("]"):
        return _zh(text)
    words = words.removeprefix("  ")
    return f"{f'{_zh(words)}  ' if words else ''}[{'；'.join(map(_extra, extras.removesuffix(']').split('; ')))}]"


def _extra(text: str) -> str:
    name, colon, value = text.partition("default:")
    return f"默认：{value.strip()}" if colon and not name else _zh(text)


def _kept(text: str, width: int) -> str:
    """The text in lines, which click leaves as they are."""
    return text if text.startswith("\b\n") or not text else "\n".join(["\b", *_lines(text, width)])


def _lines(text: str, width: int) -> Iterator[str]:
    line, columns = "", 0
    for part in _parts(text):
        size = columns_of(part)
        if columns + size > width and line:
            yield line.rstrip()
            line, columns = "", 0
            part = part.lstrip()
            size = columns_of(part)
        line, columns = line + part, columns + size
    yield line


def _parts(text: str) -> Iterator[str]:
    """What must stay in one line: a word with the space before it, or a Chinese character with its punctuation."""
    part = ""
    for sign in text:
        may_break = sign == " " or columns_of(sign) == 2 or columns_of(part[-1:]) == 2
        if part and may_break and sign not in _NEVER_FIRST and part[-1] not in _NEVER_LAST:
            yield part
            part = ""
        part += sign
    yield part
