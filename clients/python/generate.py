"""Makes models, operations and exceptions from the API's document: `.venv/bin/python clients/python/generate.py`.

It does nothing if they are newer than all of relay/.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Schema = dict[str, Any]
PACKAGE = Path(__file__).parent / "relay700_client"
ROOT = Path(__file__).parents[2]
MADE = [PACKAGE / f"{name}.py" for name in ("models", "operations", "async_operations", "problems")]
HEAD = '"""{}: made by generate.py from /openapi.json."""\n\nfrom __future__ import annotations\n\n'
SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
SPARSE = "fields"  # a parameter that the methods do not take: items would lack fields of their type
DATES = {"date": "date", "date-time": "datetime"}


def generate(document: Schema) -> dict[str, str]:
    """The text of each file, by name."""
    made = _Generator(document)
    return {
        "models.py": made.models(),
        "operations.py": made.operations("Operations", "def", ""),
        "async_operations.py": made.operations("AsyncOperations", "async def", "await "),
        "problems.py": made.problems(),
    }


class _Argument(NamedTuple):
    """A field of a request: its name on the wire, its type, and whether it must be given."""

    name: str
    type: str
    required: bool

    @property
    def python(self) -> str:
        return _python(self.name)

    def __str__(self) -> str:
        return f"{self.python}: {self.type}" if self.required else f"{self.python}: {self.type} | UnsetType = UNSET"


class _Generator:
    def __init__(self, document: Schema) -> None:
        self._document = document
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        self._structs: dict[str, None] = {}  # of responses and events, in order of use
        self._dicts: dict[str, None] = {}  # of requests

    # -- models

    def models(self) -> str:
        """Structs of responses and events, typed dictionaries of what requests contain."""
        self.operations("", "", "")  # notes which are used
        events = {kind: self._event_of(webhook) for kind, webhook in self._document["webhooks"].items()}
        for schema in ("AlteredEvent", *events.values()):
            self._structs[schema] = None
        structs = [text for name in _growing(self._structs) for text in self._struct(name)]
        dicts = [text for name in _growing(self._dicts) for text in self._dict(name)]
        kinds = [f'    "{kind}": {schema},\n' for kind, schema in events.items()]
        union = " | ".join(["OtherEvent", "AlteredEvent", *dict.fromkeys(events.values())])
        head = (
            HEAD.format("What the API answers and is sent")
            + "from datetime import date, datetime\nfrom typing import Any, Literal, NotRequired, TypedDict\n\n"
            "import msgspec\n\n\nclass Model(msgspec.Struct):\n"
            '    """Base of all. Times are aware datetimes."""\n\n'
        )
        other = (
            'class OtherEvent(Model):\n    """An event of a kind that this version does not know."""\n\n'
            "    id: str\n    at: datetime\n    business_id: str\n    kind: str\n\n"
        )
        named = f"\nEvent = {union}\nEVENTS: dict[str, type[Event]] = {{\n{''.join(kinds)}}}\n"
        return head + "\n".join([*structs, "", other, *dicts]) + named

    def _struct(self, name: str) -> Iterator[str]:
        schema = self._schemas[name]
        yield f"\nclass {self._class(name)}(Model):"
        yield f'    """{_text(schema.get("description", name))}"""\n'
        required = schema.get("required", ())
        for field, form in sorted(schema["properties"].items(), key=lambda item: item[0] not in required):
            type_ = self._type(form)
            if field in required:
                yield f"    {_python(field)}: {type_}"
            else:
                default = form.get("default")
                type_ = type_ if default is not None or "None" in type_ else f"{type_} | None"
                yield f"    {_python(field)}: {type_} = {default!r}"
        yield ""

    def _dict(self, name: str) -> Iterator[str]:
        schema = self._schemas[name]
        yield f"\nclass {name}(TypedDict):"
        yield f'    """{_text(schema.get("description", name))}"""\n'
        for field, form in schema["properties"].items():
            type_ = self._type(form, sent=True)
            yield f"    {field}: {type_ if field in schema.get('required', ()) else f'NotRequired[{type_}]'}"
        yield ""

    def _event_of(self, webhook: Schema) -> str:
        events = webhook["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["events"]
        return _name(events["items"]["anyOf"][0])

    def _class(self, name: str) -> str:
        """BindingResponse -> Binding."""
        short = name.removesuffix("Response")
        return name if short in self._schemas else short

    def _type(self, schema: Schema, prefix: str = "", *, sent: bool = False) -> str:
        """The Python type. Words of an enumeration are those of today if they are sent, any if they are received."""
        match schema:
            case {"$ref": ref}:
                return self._named(ref.rpartition("/")[2], prefix, sent=sent)
            case {"anyOf": forms} | {"oneOf": forms}:
                return " | ".join(dict.fromkeys(self._type(form, prefix, sent=sent) for form in forms))
            case {"enum": words} if sent:
                return f"Literal[{', '.join(map(json.dumps, words))}]"
            case {"type": "array", "items": items}:
                return f"list[{self._type(items, prefix, sent=sent)}]"
            case {"type": "object", "additionalProperties": dict(values)}:
                return f"dict[str, {self._type(values, prefix, sent=sent)}]"
            case {"type": "object"}:
                return "dict[str, Any]"
            case {"type": "string", "format": ("date" | "date-time") as form}:
                return DATES[form]
            case {"type": type_}:
                return SIMPLE[type_]
        return "Any"

    def _named(self, name: str, prefix: str, *, sent: bool) -> str:
        schema = self._schemas[name]
        if "properties" not in schema:
            return self._type(schema, prefix, sent=sent)
        (self._dicts if sent else self._structs)[name] = None
        return prefix + (name if sent else self._class(name))

    # -- operations

    def operations(self, class_: str, def_: str, await_: str) -> str:
        """The class with a method for each operation."""
        methods = [
            self._method(path, method, operation, def_, await_)
            for path, operations in self._document["paths"].items()
            for method, operation in operations.items()
        ]
        ask = (
            "    @abstractmethod\n"
            f"    {def_} _ask(\n        self,\n        method: str,\n        path: str,\n"
            "        to: type[T],\n        *,\n"
            "        query: Mapping[str, object] | None = None,\n        body: Mapping[str, object] | None = None,\n"
            "        key: str | None = None,\n    ) -> T: ...\n"
        )
        return (
            HEAD.format("The operations of the API")
            + "import secrets\nfrom abc import ABC, abstractmethod\nfrom collections.abc import Mapping\n"
            "from datetime import date, datetime\nfrom typing import Any, Literal, TypeVar\n"
            "from urllib.parse import quote\n\nfrom msgspec import UNSET, UnsetType\n\n"
            'from relay700_client import models\n\nT = TypeVar("T")\n\n\n'
            f'class {class_}(ABC):\n    """A method for each operation."""\n\n' + "\n".join([ask, *methods])
        )

    def _method(self, path: str, method: str, operation: Schema, def_: str, await_: str) -> str:
        name = re.sub("([A-Z])", r"_\1", operation["operationId"]).lower()
        places = [self._argument(each) for each in operation.get("parameters", ()) if each["in"] == "path"]
        queried = [each for each in operation.get("parameters", ()) if each["in"] == "query" and each["name"] != SPARSE]
        query = [self._argument(each) for each in queried]
        body = self._body(operation)
        takes_key = any(each["name"] == "idempotency-key" for each in operation.get("parameters", ()))
        given = sorted([*body, *query], key=lambda each: not each.required)
        if len({each.python for each in given}) < len(given):
            raise ValueError(f"{name}: a field of the body and of the query have the same name")
        last = ["idempotency_key: str | None = None"] if takes_key else []
        keywords = ["*", *map(str, given), *last] if given or last else []
        to, returned = self._returned(operation)
        text = f"{operation['summary']}.\n\n{operation.get('description', '')}".strip()
        call = [json.dumps(method.upper()), _path(path), to]
        call += [f"query={_values(query)}"] if query else []
        call += [f"body={_values(body)}"] if "requestBody" in operation else []
        call += ["key=idempotency_key or secrets.token_hex(16)"] if takes_key else []
        arguments = "".join(f"\n        {each}," for each in ["self", *map(str, places), *keywords])
        asked = "".join(f"\n            {each}," for each in call)
        return (
            f'    {def_} {name}({arguments}\n    ) -> {returned}:\n        """{_text(text, 8)}"""\n'
            f"        return {await_}self._ask({asked}\n        )\n"
        )

    def _argument(self, parameter: Schema) -> _Argument:
        type_ = self._type(parameter["schema"], "models.", sent=True)
        return _Argument(parameter["name"], type_, parameter.get("required", False))

    def _body(self, operation: Schema) -> list[_Argument]:
        if "requestBody" not in operation:
            return []
        schema = self._schemas[_name(operation["requestBody"]["content"]["application/json"]["schema"])]
        required = schema.get("required", ())
        return [
            _Argument(name, self._type(form, "models.", sent=True), name in required)
            for name, form in schema["properties"].items()
        ]

    def _returned(self, operation: Schema) -> tuple[str, str]:
        """The type to decode, and the type returned."""
        (answer,) = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        forms = answer.get("content", {})
        if "schema" not in forms.get("application/json", {}):
            return "bytes", "bytes"
        type_ = self._type(forms["application/json"]["schema"], "models.")
        return type_, type_ if len(forms) == 1 else f"{type_} | bytes"

    # -- exceptions

    def problems(self) -> str:
        """An exception for each kind of problem."""
        kinds = {
            kind: f"{example['summary']}: {status}."
            for status, answer in self._document["components"]["responses"].items()
            for kind, example in answer["content"]["application/problem+json"]["examples"].items()
        }
        classes = [
            f'class {_camel(kind)}(ApiError, kind="{kind}"):\n    """{text}"""\n' for kind, text in kinds.items()
        ]
        return (
            HEAD.format("An exception for each kind of problem")
            + "from relay700_client.errors import ApiError\n\n"
            + f"__all__ = {[_camel(kind) for kind in kinds]!r}\n\n\n"
            + "\n\n".join(classes)
        )


def _growing(names: dict[str, None]) -> Iterator[str]:
    """The names, also those that are added meanwhile."""
    done: set[str] = set()
    while left := [name for name in names if name not in done]:
        done.update(left)
        yield from left


def _name(schema: Schema) -> str:
    return str(schema["$ref"].rpartition("/")[2])


def _camel(words: str) -> str:
    return "".join(word.capitalize() for word in words.split("_"))


def _python(name: str) -> str:
    return name + "_" * keyword.iskeyword(name)


def _path(path: str) -> str:
    filled = re.sub(r"\{(\w+)\}", r"{quote(\1, safe='')}", path)
    return f'f"{filled}"' if filled != path else f'"{path}"'


def _values(arguments: list[_Argument]) -> str:
    return "{" + ", ".join(f'"{each.name}": {each.python}' for each in arguments) + "}"


def _text(text: str, indent: int = 4) -> str:
    """The text of a docstring."""
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    text = re.sub("\n{3,}", "\n\n", text)
    lines = [line and " " * indent + line for line in text.split("\n")]
    return "\n".join(lines).strip() + ("\n" + " " * indent if "\n" in text else "")


def is_current() -> bool:
    """Whether all files are there, and no source is newer."""
    sources = [Path(__file__), *(ROOT / "relay").rglob("*.py")]
    return all(path.exists() for path in MADE) and (
        min(path.stat().st_mtime for path in MADE) > max(path.stat().st_mtime for path in sources)
    )


def main() -> None:
    if is_current():
        return
    sys.path.insert(0, str(ROOT))
    from relay.api.app import openapi_document

    for name, text in generate(json.loads(openapi_document())).items():
        part = PACKAGE / f"{name}.{os.getpid()}"  # others may read the file, or write it
        part.write_text(text)
        part.replace(PACKAGE / name)


if __name__ == "__main__":
    main()
