"""Each text for people has its Chinese one, by the terms of docs/zh/GLOSSARY.md; locales; texts made from messages."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from babel.messages.pofile import read_po

from relay.config import parse_config
from relay.errors import ConfigError
from relay.translation import (
    MOST_READ,
    MOST_TRIES,
    PLACEHOLDER,
    _Reader,
    accepted_language,
    catalogue,
    language_of_locale,
    translation,
)

# English terms, and their Chinese by the glossary.
TERMS = {
    "business users?": "业务使用方",
    "bindings?(?! change)": "绑定|解绑|独占|分配",
    "pools?": "号码池",
    "webhooks?": "回调",
    "dead letters?": "死信",
    "prefixes": "号段",
    "whitelists?": "白名单",
    "call records?": "话单",
    "audit": "审计",
    "hooks?": "决策接口|验证接口",
    "carriers": "运营商",
    "peers?": "对端",
    "hand(ed)? over": "移交",
    "masked": "脱敏",
    "filings": "报备",
    "recordings?(?!-dir)": "录音",
    "groups": "群组",
    "cool-down|cooling": "冷却",
    "bans?": "封禁",
    "captures": "抓包",
    "legacy numbers?|old middle numbers?": "旧中间号",
}
_CODE = re.compile(r"""`[^`]*`|\[[^]]*\]|--[\w-]+|\{[^}]*\}|%\(\w+\)s|"[^"]*"|\S*[._/:]\w\S*|^\w+:""")


@cache
def _messages() -> Any:
    return runpy.run_path("scripts/messages")


def test_every_message_is_translated_and_no_translation_is_left_over() -> None:
    module = _messages()
    written, translated = module["messages"](), {message for message, chinese in catalogue().items() if chinese}
    assert len(written) > 1_000
    assert not written - translated, "run scripts/messages, and translate these"
    assert not translated - written, "run scripts/messages: these are in no module or template"


def test_the_catalogue_is_what_babel_reads_and_has_nothing_fuzzy() -> None:
    with _messages()["PO"].open("rb") as file:
        found = list(read_po(file))
    assert {message.id: message.string for message in found if message.id} == catalogue()
    assert [message.id for message in found if message.id and message.fuzzy] == []


def test_translations_keep_the_placeholders() -> None:
    for message, chinese in catalogue().items():
        for form in (PLACEHOLDER, re.compile(r"%\(\w+\)[sd]")):
            assert set(form.findall(message)) == set(form.findall(chinese)), message


def test_values_do_not_touch() -> None:
    """Where one ends cannot be seen, unless the second is a further part or none."""
    touching = {message for message in catalogue() if "}{" in message}
    assert touching == {"{id} expires {expires_at}{latest}"}
    assert zh("b1 expires 2026-01-01T00:00:01Z, at the latest 2026-01-02T00:00:01Z") == (
        "b1 将于 2026-01-01T00:00:01Z 到期，最迟 2026-01-02T00:00:01Z"
    )


def test_chinese_has_its_own_punctuation() -> None:
    for chinese in catalogue().values():
        assert not re.search("[一-鿿][,;:?!]|[,;:?!][一-鿿]", chinese), chinese


@pytest.mark.parametrize("term", TERMS)
def test_terms_are_those_of_the_glossary(term: str) -> None:
    word = re.compile(rf"\b({term})\b")
    found = {message: chinese for message, chinese in catalogue().items() if word.search(_CODE.sub("", message))}
    assert found
    assert {message: chinese for message, chinese in found.items() if not re.search(TERMS[term], chinese)} == {}


def test_the_reader_is_addressed_in_one_way_and_a_pool_has_one_name() -> None:
    pages = [path.read_text() for path in (*Path("docs/zh").glob("*.md"), Path("README.zh-CN.md"))]
    for text in (*catalogue().values(), *pages):
        assert not re.search("你|号池", text), text[:80]


# -- Locales


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GB18030"}, "zh"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LANGUAGE": "zh_CN:en"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "fr:zh"}, "zh"),
        ({"LANGUAGE": "zh_CN", "LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "POSIX"}, "en"),
        ({"LANG": "", "LC_ALL": "zh_CN"}, "zh"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(environment: dict[str, str], language: str) -> None:
    assert language_of_locale(environment) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh; q=0.9, en; q=0.5", "zh"),  # RFC 9110 5.6.6: blanks around ";"
        ("zh ;\tq=0.5 , en;Q=0.9", "en"),
        ("en;q=0.5, zh-Hans;Q=0.9", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=x", "en"),
        ("zh;level=1;q=0.4, en;q=0.5", "en"),
        ("", "en"),
    ],
)
def test_the_language_is_the_preferred_one_of_a_request(header: str, language: str) -> None:
    assert accepted_language(header) == language


# -- Texts made from messages

zh = translation("zh")


def test_english_texts_stay_as_they_are() -> None:
    assert translation("en")("Calls") == "Calls"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("Calls", "通话"),
        ("no such message", "no such message"),
        ("", ""),
        ("  business acme, order o-1", "  业务使用方 acme，订单 o-1"),
        ("line 3: a: must be in the future", "第 3 行：a：必须在将来"),
        (
            "calls of the peer: 0 of 20; calls of all peers: 1 of 9",
            "该对端的呼叫：0，上限 20；所有对端的呼叫：1，上限 9",
        ),
        (
            "the ledger had the revision 19 when var/relay.db.anchor was written, and has 18 now",
            "var/relay.db.anchor 写成之时，账本的修订号是 19，现在是 18",
        ),
        (
            "the chain of call records had the link 9 when var/relay.db.anchor was written, and ends at 8 now,"
            " 1 missing: an earlier copy of the store was put in its place. Put the right one back, or, if you did it,"
            " vouch for the copy with `relay700 verify --accept --reason …`",
            "var/relay.db.anchor 写成之时，话单链有第 9 条，现在止于第 8 条，缺少 1 条：存储被换成了较早的副本。"
            "请放回正确的存储；如是您所为，请用 `relay700 verify --accept --reason …` 认可此副本",
        ),
        ("  the callee got INVITE, 512 bytes", "  被叫收到 INVITE，512 字节"),
        ("on no list; only white callers", "不在名单中；只接受白名单主叫"),
        ("expires 2026-01-01T00:00:01Z", "2026-01-01T00:00:01Z 到期"),
        ("sip.t1_ms: expected int, got str", "sip.t1_ms：应为 int，而写的是 str"),
        ("numbers.max_bindings: expected int >= 1", "numbers.max_bindings：应为 int >= 1"),
        (
            "138****0001 dials 700100000010001 by peer pbx at 2026-11-29T20:04:25.000Z, by the running relay",
            "138****0001 经对端 pbx 拨打 700100000010001，时间 2026-11-29T20:04:25.000Z，由运行中的 relay700 判定",
        ),
        ("note: the relay does not run", "注：relay700 未运行"),
        (
            "Invalid value for '--outcome': there is no outcome x. These are the outcomes:",
            "'--outcome' 的值无效：没有结果 x。结果有：",
        ),
        (
            "the store /var/x.db failed: disk; without --reveal and --reason it is shown masked, with no audit line",
            "存储 /var/x.db 故障：disk；不给 --reveal 和 --reason 时脱敏显示，不写审计行",
        ),
        ("70010000001 is locked", "70010000001 的状态：locked"),
        ("business user acme is approved", "业务使用方 acme 的状态：approved"),
        ("line 3: b: required", "第 3 行：b：必填"),
        ("no recording of c1: none was taken over", "没有 c1 的录音：未接收到录音"),
        ("records.jsonl: record 4 was changed", "records.jsonl：话单 4 被改动"),
        ("manifest.json was changed: its signature does not match", "manifest.json 被改动：签名不符"),
        ("not an evidence bundle, or damaged: manifest.json is missing", "不是证据包，或已损坏：缺少 manifest.json"),
        ("my order is late", "my order is late"),  # too little of it is a message's
        ("nobody reaches {b} yet: acme", "nobody reaches {b} yet: acme"),
    ],
)
def test_texts_are_translated_with_the_messages_in_them(english: str, chinese: str) -> None:
    assert zh(english) == chinese


def test_names_of_one_word_stay() -> None:
    assert zh("withdrawn from the filings of binding") == "已从 binding 的报备中撤回"


def test_long_lines_stay_as_they_are_and_short_ones_beside_them_are_read() -> None:
    long = "nobody reaches {b} yet: give a by bindings change; a will dial {x}, and {b} dial " * 100
    assert len(long) > MOST_READ
    assert zh(f"{long}\nline 3: a: must be in the future\n" * 3) == f"{long}\n第 3 行：a：必须在将来\n" * 3


@pytest.mark.parametrize("part", [". a", ": a", "; allowed", "the caller is a. a, "])
def test_a_text_of_many_parts_stays_as_it_is(part: str) -> None:
    """As a stranger may write it: 400 characters took 0.2 s."""
    text = (part * 400)[: MOST_READ - 30] + " must be in the future"
    reader = _Reader(text)
    reader.read(text)
    assert reader.tries < 2 * MOST_TRIES and zh(text) == text


@pytest.mark.parametrize(("order", "is_read"), [("o" * 20, True), ("o" * 160, False)])
def test_long_text_is_not_read_by_a_message_that_is_mostly_values(order: str, is_read: bool) -> None:
    """One of 400 characters ": a: a: a" would take a second."""
    text = f"call {order}: answered, binding b1"
    assert zh(text) == (f"call {order}：answered，绑定 b1" if is_read else text)


FAULTY = """
[sip]
listen = ["udp:127.0.0.1:5060"]
[numbers]
phase = "x"
legacy_until = "x"
[tls]
[[peer]]
name = "a"
uri = "sip:192.0.2.1:5060;transport=tcp"
sources = ["192.0.2.1/24"]
codecs = ["x"]
[[peer]]
name = "b"
uri = "sip:192.0.2.3:5060"
sources = ["y"]
codecs = ["pcmx"]
[[peer]]
[[route]]
peers = ["q"]
"""


def test_faults_of_a_configuration_are_translated_as_a_whole() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(FAULTY, "r.toml")
    chinese = list(map(zh, error.value.problems))
    assert len(chinese) >= 8
    assert [text for text in chinese if re.search(r"[a-z]{3} [a-z]{3}|[;:] ", text)] == []
    (listener,) = (text for text in chinese if "peer[0].uri (a)" in text)
    assert listener.startswith("r.toml：peer[0].uri (a)：没有 IPv4 上的 tcp 监听；请在 sip.listen 中加一个，如 ")


def test_faults_of_a_configuration_keep_their_keys() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config('[sip]\nlisten = ["x"]\nfoo = 1\n[[peer]]\nname = "a"\nuri = "sip:;"\n', "r.toml")
    unknown, listener, uri = map(zh, error.value.problems)
    assert unknown.startswith("r.toml：sip.foo：未知的设置；已知的有 listen, ")
    assert listener == (
        "r.toml：sip.listen[0]：'x' 不是监听；请写 \"udp|tcp|tls:address:port\"，"
        '如 "udp:127.0.0.1:5060" 或 "tcp:[::1]:5060"'
    )
    assert uri == 'r.toml：peer[0].uri (a)：URI 格式错误；请写如 "sip:192.0.2.10:5060;transport=udp"'
