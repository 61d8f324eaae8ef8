"""Reads files of Alibaba Cloud and Huawei Cloud: exports of bindings, and call records.

A file has JSON (an answer or a push of their API, one or one a line) or CSV with a header. Names of fields are theirs
in any case and with or without underscores, in Chinese as their documents call them. docs/ALIBABA.md says what of this
is documented.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, TextIO, get_args

from relay.errors import ParseError, Refused
from relay.model.numbers import is_700, mask_number, normalise_700, normalise_party
from relay.service.fields import CHINA, invalid

Provider = Literal["alibaba", "huawei"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

Raw = dict[str, str]  # one object, by name in lower case without "_"; values as text, "" for null
_TIME: Final = "%Y-%m-%d %H:%M:%S"
_NOT_JSON: Final = (ValueError, RecursionError)  # the latter for deeply nested values


# -- Objects of a file


def read_objects(file: TextIO, known: Iterable[str]) -> Iterator[tuple[int, Raw]]:
    """Each object of the file, with its line, in JSON its number. Raises ParseError for a file that has none.

    `known` are names of fields: an object with one of them is meant, in any other it is looked for.
    """
    names = frozenset(known)
    first = file.readline()
    while first and not first.strip("\ufeff \t\r\n"):
        first = file.readline()
    if first.lstrip("\ufeff \t")[:1] in ("{", "["):
        number = 0
        for number, found in enumerate(_json_objects(first.lstrip("\ufeff"), file, names), 1):
            yield number, found
        if not number and first.strip("\ufeff \t\r\n") != "[]":
            raise ParseError("no field of this provider is in it")
        return
    reader = csv.reader(chain([first], file))
    try:
        heading = [_name(cell) for cell in next(reader, [])]
        if names.isdisjoint(heading):
            raise _without_fields(first)
        if twice := [name for name in heading if name in names and heading.count(name) > 1]:
            raise ParseError(f"line {reader.line_num}: the column {twice[0]!r} is there twice")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, dict(zip(heading, (cell.strip() for cell in cells), strict=False))
    except csv.Error as error:
        raise ParseError(f"line {reader.line_num}: not CSV: {error}") from None


def _without_fields(first: str) -> ParseError:
    if any("\udc80" <= sign <= "\udcff" for sign in first):  # bytes that are no UTF-8
        return ParseError("it is not UTF-8 text, but GBK perhaps; save it as UTF-8")
    return ParseError("it is neither JSON nor CSV with a header: no field of this provider is in its first line")


def _json_objects(first: str, file: TextIO, names: frozenset[str]) -> Iterator[Raw]:
    try:
        value = json.loads(first)
    except _NOT_JSON:  # not one value a line
        yield from _within(_decoded(first + file.read(), 1), names)
        return
    yield from _within(value, names)
    for number, line in enumerate(file, 2):
        if line.strip():
            yield from _within(_decoded(line, number), names)


def _decoded(text: str, line: int) -> object:
    try:
        return json.loads(text)
    except _NOT_JSON as error:
        raise ParseError(f"line {line}: not JSON: {error}") from None


def _within(value: object, names: frozenset[str]) -> Iterator[Raw]:
    """The objects with known fields inside a decoded value. No recursion: a decoder may go deeper than a generator."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            named = {_name(name): item for name, item in value.items()}
            if names.isdisjoint(named):
                waiting += reversed(value.values())
            else:
                yield {name: _text(item) for name, item in named.items() if not isinstance(item, dict | list)}


def _name(text: object) -> str:
    return str(text).strip().lstrip("\ufeff").replace("_", "").replace(" ", "").lower()


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _first(raw: Raw, names: Iterable[str]) -> str:
    """The value of the first name that has one; "" if none has."""
    return next((raw[name] for name in names if raw.get(name)), "")


# -- Bindings

