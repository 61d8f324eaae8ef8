"""`relay700 explain`: why a call is refused, or where it goes, check by check. It makes no call and counts none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, listed, localised, say
from relay.cli.options import SINCE, Opened, json_option, number, opened, past, required
from relay.cli.output import json_line, progress, table
from relay.cli.serve import ask
from relay.config import load_config
from relay.config.kept import configured, configured_at
from relay.errors import Refused
from relay.policy.explain import TrialCall
from relay.privacy.records import is_stranger
from relay.reports.explain import CHECKS, VERDICTS, explain_at, explain_by_store, peer_named
from relay.reports.recordings import find_call
from relay.reports.what_if import LIMITS, what_if
from relay.service.fields import format_moment
from relay.store.database import one_moment
from relay.store.records import count_ended
from relay.store.writer import now_ms
from relay.translation import N_

ANONYMOUS = "anonymous"
_CHECK_HEADING = ("check", "result", "figures")
_TARGET_HEADING = ("peer", "target", "state")
_NOTE = N_("note")
_SOURCES = {
    "relay": "by the running relay",
    "store": "by the store: the relay does not run",
    "history": "by history",
}


def _caller(text: str) -> str:
    """A click type: a number, or "anonymous" as ""."""
    return "" if text.strip().lower() == ANONYMOUS else number(text)


@click.command()
@click.option("--caller", type=_caller, metavar="NUMBER", help=f'The caller, or "{ANONYMOUS}".')
@click.option("--dialled", type=number, metavar="NUMBER", help="The 700 number that is dialled.")
@click.option("--peer", metavar="NAME", help="The peer that sends the call. Without it no check of the peer applies.")
@click.option(
    "--at",
    "at_ms",
    type=past,
    metavar="TIME",
    help="A past time: 2026-01-31T08:00:00Z, 2026-01-31 for midnight in China, or 2h (ago).",
)
@click.option("--call", "call_id", metavar="ID", help="A recorded call: its caller, number, peer and time.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="What if: replay the attempts recorded since --since against this configuration.",
)
@click.option("--since", type=past, metavar="TIME", help=SINCE)
@json_option
@config_option
def explain(
    config_path: Path | None,
    caller: str | None,
    dialled: str | None,
    peer: str | None,
    at_ms: int | None,
    call_id: str | None,
    policy: Path | None,
    since: int | None,
    as_json: bool,
) -> None:
    """Show the checks of a call, and its outcome.

    Each check has the figures that it went by; a call that passes, its targets. No call is made, none is counted, and
    no hook is asked. Without a running relay its counts in memory are not known. With --at or
    --call it uses the configuration and bindings of that time, and the call records. Real numbers are masked.

    With --policy and --since it shows how many recorded attempts would have been refused by another configuration, and
    how many would no longer be.
    """
    if policy is not None:
        if since is None or any(option is not None for option in (caller, dialled, peer, at_ms, call_id)):
            raise click.UsageError("--policy goes with --since, and with no option of a single call")
        with opened(config_path) as store:
            _replay(store, policy, since, as_json=as_json)
        return
    if call_id is not None:
        if any(option is not None for option in (caller, dialled, peer, at_ms, since)):
            raise click.UsageError("--call has caller, number, peer and time from the record: leave out other options")
        with opened(config_path) as store:
            told = _recorded(store, call_id)
    elif caller is None or dialled is None or since is not None:
        raise click.UsageError("give --call, or --caller and --dialled, or --policy and --since")
    else:
        with opened(config_path) as store:
            told = _now(store, caller, dialled, peer) if at_ms is None else _then(store, caller, dialled, peer, at_ms)
    if as_json:
        click.echo(json_line(told))
        return
    for line in _lines(told):
        click.echo(line)


def _now(store: Opened, caller: str, dialled: str, peer: str | None) -> dict[str, Any]:
    try:
        return ask(store.config, "explain", number=dialled, caller=caller, peer=peer)
    except Refused as refused:
        if refused.kind != "relay_unavailable":
            raise
    config = store.config
    call = TrialCall(dialled, caller, time.time(), peer_named(config.settings, peer))
    return explain_by_store(config.store.path, store.sealer, config.rules, config.settings, call)


def _then(
    store: Opened, caller: str, dialled: str, peer: str | None, at_ms: int, *, stranger: str = ""
) -> dict[str, Any]:
    if at_ms > now_ms():
        raise click.BadParameter("it is in the future", param_hint="--at")
    then = configured_at(store.reader, store.sealer, store.config, at_ms)
    call = TrialCall(dialled, caller, at_ms / 1000, peer_named(then.settings, peer), stranger)
    with one_moment(store.reader):
        return explain_at(store.reader, store.sealer, then, call)


def _recorded(store: Opened, call_id: str) -> dict[str, Any]:
    record = required(find_call(store.reader, store.sealer, call_id), "call", "calls list")
    stranger = (record.source or "-") if is_stranger(record) else ""  # old records have no source
    told = _then(
        store, record.caller, record.number_dialled, record.peer_in or None, record.received_at, stranger=stranger
    )
    recorded = ("outcome", "sip_status", "end_reason", "decided_by")
    return told | {"recorded": {name: getattr(record, name) for name in recorded}}


def _lines(told: dict[str, Any]) -> Iterator[str]:
    caller, dialled = told["caller"] or ANONYMOUS, told["number_dialled"] or "something that is no number"
    if told["peer"] is None:
        yield localised(f"{caller} dials {dialled} at {told['at']}, {_SOURCES[told['source']]}")
    else:
        yield localised(f"{caller} dials {dialled} by peer {told['peer']} at {told['at']}, {_SOURCES[told['source']]}")
    yield ""
    rows = [
        (_in_words(check["name"], CHECKS), _in_words(check["verdict"], VERDICTS), localised(check["figures"]))
        for check in told["checks"]
    ]
    yield from table(_CHECK_HEADING, rows)
    yield ""
    callee = f"granted: {told['callee']} is called"
    if recorded := told.get("recorded"):
        parts = [f"recorded: {recorded['outcome'] or 'not over'}, SIP {recorded['sip_status'] or '-'}"]
        if recorded["end_reason"] not in (None, recorded["outcome"]):
            parts.append(f"end reason {recorded['end_reason']}")
        if by := {"hook": "by the business user's hook", "verify": "by [verify]"}.get(recorded["decided_by"]):
            parts.append(by)
        yield listed(parts)
        if recorded["outcome"] not in (None, "answered"):
            callee = f"no check refuses it, {told['callee']} was to be called: what is recorded ended it afterwards"
    yield from (localised(f"{_NOTE}: {note}") for note in told["notes"])
    if told["sip_status"] is None:
        yield localised(callee)
        yield localised(f"the caller sees {told['caller_sees']}, the callee {told['callee_sees'] or ANONYMOUS}")
        if told["targets"]:
            yield from table(_TARGET_HEADING, map(_target, told["targets"]))
        return
    parts = [f"refused: {told['outcome']}, SIP {told['sip_status']}, Q.850 cause {told['q850_cause']}"]
    if told["retry_after_s"] is not None:
        parts.append(f"Retry-After {told['retry_after_s']} s")
    yield listed(parts)


def _in_words(name: str, words: dict[str, str]) -> str:
    """A name of the API as it is in English, where it is a word; in Chinese the console's words."""
    shown = localised(words[name])
    return name if shown == words[name] else shown


