"""Explanations of calls for output, and those that are made without a running relay, from the store alone.

Owns the form. `relay.policy.explain` makes the checks. Real numbers are masked, always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from relay.errors import Refused
from relay.model.call import CallRecord, Refusal
from relay.model.numbers import mask_number
from relay.model.settings import Peer, Settings
from relay.policy.evaluate import LookupResult
from relay.policy.explain import SOURCE, Explanation, TrialCall, explain
from relay.policy.figures import CapCounts
from relay.policy.rules import Cap, Rules
from relay.service.fields import format_moment
from relay.store.connection import Connection, Place
from relay.store.database import reading
from relay.store.lookup_at import Moment, PastLookUps
from relay.store.records import RecordFilter, live_calls, read_all
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.lookup import RouteReader
from relay.translation import N_

EXPLANATIONS_PER_S: Final = 20  # of the API, per business user, and for the operator
Source = Literal["relay", "store", "history"]
GRANTED: Final = "granted"


def peer_named(settings: Settings, name: str | None) -> Peer | None:
    """The peer of that name; None without a name. Raises Refused."""
    if name is None:
        return None
    for peer in settings.peers:
        if peer.name == name:
            return peer
    raise Refused("not_found", "peer", "there is no such peer; `relay700 peers list` shows them")


def explanation_form(
    call: TrialCall, told: Explanation, source: Source, *, for_operator: bool = True
) -> dict[str, Any]:
    """The fields of an explanation. Without `for_operator` nothing of peers is in it."""
    answer = told.answer
    values: dict[str, Any] = {
        "number_dialled": mask_number(call.number),
        "caller": mask_number(call.caller),
        "peer": None if call.peer is None else call.peer.name,
        "at": format_moment(int(call.unix_s * 1000)),
        "source": source,
        "checks": [check._asdict() for check in told.checks],
        "binding_id": answer.binding_id or None,
        "mode": answer.mode or None,
        "business": answer.business or None,
    }
    if isinstance(answer, Refusal):
        values |= {"outcome": answer.outcome, "sip_status": answer.status, "q850_cause": answer.q850_cause}
        values |= {"retry_after_s": answer.retry_after_s, "callee": None, "caller_sees": None, "callee_sees": None}
    else:
        values |= {"outcome": GRANTED, "sip_status": None, "q850_cause": None, "retry_after_s": None}
        values |= {"callee": mask_number(answer.callee), "caller_sees": mask_number(call.number)}
        values |= {"callee_sees": mask_number(answer.shown)}
    values["targets"] = [target._asdict() for target in told.targets]
    values["notes"] = []
    return values if for_operator else _for_business(values)


def _for_business(values: dict[str, Any]) -> dict[str, Any]:
    checks = [check | {"figures": ""} if _is_of_peers(check) else check for check in values["checks"]]
    return values | {"checks": checks, "targets": [], "peer": None}


def _is_of_peers(check: dict[str, str]) -> bool:
    """Whether the figures name a peer, its targets or an address."""
    return check["name"] == "targets" or (check["name"] == SOURCE and check["verdict"] != "not applicable")


def only_of(found: LookupResult | Refusal, business: str | None) -> LookupResult | Refusal:
    """The look-up as a business user may see it: without another's binding. None: the operator sees all."""
    if business is None or isinstance(found, Refusal) or found.bound is None or found.bound.business == business:
        return found
    return found._replace(bound=None, is_own=False)


# The checks of an explanation and their verdicts, in words.
CHECKS: Final = {
    "request": N_("the request itself"),
    "source": N_("source"),
    "pauses": N_("pauses after refusals"),
    "limits of the relay": N_("limits of the relay"),
    "number dialled": N_("number dialled"),
    "caller of the peer": N_("caller of the peer"),
    "look-up": N_("look-up in the store"),
    "number": N_("number in service"),
    "legacy number": N_("old number in service"),
    "caller": N_("caller"),
    "binding": N_("binding"),
    "binding in force": N_("binding in force"),
    "business": N_("state of the business user"),
    "direction": N_("direction"),
    "lists": N_("blacklist and whitelist"),
    "hours": N_("service hours"),
    "filing": N_("filing with the carriers"),
    "caller as party": N_("kind of caller"),
    "callee": N_("somebody to call"),
    "frequency caps": N_("frequency caps"),
    "business rate": N_("calls a second of the business"),
    "business hook": N_("business hook"),
    "verification hook": N_("verification hook"),
    "calls at once": N_("calls at once"),
    "targets": N_("targets"),
}
VERDICTS: Final = {
    "pass": N_("passed"),
    "fail": N_("failed here"),
    "not reached": N_("not reached"),
    "not known": N_("not known"),
    "not applicable": N_("does not apply"),
    "not asked": N_("not asked"),
}


