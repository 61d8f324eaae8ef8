"""The configuration in force is kept, once for each change, without passwords."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import Config, parse_config
from relay.config.kept import changed_settings, configured_at, keep_configuration
from relay.store.audit import AuditQuery, newest_entries
from relay.store.configurations import find_configuration, put_configuration
from relay.store.database import connect_reader
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer, now_ms
from tests.support.places import new_store


def configured(folder: Path, policy: str) -> Config:
    return parse_config(f'[store]\nurl = "sqlite:{folder}/relay.db"\n[policy]\n{policy}\n', "test")


def test_the_configuration_is_kept_at_each_change(tmp_path: Path) -> None:
    sealer = new_store(tmp_path / "relay.db", tmp_path / "relay.key")
    first, second = configured(tmp_path, 'hours = "08:00-20:00"'), configured(tmp_path, "")
    for each in (first, first, second):
        keep_configuration(each, sealer)
    with closing(connect_reader(tmp_path / "relay.db")) as reader:
        (rows,) = reader.execute("SELECT count(*) FROM configuration").fetchone()
        assert rows == 2
        then = configured_at(reader, sealer, first, now_ms())
        assert then.rules == second.rules and then.note.startswith("the configuration is the one in force since 2")
        before = configured_at(reader, sealer, first, 1_000)
        assert before.rules == first.rules and "none was kept" in before.note


def test_the_audit_log_names_the_settings_that_changed(tmp_path: Path) -> None:
    sealer = new_store(tmp_path / "relay.db", tmp_path / "relay.key")
    for each in ('hours = "08:00-20:00"', 'hours = "08:00-20:00"', 'hours = "09:00-20:00"\nmax_calls_per_number = 5'):
        keep_configuration(configured(tmp_path, each), sealer)
    with closing(connect_reader(tmp_path / "relay.db")) as reader:
        lines = newest_entries(reader, sealer, AuditQuery(action="configuration.apply"), None, 9)
    assert [(line.entry.actor, line.entry.object_, line.entry.details) for line in lines] == [
        ("relay", "relay", {"changed": ["policy.hours", "policy.max_calls_per_number"]}),
        ("relay", "relay", {"changed": ["policy.hours", "store.url"]}),
    ]


def test_changed_settings_are_named_by_table_and_name() -> None:
    old = '[sip]\nt1_ms = 500\n[[peer]]\nname = "a"\nuri = "sip:a"\n[[route]]\nprefix = ""\npeers = ["a"]'
    new = '[[peer]]\nname = "a"\nuri = "sip:b"\n[[route]]\nprefix = ""\npeers = ["a", "b"]'
    assert changed_settings(old, new) == ["peer.a.uri", "route.0.peers", "sip.t1_ms"]
    assert changed_settings("no toml", "[sip]\nt1_ms = 500") == ["sip.t1_ms"]


@pytest.mark.parametrize("password", ["s3cret", "it's", "it's\", \\", "a/s3cret"])
def test_passwords_of_urls_are_left_out(tmp_path: Path, password: str) -> None:
    sealer = new_store(tmp_path / "relay.db", tmp_path / "relay.key")
    config = (
        configured(tmp_path, "").text
        + """
[verify]
url = "https://relay:{}@h:80/x?password={}"
secret_file = "a:b@c"
[otlp]
endpoint = "http://127.0.0.1:4318" # not http://relay:a/b@h/
"""
    )
    written = password.replace("\\", r"\\").replace('"', r"\"")
    keep_configuration(parse_config(config.replace("{}", written), "test"), sealer)
    with closing(connect_reader(tmp_path / "relay.db")) as reader:
        kept = find_configuration(reader, sealer, "", now_ms())
    assert kept is not None
    assert kept.text == config.replace("{}", "***").replace("a/b", "***")


def test_a_former_configuration_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    sealer = new_store(tmp_path / "relay.db", tmp_path / "relay.key")
    with closing(Writer(tmp_path / "relay.db", sealer)) as writer:
        writer.run(RELAY, lambda unit: put_configuration(unit, "", "[gone]\n"))
    with closing(connect_reader(tmp_path / "relay.db")) as reader:
        found = configured_at(reader, sealer, configured(tmp_path, ""), now_ms())
    assert "cannot read the former one" in found.note


def test_the_text_is_not_printed_with_a_configuration() -> None:
    config = parse_config('[policy]\nhours = "08:00-20:00"', "test")
    assert "policy" not in repr(replace(config, warnings=())).split("Rules", 1)[0]
    assert 'hours = "08:00-20:00"' not in repr(config)
