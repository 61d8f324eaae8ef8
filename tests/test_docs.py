"""Paths, classes, settings and commands named in the documents exist."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import runpy
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

import relay
from relay import metrics
from relay.api.app import openapi_document
from relay.cli import main
from relay.config.tables import Tables
from relay.console.app import ROUTES
from relay.model import actions
from relay.model.outcomes import OUTCOMES
from tests.config.test_tables import msgspec_struct
from tests.test_metrics import read

PAGES = [Path(name) for name in ("README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS = [*PAGES, *Path("docs").rglob("*.md")]
MOST_WORDS = {"README.zh-CN.md": 1_400, "CHANGELOG.md": 1_500, "CONTRIBUTING.md": 780}
MOST_WORDS_OF_A_CELL = 25
RULES = Path("docs/RULES.md")

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]+)\)")
_ANCHOR = re.compile(r"\]\(([^):#]*)#([^)]+)\)")
_PATH = re.compile(r"(?:\./)?((?:relay|config|scripts|tests|docs|\.ci)/[\w./-]+)")
_METRIC = re.compile(r"\brelay700_(\w+)")
_SETTING = re.compile(r"\[{1,2}(\w+)\]{1,2} (\w+)")
_UNIT = r"(\d+) (?:ms|s|seconds)\b"
_DEFAULT = re.compile(rf"`\[(\w+)\] (\w+)`(?: \(|, ){_UNIT}|{_UNIT} \(`\[(\w+)\] (\w+)`")  # (`[sip] drain_s`, 30 s)
_ADDRESS = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /\S+|/console/\S*")
LOGGING = {"error", "exception", "report", "_report", "_tell"}  # functions that log an event, mostly as an error

_NAME = re.compile(r"([A-Z]\w+)(?:\.(\w+))?")

# Words that only look like one of our classes.
_FOREIGN = set("INVITE SIGTERM SIGUSR1 Contact From Via Require Allow ACK BYE CANCEL Final".split())


def code(path: Path) -> list[str]:
    """The inline code of a document, without fenced blocks."""
    return _CODE.findall(_FENCE.sub("", path.read_text()))


@cache
def classes() -> dict[str, list[type]]:
    """All classes of the package, by name."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(relay.__path__, "relay."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, type):
                    found.setdefault(name, []).append(value)
    return found


def test_paths_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        named = [link for link in _LINK.findall(text) if "://" not in link]
        named = [str(document.parent / link) for link in named]
        named += [found[1] for word in code(document) if (found := _PATH.fullmatch(word.split()[0]))]
        assert named, document
        assert [path for path in named if not Path(path).exists()] == [], document


def written() -> list[Path]:
    """The documents that people write: not those of scripts/reference."""
    return [path for path in [*Path().glob("*.md"), *Path("docs").rglob("*.md")] if path.parent.name != "reference"]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, in the forges' notation."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_link_anchors_exist() -> None:
    for document in DOCUMENTS:
        for path, anchor in _ANCHOR.findall(document.read_text()):
            assert anchor in anchors(document.parent / path if path else document), f"{document}: {path}#{anchor}"


def test_settings_exist() -> None:
    tables = {field.name: field.type for field in msgspec.structs.fields(Tables)}
    for document in written():
        for table, setting in _SETTING.findall(document.read_text()):
            if table in tables:
                settings = [field.name for field in msgspec.structs.fields(msgspec_struct(tables[table]))]
                assert setting in settings, f"{document}: [{table}] {setting}"


def test_stated_defaults_are_correct() -> None:
    text = "".join(document.read_text() for document in [*DOCUMENTS, Path("CHANGELOG.md")])
    told = [
        (table or other_table, setting or other_setting, float(before or after))
        for table, setting, after, before, other_table, other_setting in _DEFAULT.findall(text)
    ]
    assert told
    for table, setting, value in told:
        assert getattr(getattr(Tables(), table), setting) == value, f"[{table}] {setting}"