# -- Without a running relay


NO_HISTORY: Final = "number locks and list entries removed since have no history: they are taken as now"
LIMITS_CHANGED: Final = "hours, lists and limits of the business user are those of now: it was changed since"
_PAST: Final = "not kept for a past time"


class PolicyConfiguration(NamedTuple):
    """The parts of a configuration that explanations and replays use. `note`: which one it is."""

    rules: Rules
    settings: Settings
    cool_down_ms: int
    note: str = ""


def explain_at(
    connection: Connection,
    sealer: Sealer,
    configured: PolicyConfiguration,
    call: TrialCall,
    *,
    business: str | None = None,
) -> dict[str, Any]:
    """Explain a call of an earlier time, from the history of its binding and the records of granted calls.

    `configured`: of that time. `business`: the requester, as in `only_of`. Raises StoreError.
    """
    rules, settings, cool_down_ms, note = configured
    past = PastLookUps(connection, sealer, rules.parties)
    asked = Moment(call.number, call.caller, int(call.unix_s * 1000))
    found = past.found_at(asked, filing=rules.filing_required, cool_down_ms=cool_down_ms)
    seen, counts = only_of(found, business), counts_at(connection, sealer, rules, call)
    told = explain(call, seen, rules, settings, None, counts=counts, why_not_known=_PAST)
    values = explanation_form(call, told, "history", for_operator=business is None)
    owner = None if found.bound is None else past.business(found.bound.business)
    changed = [LIMITS_CHANGED] if owner is not None and owner.updated_at > asked.at_ms and values["business"] else []
    return values | {"notes": [note, NO_HISTORY, *changed]}


def explain_by_store(place: Place, sealer: Sealer, rules: Rules, settings: Settings, call: TrialCall) -> dict[str, Any]:
    """Explain a call by the store as it is, and by the records of granted calls. Raises StoreError."""
    found = _looked_up(place, sealer, rules, call)
    with reading(place) as connection:
        counts = counts_at(connection, sealer, rules, call)
    return explanation_form(call, explain(call, found, rules, settings, None, counts=counts), "store")


def _looked_up(place: Place, sealer: Sealer, rules: Rules, call: TrialCall) -> LookupResult | Refusal:
    if isinstance(place, Path):
        with closing(RouteReader(place, sealer, rules, lambda *_: None)) as reader:
            return reader.fetch(call.number, call.caller, call.unix_s)
    return asyncio.run(_looked_up_on_server(place, sealer, rules, call))


async def _looked_up_on_server(place: Any, sealer: Sealer, rules: Rules, call: TrialCall) -> LookupResult | Refusal:
    from relay.store.postgres.lookup import PostgresRouteReader

    with closing(PostgresRouteReader(place, sealer, rules, lambda *_: None)) as reader:
        await reader.open()
        found, _ = await reader.peek(call.number, call.caller, call.unix_s, rules)
        return found


def counts_at(connection: Connection, sealer: Sealer, rules: Rules, call: TrialCall) -> CapCounts:
    """The granted calls to the number before the call, from their records, for each cap."""
    caps = (*rules.caller_caps, *rules.number_caps)
    if not caps:
        return CapCounts()
    at_ms = int(call.unix_s * 1000)
    since_ms = at_ms - 1000 * max(cap.window_s for cap in caps)
    granted = list(_granted(connection, sealer, RecordFilter(number=call.number, since_ms=since_ms, until_ms=at_ms)))
    of_caller = [record.received_at for record in granted if record.caller == call.caller]
    of_number = [record.received_at for record in granted]
    return CapCounts(_in_windows(rules.caller_caps, of_caller, at_ms), _in_windows(rules.number_caps, of_number, at_ms))


def _granted(connection: Connection, sealer: Sealer, wanted: RecordFilter) -> Iterator[CallRecord]:
    seen: set[str] = set()
    for record in (*live_calls(connection, sealer), *read_all(connection, sealer, wanted)):
        is_new = record.call_id not in seen and wanted.fits(record)
        if is_new and record.is_granted and record.number_dialled == wanted.number:
            seen.add(record.call_id)
            yield record


def _in_windows(caps: tuple[Cap, ...], times_ms: list[int], at_ms: int) -> list[int]:
    return [sum(time_ms > at_ms - 1000 * cap.window_s for time_ms in times_ms) for cap in caps]