_BINDING: Final[Mapping[Provider, Mapping[str, tuple[str, ...]]]] = {
    "alibaba": {
        "id": ("subsid", "subid", "绑定关系id"),
        "a": ("phonenoa", "tela", "a号码"),
        "b": ("phonenob", "telb", "b号码"),
        "x": ("phonenox", "telx", "secretno", "x号码"),
        "group": ("groupid",),
        "extension": ("extension", "分机号"),
        "status": ("status",),
        "expires": ("expiredate", "expiration", "过期时间"),
        "restriction": ("callrestrict",),
        "record": ("needrecord", "isrecordingenabled"),
        "order_id": ("orderid", "outorderid"),
        "user_data": ("outid", "外部业务id"),
        "industrial_id": ("industrialid",),
    },
    "huawei": {
        "id": ("subscriptionid", "bindid", "绑定id"),
        "a": ("callernum", "orignum", "numa", "bindnum"),
        "b": ("calleenum", "numb"),
        "x": ("relationnum", "privatenum", "virtualnum", "numx"),
        "y": ("numy",),
        "extension": ("extendnum",),
        "since": ("subscribetime",),
        "lasts": ("duration",),
        "direction": ("calldirection",),
        "record": ("recordflag",),
        "longest": ("maxduration",),
        "user_data": ("userdata",),
    },
}
_RESTRICTED: Final = {"CONTROL_AX_DISABLE": "b_to_a", "CONTROL_BX_DISABLE": "a_to_b"}
_DIRECTIONS: Final = {"": "both", "0": "both", "1": "a_to_b", "2": "b_to_a"}
_YES: Final = {"": False, "0": False, "false": False, "1": True, "true": True}


class ProviderBinding(NamedTuple):
    """A binding of the export: its number there, and what `relay.service.fields.binding` reads, or why it cannot be."""

    line: int
    provider_id: str
    x: str  # there
    written: dict[str, Any] | Refused


def read_bindings(provider: Provider, file: TextIO, business: str, pool: str) -> Iterator[ProviderBinding]:
    """The bindings of an export, to be made for a business user, with numbers of a pool. Raises ParseError.

    A 700 number stays its binding's; another number is replaced by one of the pool ("": any).
    """
    names = _BINDING[provider]
    for line, raw in read_objects(file, (name for each in names.values() for name in each)):
        found = {field: _first(raw, each) for field, each in names.items()}
        try:
            written: dict[str, Any] | Refused = _written(provider, found) | {"business": business, "pool": pool}
        except Refused as refused:
            written = refused
        yield ProviderBinding(line, found["id"], found["x"], written)


def _written(provider: Provider, found: Raw) -> dict[str, Any]:
    if not (found["id"] or found.get("order_id")):
        raise invalid("id", "required: without the binding's id a second import would make it twice")
    if found["extension"]:
        raise invalid("extension", "there are none here: give the customer a number of its own")
    if found.get("status", "1") not in ("", "1"):
        raise invalid("status", "the binding is not in force there")
    form = _alibaba(found) if provider == "alibaba" else _huawei(found)
    return form | {
        "x": _kept(found["x"]),
        "y": _kept(found.get("y", "")),
        "order_id": found.get("order_id") or f"{provider}:{found['id']}",
        "user_data": found["user_data"],
        "record": _flag("record", found["record"]),
    }


def _alibaba(found: Raw) -> dict[str, Any]:
    restricted = found["restriction"]
    if restricted not in ("", "CONTROL_CLEAR_DISABLE", *_RESTRICTED):
        raise invalid("CallRestrict", f"must be one of: {', '.join(_RESTRICTED)}")
    if found["group"]:
        raise invalid("GroupId", "an export has no members: make the group here (relay700 groups), and bind it")
    return {
        "mode": "AXB" if found["b"] else "AXN",
        "a": found["a"],
        "b": found["b"],
        "direction": _RESTRICTED.get(restricted, "both"),
        "expires_in": found["expires"] and _china(found["expires"]).isoformat(),
        "industrial_id": found["industrial_id"],
    }


def _huawei(found: Raw) -> dict[str, Any]:
    if found["direction"] not in _DIRECTIONS:
        raise invalid("callDirection", f"must be one of: {', '.join(filter(None, _DIRECTIONS))}")
    lasts, longest = _whole("duration", found["lasts"]), _whole("maxDuration", found["longest"])
    if lasts and not found["since"]:
        raise invalid("subscribeTime", "required: a binding with a duration ends that long after it")
    expires = lasts and _later(_utc(found["since"]), lasts).isoformat()
    return {
        "mode": "AXYB" if found["y"] else "AXB" if found["b"] else "AXN",
        "a": found["a"],
        "b": found["b"],
        "direction": _DIRECTIONS[found["direction"]],
        "expires_in": expires or "",
        "max_call_s": 60 * longest if longest else None,
    }


def _kept(number: str) -> str:
    """A 700 number in normal form; "" for a number of theirs."""
    try:
        return normalise_700(number)
    except ParseError:
        return ""


def _flag(field: str, text: str) -> bool:
    if text.lower() not in _YES:
        raise invalid(field, "must be true or false")
    return _YES[text.lower()]


