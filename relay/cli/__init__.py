"""The command `relay700`, a file for each noun; exit statuses.

A command parses options, calls the service, the reports or the relay's admin socket, and prints. Rules do not belong
here. 0 done; 1 refused, not found or not written, one line on stderr per fault; 2 usage; 141 standard output closed by
its reader.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from io import TextIOWrapper
from keyword import iskeyword
from pathlib import Path
from traceback import format_exc  # by name: a module of this package is called traceback
from typing import Any

import click
from click.shell_completion import get_completion_class

from relay.errors import ConfigError, RelayError
from relay.translation import language_of_locale, translation

# Imported on first use: `relay700 bind` needs no event loop, `relay700 serve` no capture reader.
_COMMANDS = {
    "demo": "relay.cli.demo",
    "serve": "relay.cli.serve",
    "check": "relay.cli.serve",
    "reload": "relay.cli.serve",
    "business": "relay.cli.businesses",
    "keys": "relay.cli.businesses",
    "users": "relay.cli.users",
    "numbers": "relay.cli.numbers",
    "pools": "relay.cli.numbers",
    "bind": "relay.cli.bindings",
    "unbind": "relay.cli.bindings",
    "bindings": "relay.cli.bindings",
    "groups": "relay.cli.groups",
    "lists": "relay.cli.groups",
    "filings": "relay.cli.filings",
    "phase": "relay.cli.phase",
    "papers": "relay.cli.papers",
    "calls": "relay.cli.calls",
    "explain": "relay.cli.explain",
    "recordings": "relay.cli.calls",
    "capture": "relay.cli.capture",
    "traceback": "relay.cli.traceback",
    "evidence": "relay.cli.oversight",
    "report": "relay.cli.oversight",
    "probe": "relay.cli.probe",
    "verify": "relay.cli.audit",
    "audit": "relay.cli.audit",
    "purge": "relay.cli.audit",
    "seal-key": "relay.cli.seal_keys",
    "webhooks": "relay.cli.webhooks",
    "hooks": "relay.cli.hooks",
    "peers": "relay.cli.serve",
    "bans": "relay.cli.serve",
    "import": "relay.cli.moving",
    "compare": "relay.cli.moving",
    "migrate": "relay.cli.moving",
    "replay": "relay.cli.replay",
    "completion": "relay.cli",
    "backend": "relay.cli.serve",
}
atexit.register(gc.freeze)  # what is left goes with the process: nothing is searched for cycles

UNREAD = 128 + signal.SIGPIPE  # a shell's status for a program ended by SIGPIPE
_HIDDEN = ("backend",)  # `serve` starts it

config_option = click.option(
    "-c",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file. Default: config/relay.toml, else built-in values.",
)


def localised(text: str) -> str:
    """A text for people in the language of the locale; in English where standard output cannot show Chinese."""
    return translation("zh" if _shows_chinese() else "en")(text)


def say(text: str, *, err: bool = False) -> None:
    """Print a text for people, in the language of the locale."""
    click.echo(localised(text), err=err)


def listed(texts: Iterable[str]) -> str:
    """Texts for people in one line, in the language of the locale."""
    return ("，" if _shows_chinese() else ", ").join(map(localised, texts))


def _shows_chinese() -> bool:
    if language_of_locale(os.environ) != "zh":
        return False
    try:
        "中文".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if name not in _HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(module), name)
        return command

    def main(self, *args: Any, **options: Any) -> Any:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by `>&-`
                setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        for stream in (sys.stdout, sys.stderr):  # what the locale's encoding lacks is no error
            if isinstance(stream, TextIOWrapper) and stream.encoding.lower() != "utf-8":
                stream.reconfigure(errors="backslashreplace")
        if not _shows_chinese():
            return super().main(*args, **options)
        from relay.cli.chinese import run_in_chinese

        return run_in_chinese(self, *args, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are not UTF-8: they arrive as surrogates, which cannot be stored or searched for."""
        for argument in args:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise click.UsageError(f"{os.fsencode(argument)!r} is not UTF-8 text")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        _leave_no_core()
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except BrokenPipeError:  # `relay700 bindings list | head`: the reader has ended, which is not an error
            _leave_stdout()
            return ctx.exit(UNREAD)
        except ConfigError as error:
            for problem in error.problems:
                say(problem, err=True)
        except RelayError as error:
            say(str(error), err=True)
        except OSError as error:
            _report_failure(error)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            _report_bug()
        return ctx.exit(1)


def _leave_no_core() -> None:
    """Disable core dumps, which would hold the store's key and real numbers.

    A limit of 0 only prevents core files, not pipes to a crash handler (core(5)). A limit of 1 makes Linux refuse both
    (do_coredump in fs/coredump.c).
    """
    size, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most else 0
    if size != least:
        resource.setrlimit(resource.RLIMIT_CORE, (least, most))


def _leave_stdout() -> None:
    """Discard what is still buffered: the interpreter would report that it fails at its exit."""
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())


def _report_failure(error: OSError) -> None:
    """Report an error of the system. For a full disk it names the file, unless that is standard output."""
    try:
        sys.stdout.flush()
    except OSError:
        _leave_stdout()
    words = error.strerror or str(error) or type(error).__name__
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        say(f"standard output cannot be written: {words}", err=True)
    else:
        say(f"{error.filename}: {words}" if error.filename else words, err=True)


def _report_bug() -> None:
    from relay.log import mask_digit_runs

    click.echo(mask_digit_runs(format_exc()), err=True, nl=False)
    say("This is a bug in relay700: please report the lines above. Numbers in them are masked.", err=True)


def _show_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        from relay.version import VERSION  # reading it takes a tenth of a command's start

        click.echo(f"{ctx.find_root().info_name} {VERSION}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Number protection with China's 700 numbers: SIP relay, bindings and call records."""


# -- `relay700 completion`: shells run it when they start, so it imports no store

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    relay700 completion bash > /etc/bash_completion.d/relay700
    relay700 completion zsh > "${fpath[1]}/_relay700"
    relay700 completion fish > ~/.config/fish/completions/relay700.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "relay700", "_RELAY700_COMPLETE").source())