def _target(target: dict[str, Any]) -> tuple[str, ...]:
    state = "at its limit" if target["is_full"] else target["state"] or "not known"
    return target["peer"], target["target"], localised(state)


# -- What if

_CHANGE_HEADING = ("change", "outcome", "attempts")
_CHANGES = {
    "newly_refused": "newly refused",
    "no_longer_refused": "no longer refused",
    "otherwise_refused": "refused otherwise",
    "not_replayed": "not replayed",
}


def _replay(store: Opened, policy: Path, since_ms: int, *, as_json: bool) -> None:
    other, until_ms = configured(load_config(policy)), now_ms()
    count = count_ended(store.reader, since_ms, until_ms)
    with progress(count, "attempts") as step:
        done = 0
        for found in what_if(store.reader, store.sealer, other, since_ms, until_ms):
            step(found.attempts - done)
            done = found.attempts
    span = {"since": format_moment(since_ms), "until": format_moment(until_ms)}
    if as_json:
        click.echo(json_line({"policy": str(policy), **span, **found._asdict(), "limits": list(LIMITS)}))
        return
    say(f"{found.attempts} attempts from {span['since']} to {span['until']}, by {policy}")
    changes = [(words, getattr(found, name)) for name, words in _CHANGES.items()]
    rows = [(localised(N_("unchanged")), "", str(found.unchanged))]
    for words, counts in changes:
        rows.append((localised(words), "", str(sum(counts.values()))))
        rows += [("", outcome, str(number)) for outcome, number in counts.items()]
    for line in table(_CHANGE_HEADING, rows):
        click.echo(line)
    for limit in LIMITS:
        say(f"{_NOTE}: {limit}")