def _whole(field: str, text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(field, "must be a whole number")
    return int(text or 0)


def _china(text: str) -> datetime:
    return _moment(text, CHINA)


def _utc(text: str) -> datetime:
    return _moment(text, UTC)


def _moment(text: str, zone: Any) -> datetime:
    try:
        moment = datetime.strptime(text, _TIME).replace(tzinfo=zone)
        moment.astimezone(UTC)  # 0001-01-01 00:00 in China is before the first year of UTC
    except (ValueError, OverflowError):
        raise invalid("time", "must be written yyyy-MM-dd HH:mm:ss") from None
    return moment


def _later(moment: datetime, duration_s: int) -> datetime:
    try:
        return moment + timedelta(seconds=duration_s)
    except OverflowError:
        raise invalid("duration", "must be in the future, and before the year 2200") from None


# -- Call records

Outcome = Literal["answered", "unanswered", "refused"]


class ProviderCall(NamedTuple):
    """A call record of the provider. Numbers are in the normal form, "" where unknown."""

    line: int
    provider_id: str
    caller: str
    callee: str
    at_ms: int
    outcome: Outcome
    duration_s: float
    cause: str  # theirs


_CALLS: Final[Mapping[Provider, tuple[str, ...]]] = {"alibaba": ("callid",), "huawei": ("icid", "sessionid")}


def read_calls(provider: Provider, file: TextIO) -> Iterator[ProviderCall | Refused | None]:
    """The call records of a file; None for a text message, Refused for one that cannot be read. Raises ParseError."""
    read = _alibaba_call if provider == "alibaba" else _huawei_call
    for line, raw in read_objects(file, _CALLS[provider]):
        try:
            yield read(line, raw)
        except Refused as refused:
            yield Refused("invalid", f"line {line}: {refused.field}", refused.problem)


def _alibaba_call(line: int, raw: Raw) -> ProviderCall | None:
    """A SecretReport. Its intercepted calls do not say who called: phone_no is taken."""
    kind = raw.get("calltype", "")
    if kind in ("2", "3", "5"):
        return None
    if kind not in ("0", "1", "4"):
        raise invalid("call_type", "must be one of: 0, 1, 2, 3, 4, 5")
    if not raw.get("callid"):
        raise invalid("call_id", "required")
    a, b = _party("phone_no", raw.get("phoneno", "")), _party("peer_no", raw.get("peerno", ""))
    caller, callee = (b, a) if kind == "1" else (a, b)
    at, start = _china(raw.get("calltime", "")), _china(raw.get("starttime", ""))
    duration_s = (_china(raw.get("releasetime", "")) - start).total_seconds()
    refused = kind == "4" or raw.get("unconnectedcause", "0") not in ("", "0")
    outcome: Outcome = "refused" if refused else "answered" if duration_s > 0 else "unanswered"
    cause = raw.get("unconnectedcause", "") if refused else raw.get("releasecause", "")
    return ProviderCall(line, raw["callid"], caller, callee, _ms(at), outcome, max(duration_s, 0.0), cause)


def _huawei_call(line: int, raw: Raw) -> ProviderCall:
    """A FeeInfo: callee is whom the platform called; without a start of that call it refused the caller's."""
    answered, called = raw.get("fwdanswertime", ""), raw.get("fwdstarttime", "")
    at, end = _utc(raw.get("callintime", "")), _utc(raw.get("callendtime", ""))
    duration_s = (end - _utc(answered)).total_seconds() if answered else 0.0
    outcome: Outcome = "answered" if answered else "unanswered" if called else "refused"
    caller, callee = _party("callerNum", raw.get("callernum", "")), _party("fwdDstNum", raw.get("fwddstnum", ""))
    cause = _first(raw, ("fwdunaswrsn", "ulfailreason"))
    provider_id = _first(raw, ("sessionid", "icid"))
    return ProviderCall(line, provider_id, caller, callee, _ms(at), outcome, max(duration_s, 0.0), cause)


def _party(field: str, text: str) -> str:
    if "*" in text:
        raise invalid(field, "is masked: export the records with real numbers")
    try:
        return normalise_party(text) if text else ""
    except ParseError as error:
        raise invalid(field, error.reason) from None


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def shown(number: str) -> str:
    """A number of a file, for a report: masked unless it is a 700 number; what is not a number is hidden."""
    if is_700(number):
        return number
    try:
        return mask_number(normalise_party(number))
    except ParseError:
        return "****" if number else ""
