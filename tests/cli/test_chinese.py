"""Commands in a Chinese locale: help, usage errors, errors, tables; JSON and other locales stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relay.cli import bindings, businesses, calls, filings, groups, main, numbers, oversight, webhooks
from relay.cli.explain import _lines
from relay.cli.replay import lines
from relay.translation import catalogue, columns_of
from tests.cli.conftest import Command
from tests.cli.test_replay import ALIKE, played
from tests.support.stored import A, X

_PARTIES = ("--a", "13800000001", "--b", "13900000001", "--expires-in", "2h")


@pytest.fixture
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _commands(below, (*path, name))


@pytest.mark.usefixtures("chinese")
def test_the_parties_of_a_daily_report_are_numbers_not_a_form_of_them(relay700: Command) -> None:
    relay700.done("report", "complaints", "2026-01-01", "default", "70010000001", "3")
    heading, _ = relay700.done("report", "daily", "2026-01-01").splitlines()
    assert "真实号码" in heading.split()


@pytest.mark.usefixtures("chinese")
def test_help_of_every_command_is_chinese_and_fits_a_terminal() -> None:
    for path in _commands(main):
        shown = CliRunner().invoke(main, [*path, "--help"])
        assert shown.exit_code == 0
        usage, *lines = shown.stdout.splitlines()
        assert usage.startswith(f"用法：{' '.join(('main', *path))} ")
        assert "选项：" in lines and "  -h, --help" in shown.stdout and "显示此帮助并退出。" in shown.stdout
        assert [line for line in lines if columns_of(line) > 80 and " " in line.strip() and "|" not in line] == []
        assert [line for line in lines if line[:1].strip() and line[-1:] != "："] == []
    assert "  bind        让双方通过 700 号码互相呼叫" in CliRunner().invoke(main, ["-h"]).stdout


@pytest.mark.usefixtures("chinese")
def test_lines_that_help_keeps_are_translated_as_one_message_on_each_python() -> None:
    """Before 3.13 a docstring keeps its indentation."""
    assert "\n  GXYB  同上，但 b 拨 y\n" in CliRunner().invoke(main, ["bind", "--help"]).stdout


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["bind", "XY"], "'AXB|AXYB|GXB|GXYB|AXN' 的值无效：'XY' 不在 'axb', 'axyb', 'gxb', 'gxyb', 'axn' 之中。"),
        (["bind", "AXB"], "缺少选项 '--a'：AXB 绑定需要它，除非给出 --late。"),
        (["bindings", "lst"], "没有命令 'lst'。是否想输入 'list'？"),
        (["bindings", "show"], "缺少参数 'BINDING_ID'。"),
        (["lists", "show"], "缺少参数 'business|binding'。可选：\n\tbusiness,\n\tbinding"),
        (["unbind", "a", "b"], "多余的参数（b）"),
        (["report", "daily", "x"], "'DAY' 的值无效：不是日期：请写如 2026-01-31，或 today"),
    ],
)
def test_usage_errors_are_chinese(arguments: list[str], error: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    usage, hint, empty, *lines = result.stderr.splitlines()
    assert usage.startswith("用法：main ") and hint.endswith(" --help' 查看帮助。") and not empty
    assert "\n".join(lines) == f"错误：{error}"


@pytest.mark.usefixtures("chinese")
def test_a_group_without_a_command_shows_its_help() -> None:
    result = CliRunner().invoke(main, ["lists"])
    assert result.exit_code == 2
    assert result.stderr.startswith("用法：main lists ") and "命令：\n" in result.stderr


@pytest.mark.usefixtures("chinese")
def test_errors_and_tables_are_chinese(relay700: Command) -> None:
    made = relay700.done("bind", "AXB", *_PARTIES)
    assert made.splitlines()[1].startswith("138****0001 与 139****0001 都拨 700")
    binding_id = made.split()[1]
    assert relay700.refused("unbind", "nobody") == "绑定：没有这个绑定：见绑定列表"
    heading, row = relay700.done("bindings", "list").splitlines()
    assert heading.split()[:3] == ["绑定", "模式", "x"] and heading.split()[-1] == "业务使用方"
    assert columns_of(heading[: heading.index("业务使用方")]) == row.index("default")
    assert relay700.done("unbind", binding_id) == f"已解绑 {binding_id}\n"


@pytest.mark.usefixtures("chinese")
def test_json_has_the_names_of_the_api(relay700: Command) -> None:
    relay700.done("bind", "AXB", *_PARTIES, "--order", "订单")
    (binding,) = relay700.objects("bindings", "list")
    assert (binding["mode"], binding["order_id"], binding["state"]) == ("AXB", "订单", "live")


def test_output_fails_in_no_encoding(relay700: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    relay700.done("bind", "AXB", *_PARTIES, "--order", "订单😀")
    listing = ["bindings", "list", "-c", str(relay700.folder / "relay.toml")]
    monkeypatch.setenv("LC_ALL", "zh_CN.GBK")
    chinese = CliRunner(charset="gbk").invoke(main, listing)
    assert chinese.exit_code == 0 and "业务使用方" in chinese.stdout and "订单\\U0001f600" in chinese.stdout
    latin = CliRunner(charset="latin-1")
    assert "business" in latin.invoke(main, listing).stdout
    shown = latin.invoke(main, [*listing, "--json"])
    assert shown.stdout.isascii() and json.loads(shown.stdout)["order_id"] == "订单😀"


def test_the_locale_c_is_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.setenv("LC_ALL", "C")
    assert CliRunner().invoke(main, ["--help"]).stdout.startswith("Usage: ")


@pytest.mark.usefixtures("chinese")
def test_a_binding_that_is_renewed_has_both_its_ends(relay700: Command) -> None:
    (made,) = map(json.loads, relay700.done("bind", "AXB", *_PARTIES, "--idle-ttl", "3600", "--json").splitlines())
    said = relay700.done("bindings", "renew", made["binding_id"], "--expires-in", "9h")
    assert re.fullmatch(rf"{made['binding_id']} 将于 20\S+Z 到期，最迟 20\S+Z\n", said)


@pytest.mark.usefixtures("chinese")
def test_the_state_of_a_business_user_is_shown(relay700: Command) -> None:
    said = relay700.done("business", "suspend", "default", "--reason", "papers")
    assert said == "业务使用方 default 的状态：suspended\n"


@pytest.mark.usefixtures("chinese")
def test_the_parts_of_an_explanation_are_translated() -> None:
    recorded = {"outcome": "failed", "sip_status": 503, "end_reason": "busy", "decided_by": "verify"}
    told = {"caller": A, "number_dialled": X, "peer": None, "at": "now", "source": "store", "checks": []}
    refused = {"callee": None, "notes": [], "sip_status": 503, "outcome": "x", "q850_cause": 41, "retry_after_s": 5}
    lines = list(_lines(told | refused | {"recorded": recorded}))
    assert "话单：failed，SIP 503，结束原因 busy，由 [verify] 判定" in lines
    assert lines[-1] == "拒绝：x，SIP 503，Q.850 原因值 41，Retry-After 5 秒"


@pytest.mark.usefixtures("chinese")
def test_the_verdicts_of_a_replay_are_translated() -> None:
    assert list(lines(Path("t.pcap"), *played(ALIKE)))[1].endswith("3 条消息：一致")


def test_no_option_has_english_sentences(chinese: None) -> None:
    """Such as "Default: no expiry." behind a Chinese sentence."""
    english = re.compile(r"(?<![-`/\w.])[A-Z]?[a-z]{2,}(?: [a-z]{2,})+")
    for path in _commands(main):
        shown = CliRunner().invoke(main, [*path, "--help"]).output
        options = shown.partition("选项：")[2]
        found = [line for line in options.splitlines() if english.search(re.sub(r"`[^`]*`", "", line))]
        assert not found, path
        assert "[default:" not in options, path


def test_what_is_written_as_an_argument_stays_as_it_is(chinese: None) -> None:
    assert "none：不设到期时间。" in CliRunner().invoke(main, ["bindings", "change", "--help"]).output


def test_headings_are_of_one_language(chinese: None) -> None:
    columns = [
        (module.__name__, name, heading)
        for module in (bindings, businesses, calls, filings, groups, numbers, oversight, webhooks)
        for name, headings in vars(module).items()
        if name.endswith("_COLUMNS")
        for heading in headings
    ]
    assert len(columns) > 50
    assert [each for each in columns if len(each[2]) > 1 and each[2].replace("_", " ") not in catalogue()] == []
