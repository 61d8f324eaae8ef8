"""`relay700 probe`: marked calls through the running relay, now."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.cli import config_option, localised, say
from relay.cli.options import Opened, json_option, opened
from relay.cli.output import json_line
from relay.errors import ConfigError, Refused
from relay.events.probe import call_to, note, number_for
from relay.events.probe_call import Result, call
from relay.model.settings import ProbeSettings
from relay.store.unit_of_work import RELAY

_VERDICTS = {
    "proven": "proven: nothing of one side reached the other",
    "leak": "LEAK",
    "failed": "not proven: the call did not get through",
}


@click.command()
@click.option("--peer", metavar="NAME", help="Only through this peer of [probe] callees.")
@json_option
@config_option
def probe(config_path: Path | None, peer: str | None, as_json: bool) -> None:
    """Prove by marked calls that nothing crosses.

    Each message has marks, which the other side is searched for. One call through each peer of [probe] callees. Exit
    status 1 on a leak, and if a call did not get through.
    """
    with opened(config_path) as store:
        settings = store.config.probe
        if settings is None:
            raise ConfigError(["probe: missing; write [probe] with caller and callees, as config/relay.toml has it"])
        callees = [each for each in settings.callees if peer in (None, each[0])]
        if not callees:
            raise click.BadParameter(f"[probe] callees has no {peer}", param_hint="--peer")
        results = [_probe(store, settings, *each) for each in callees]
    for result in results:
        _show(result, as_json=as_json)
    if any(result.outcome != "proven" for result in results):
        raise click.exceptions.Exit(1)


def _probe(store: Opened, settings: ProbeSettings, peer: str, callee: str) -> Result:
    try:
        number = store.writer.run(RELAY, lambda unit: number_for(unit, store.rules, settings.caller, callee))
    except Refused as refused:
        result = Result(peer, "failed", f"no number could be bound: {refused}")
    else:
        result = asyncio.run(call(call_to(settings, peer, callee, number)))
    store.run(lambda unit: note(unit, result))
    return result


def _show(result: Result, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_line(result._asdict()))
        return
    say(f"through {result.peer}: {localised(_VERDICTS[result.outcome])}")
    if result.reason:
        say(f"  {result.reason}")
    if result.outcome == "failed":
        say("  `relay700 calls list` has its outcome; a changed [probe] is in force after `relay700 reload`")
    for leak in result.leaks:
        say(f"  {leak}")
    say(f"  compared with {result.marks} marked lines:")
    for received in result.received:
        say(f"    {received}")
