"""The commands of operations: options by the fields of a request, and what is printed."""

from __future__ import annotations

import json

import click
import pytest

from relay.cli.bindings import bind, bindings, unbind
from relay.cli.filings import filings
from relay.cli.groups import groups, lists
from relay.cli.numbers import numbers
from tests.cli.conftest import Command

BOUND = ("bind", "AXB", "--a", "13800000001", "--b", "13900000002")


def option_of(command: click.Command, name: str) -> click.Option:
    (found,) = [each for each in command.params if each.name == name]
    assert isinstance(found, click.Option)
    return found


def test_an_option_is_named_after_its_field_without_the_words_for_what_it_holds() -> None:
    names = {each.name: each.opts[0] for each in bind.params if isinstance(each, click.Option)}
    assert [names[name] for name in ("order_id", "max_call_s", "industrial_id", "user_data")] == [
        "--order",
        "--max-call",
        "--industrial-id",
        "--user-data",
    ]
    assert bind.params[0].name == "mode" and isinstance(bind.params[0], click.Argument)
    assert option_of(bind, "direction").type.to_info_dict()["choices"] == ("both", "a_to_b", "b_to_a")


def test_a_change_may_switch_off_and_clear() -> None:
    change = bindings.commands["change"]
    assert option_of(change, "record").secondary_opts == ["--no-record"]
    assert option_of(change, "white_only").secondary_opts == ["--all-callers"]
    assert "version" not in {each.name for each in change.params}


def test_a_reading_shows_numbers_for_a_reason_and_a_change_says_why() -> None:
    assert {each.name for each in bindings.commands["show"].params} >= {"as_json", "reveal", "reason"}
    assert {each.name for each in bindings.commands["history"].params}.isdisjoint({"reveal", "reason"})
    assert {each.name for each in unbind.params} == {"binding_id", "as_json", "reason", "config_path"}


def test_none_clears_a_field_that_may_be_null(relay700: Command) -> None:
    (made,) = relay700.objects(*BOUND, "--max-call", "60")
    (changed,) = relay700.objects("bindings", "change", made["binding_id"], "--max-call", "none")
    assert [made["max_call_s"], changed["max_call_s"]] == [60, None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-call", "5"), "max_call_s: must be at least 10"),
        (("--hours", "8-22"), "hours: must be two times of day in China time, such as 08:00-22:00"),
        (("--x", "70010"), "x: not a 700 number: write 15 digits that begin with 700"),
    ],
)
def test_a_field_without_the_form_of_its_shape_is_named(relay700: Command, options: tuple[str, ...], said: str) -> None:
    assert relay700.refused(*BOUND, *options) == said


def test_a_reading_in_clear_is_in_the_audit_log_once_it_is_known_what_is_read(relay700: Command) -> None:
    made = json.loads(relay700.done(*BOUND, "--json"))
    assert relay700.run("bindings", "show", "0123456789ab", "--json", reason="complaint").exit_code == 1
    (shown,) = relay700.objects("bindings", "show", made["binding_id"], reason="complaint")
    assert [made["a"], shown["a"]] == ["138****0001", "8613800000001"]
    (read,) = [each for each in relay700.objects("audit", "list") if each["action"] == "read"]
    assert (read["object"], read["reason"]) == (f"binding {made['binding_id']}", "complaint")


def test_a_list_that_is_not_there_leaves_no_audit_line_of_a_reading(relay700: Command) -> None:
    relay700.objects(*BOUND, reason=None)
    result = relay700.run("lists", "show", "business", "nobody", "--json", reason="complaint")
    assert (result.exit_code, result.stderr) == (1, "there is no such business user\n")
    assert relay700.objects("audit", "list", "--action", "read") == []
    relay700.objects("lists", "show", "business", "default", reason="complaint")
    (read,) = relay700.objects("audit", "list", "--action", "read")
    assert (read["object"], read["reason"]) == ("list business default", "complaint")


def test_options_of_durations_flags_and_several_values() -> None:
    assert option_of(numbers.commands["load"], "cool_down_s").type("12h") == 43_200
    assert option_of(numbers.commands["prefix"], "cool_down_s").metavar == "TIME|none"
    assert option_of(filings.commands["add"], "state").flag_value == "submitted"
    assert option_of(groups.commands["make"], "members").multiple
    assert [each.nargs for each in groups.commands["add"].params if each.name == "members"] == [-1]


def test_a_field_that_the_command_gives_is_no_option() -> None:
    assert {each.name for each in lists.commands["black"].params}.isdisjoint({"kind"})


def test_a_reason_is_an_option_of_its_own_where_the_request_has_one() -> None:
    assert option_of(numbers.commands["lock"], "reason").required
    assert not option_of(numbers.commands["prefix"], "reason").required
