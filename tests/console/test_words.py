"""Every word of the console in two languages; times in the viewer's zone."""

from __future__ import annotations

import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages.extract import extract_from_dir

from relay.console import words
from relay.console.words import catalog, language_of, length_of, local_time, translate, with_zone, zone_of
from relay.service.fields import CHINA

CONSOLE = Path(words.__file__).parent
METHODS = [("**.html", "jinja2.ext.babel_extract"), ("**.py", "python")]


def _written() -> set[str]:
    folders = (CONSOLE, CONSOLE.parent / "reports" / "templates")  # the latter has the ladder, which call pages show
    found = (each for folder in folders for each in extract_from_dir(folder, METHODS, {}, {"_": None, "N_": None}))
    return {message for _, _, message, _, _ in found if isinstance(message, str)}


def test_every_message_is_translated_and_no_translation_is_left_over() -> None:
    written, translated = _written(), set(catalog())
    assert len(written) > 50
    assert not written - translated, "add these to relay/console/locale/zh.po"
    assert not translated - written, "no template or module has these any more"


def test_translations_keep_the_placeholders() -> None:
    for message, chinese in catalog().items():
        assert sorted(_places(message)) == sorted(_places(chinese)), message


def test_chinese_has_its_own_punctuation() -> None:
    for chinese in catalog().values():
        assert not re.search("[一-鿿][,;:?!]|[,;:?!][一-鿿]", chinese), chinese


def _places(text: str) -> list[str]:
    return [part.partition(")")[0] for part in text.split("%(")[1:]]


def test_the_catalog_is_beside_the_module() -> None:
    assert (CONSOLE / "locale" / "zh.po").exists()
    assert translate("zh")("Calls") == "通话" and translate("en")("Calls") == "Calls"
    assert translate("zh")("no such message") == "no such message"


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("zh", "en", "zh"),
        (None, "fr,zh-CN;q=0.9,en;q=0.8", "zh"),
        (None, "en-US,zh", "en"),
        ("xx", "", "en"),
        (None, "*" * 10_000, "en"),
    ],
)
def test_the_language_is_that_of_the_switch_then_of_the_browser(
    cookie: str | None, accepted: str, language: str
) -> None:
    assert language_of(cookie, accepted) == language


def test_times_are_those_of_the_viewer() -> None:
    now_s = 1_767_225_600.0  # 2026-01-01T00:00:00Z
    assert local_time("2026-01-01T00:00:01.250Z", CHINA, now_s) == "01-01 08:00:01"
    assert local_time("2026-01-01T00:00:01.250Z", CHINA, now_s, exact=True) == "01-01 08:00:01.250"
    assert local_time("2025-12-31T12:00:00Z", CHINA, now_s) == "2025-12-31 20:00:00"
    assert zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    assert zone_of("../etc/passwd") == zone_of("Nowhere/None") == zone_of(None) == CHINA
    assert with_zone("2026-01-01T08:00", zone_of("Europe/Berlin")) == "2026-01-01T15:00:00+08:00"
    assert with_zone("2026-01-01T08:00Z", CHINA) == "2026-01-01T16:00:00+08:00"
    for text in ("yesterday", "9999-12-31T23:59"):  # which China has in the year 10000
        assert with_zone(text, zone_of("America/New_York")) == text


def test_lengths_are_written_for_people() -> None:
    lengths = [0, 0.9, 812, 4_310, 134_000, 3_734_000]
    assert [length_of(each) for each in lengths] == ["0 ms", "0.9 ms", "812 ms", "4.31 s", "2:14", "1:02:14"]
