"""manual.py VERSION EPOCH: prints relay700(1), made from the help of its commands; EPOCH (Unix seconds) is its date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from relay.cli import main

FOOT = r"""
.SH EXIT STATUS
.TP
0
done
.TP
1
refused, not found, or failed: one line on standard error says why
.TP
2
wrong usage
.SH FILES
.TP
.I /etc/relay700/relay.toml
the configuration; its comments describe every setting
.TP
.I /var/lib/relay700
database, key and recordings of the service
.SH SEE ALSO
.I /usr/share/doc/relay700
has the manuals: README.md leads to them
"""


def escaped(text: str) -> str:
    """A text for roff: no escapes, no line that looks like a request, hyphens that can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """The context of each command that does something, in the order of the help."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    if not isinstance(command, click.Group):
        yield context
        return
    for each in command.list_commands(context):
        if (found := command.get_command(context, each)) is not None and not found.hidden:
            yield from commands(found, each, context)


def described(context: click.Context) -> Iterator[str]:
    """One command: its usage, help and options."""
    command = context.command
    yield f'.SS "{escaped(context.command_path)}"'
    yield f"\\fB{escaped(context.command_path)}\\fR {escaped(' '.join(command.collect_usage_pieces(context)))}"
    for paragraph in re.split(r"\n\s*\n", (command.help or "").replace("\b", "")):
        yield ".PP"
        yield escaped(re.sub(r"\s+", " ", paragraph.strip()))
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield ".TP"
            yield f"\\fB{escaped(record[0])}\\fR"
            yield escaped(re.sub(r"\s+", " ", record[1]))


def manual(version: str, epoch: int) -> str:
    date = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d")
    lines = [
        f'.TH RELAY700 1 "{date}" "relay700 {version}" "User Commands"',
        ".SH NAME",
        r"relay700 \- SIP engine that masks phone numbers behind China's 700 numbers",
        ".SH SYNOPSIS",
        r".B relay700",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        escaped(main.help or ""),
        ".SH COMMANDS",
    ]
    for context in commands(main, "relay700"):
        lines += described(context)
    return "\n".join(lines) + FOOT


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(manual(sys.argv[1], int(sys.argv[2])))