def test_classes_and_constants_exist() -> None:
    source = "\n".join(path.read_text() for path in Path("relay").rglob("*.py"))
    for word in code(Path("ARCHITECTURE.md")):
        found = _NAME.fullmatch(word)
        if re.fullmatch("_?[A-Z][A-Z_0-9]+", word) and word not in _FOREIGN:
            assert re.search(rf"^{word}\b.* = ", source, re.MULTILINE), word
            continue
        if found and found[1] not in _FOREIGN:
            assert found[1] in classes(), word
            assert not found[2] or any(hasattr(each, found[2]) for each in classes()[found[1]]), word


def commands(document: Path) -> list[tuple[str, str]]:
    """The commands in a document, as (whole line, sub-command)."""
    shown = "\n".join([*_FENCE.findall(document.read_text()), *code(document)])
    return re.findall(r"^\s*((?:\S*/)?relay700 (\w[\w-]*).*)$", shown, re.MULTILINE)


def test_the_pages_of_reference_are_what_the_code_makes() -> None:
    for path, text in runpy.run_path("scripts/reference")["pages"]().items():
        assert Path(path).read_text() == text, f"{path}: run scripts/reference"


def test_the_reference_has_every_command() -> None:
    named = re.findall(r"^## (relay700 .+)$", Path("docs/reference/commands.md").read_text(), re.MULTILINE)
    assert {name.split()[1] for name in named} == set(main.list_commands(click.Context(main)))


def words_of(path: Path) -> int:
    """Words of a document, parted by blanks also in Chinese. A sign of a table or a picture is none."""
    return len(re.findall(r"\S*\w\S*", path.read_text()))


def test_documents_stay_short() -> None:
    """`scripts/counts --check` has the limits of README and of all documents."""
    for path, most in MOST_WORDS.items():
        assert words_of(Path(path)) <= most, path


def test_no_sentence_begins_with_its_object() -> None:
    """Subject, verb, object: not "Of a call the record", "What it says is"."""
    for document in written():
        sentences = re.split(r"(?<=[.?!:])\s+|\n\n|\n *- |\| ", _FENCE.sub("", document.read_text()))
        begun = [each for each in sentences if re.match(r"(?:\*\*|- )?(What|Whose|Of an?|That of)\b[^?]*$", each)]
        assert begun == [], document


def test_no_cell_of_a_table_is_a_paragraph() -> None:
    for document in [*DOCUMENTS, Path("CHANGELOG.md")]:
        rows = re.findall(r"^\|(.*)\|$", _FENCE.sub("", document.read_text()), re.MULTILINE)
        cells = [cell for row in rows for cell in re.split(r"(?<!\\)\|", row)]
        assert [cell for cell in cells if len(cell.split()) > MOST_WORDS_OF_A_CELL] == [], document


def test_command_options_exist() -> None:
    for document in DOCUMENTS:
        for line, name in commands(document):
            command = main.get_command(click.Context(main), name)
            assert command is not None
            words = set(re.findall(r"(?<![\w-])(-c|--[\w-]+)", line))
            for each in [command, *getattr(command, "commands", {}).values()]:
                words -= {
                    option for parameter in each.params for option in (*parameter.opts, *parameter.secondary_opts)
                }
            assert not words, f"{document}: {line}: {words}"


@cache
def addresses() -> re.Pattern[str]:
    """The operations of the API, such as "GET /v1/calls/{call_id}", and the console's pages, with any ids in them."""
    paths = json.loads(openapi_document())["paths"]
    known = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    known += [f"/console{route.path}" for route in ROUTES]
    return re.compile("|".join(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(each)) for each in known))


def test_addresses_of_the_api_and_the_console_exist() -> None:
    for document in DOCUMENTS:
        named = [word.partition("?")[0] for word in code(document) if _ADDRESS.fullmatch(word)]
        assert [each for each in named if not addresses().fullmatch(each)] == [], document


def test_sub_commands_exist() -> None:
    for document in DOCUMENTS:
        for line, name in commands(document):
            group = main.get_command(click.Context(main), name)
            if isinstance(group, click.Group) and (found := re.search(rf"relay700 {name} ([a-z][\w-]*)", line)):
                assert found[1] in group.commands, f"{document}: {line}"


def test_outcomes_to_search_for_exist() -> None:
    for document in DOCUMENTS:
        assert set(re.findall(r"--outcome ([a-z_]+)", document.read_text())) <= set(OUTCOMES), document


@pytest.mark.parametrize("document", ["docs/CALLS.md", "docs/zh/CALLS.md"])
def test_each_outcome_of_a_call_has_a_line(document: str) -> None:
    rows = re.findall(r"^- \d{3}[^:：`]*`(\w+)`", Path(document).read_text(), re.MULTILINE)
    assert {*rows} == {*OUTCOMES} - {"delivered"}  # a text message that arrived


def test_each_duty_is_shown_by_something() -> None:
    duties = re.findall(r"^- (.*)$", RULES.read_text(), re.MULTILINE)
    assert [duty for duty in duties if not re.search("→ `(relay700|GET|POST|/console)", duty)] == []


def test_the_state_of_each_part_is_one_of_three() -> None:
    for line in re.findall(r"^- .*$", Path("docs/READINESS.md").read_text(), re.MULTILINE):
        assert re.search(r"^- \*\*\w|\(\*\*(production|tried|not tried)\*\*\): ", line), line


VERSION = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
NEWEST = next(line for line in Path("CHANGELOG.md").read_text().splitlines() if line.startswith("## "))


def test_the_changelog_begins_with_the_version() -> None:
    assert NEWEST.startswith(f"## [{VERSION}] - ")


def test_a_final_version_has_a_day_and_a_security_contact() -> None:
    """A candidate may lack them."""
    unfilled = {"day": "not published yet" in NEWEST, "contact": "not set yet" in Path("SECURITY.md").read_text()}
    assert not (re.fullmatch(r"[\d.]+", VERSION) and any(unfilled.values())), unfilled


QUERIES = [Path("config/grafana/relay700.json"), Path("config/prometheus/relay700.rules.yml")]


def test_metrics_exist() -> None:
    tables: list[dict[str, Any]] = [
        *(metrics._GAUGES, metrics._COUNTERS, metrics._LABELLED, metrics._LABELLED_GAUGES, metrics._HISTOGRAMS)
    ]
    for document in [*DOCUMENTS, Path("CHANGELOG.md"), *QUERIES]:
        named = {name.removesuffix("_total").removesuffix("_bucket") for name in _METRIC.findall(document.read_text())}
        assert named <= {name for table in tables for name in table}, document


def errors() -> set[str]:
    """The events that the log has as errors, but for those of libraries."""
    found = {event for event, level in actions._LEVELS.items() if level == "error"}
    for path in Path("relay").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in LOGGING:
                words = [each.value for each in node.args if isinstance(each, ast.Constant)]
                found |= {word for word in words if re.fullmatch(r"[a-z]+\.[a-z_]+", str(word))}
    return {event for event in found if not event.endswith((".recovered", ".up", ".answers_again"))}


def test_the_manual_names_each_error_of_the_log() -> None:
    named = {word for page in Path("docs").glob("*.md") for word in re.findall(r"`([\w.]+)`", page.read_text())}
    assert len(errors()) > 30
    assert sorted({*errors(), "backend.ended"} - named) == []


def test_predefined_close_reasons_are_exactly_those_in_the_code() -> None:
    """Reasons for closing a connection are literals in the code."""
    source = Path("relay/net/stream.py").read_text() + Path("relay/net/streams.py").read_text()
    words = re.findall(r'(?:abort\(|broken = |broken or |closed_because\[)"(\w+)"', source)
    told = read(metrics.text(metrics.with_zeros({}, [])))["relay700_streams_closed"][2]
    assert {labels["why"] for labels, _ in told} == set(words)
