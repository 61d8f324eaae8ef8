"""Files, faults and reload."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from relay.config import Config, load_config, parse_config, what_is_fixed
from relay.errors import ConfigError
from relay.model.settings import Listener, PeerRoute
from tests.config.support import PEER, config, problem, problems

# Sources


def test_the_built_in_configuration_is_used_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    built_in = load_config(None)
    assert built_in.settings.listeners == (Listener("udp", "127.0.0.1", 5060, "127.0.0.1"),)
    assert [peer.name for peer in built_in.settings.peers] == ["carrier"]
    assert built_in.settings.routes == (PeerRoute("", ("carrier",)),)
    assert built_in.settings.prefixes == ("70010000001",)
    assert (built_in.store.path, built_in.store.key_file) == (Path("var/relay.db"), Path("var/relay.key"))


def test_the_default_file_is_used_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/relay.toml").write_text("[sip]\nring_timeout_s = 7\n")
    assert load_config(None).settings.ring_timeout_s == 7


def test_a_given_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.toml")


def test_invalid_toml_is_reported_with_its_position() -> None:
    assert problem("[sip\n").startswith("not TOML: Expected ']'")


def test_invalid_utf8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(tmp_path / "x.toml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf[sip]\nring_timeout_s = 7\n")
    assert load_config(tmp_path / "x.toml").settings.ring_timeout_s == 7


def test_the_environment_gives_no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RELAY_SIP_T1_MS", "RELAY700_SIP_T1_MS", "SIP_T1_MS"):
        monkeypatch.setenv(name, "77")
    assert config("").settings.timings.t1 == 0.5


def test_all_faults_are_reported_at_once_by_position_in_the_file() -> None:
    text = '[sip]\nt1_ms = 1\nlisten = ["x"]\n[[peer]]\nname = "a b"\nuri = "x"\n[[peer]]\nname = "p"\nuri = "tel:1"\n'
    keys = [each.partition(":")[0] for each in problems(text + '[[route]]\npeers = ["q"]')]
    assert keys == ["sip.t1_ms", "peer[0].name", "sip.listen[0]", "peer[1].uri"]


def test_a_peer_is_named_unless_the_fault_does_so() -> None:
    text = PEER + 'ping_s = "x"\n' + PEER
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "t")
    first, second = caught.value.problems
    assert first.startswith("t: peer[0].ping_s (carrier): expected float, got str; write ")
    assert second == "t: peer[1].name: carrier is taken; each peer needs a unique name"


# -- Settings that a reload can and cannot change


OTHER = '[[peer]]\nname = "other"\nuri = "sip:127.0.0.3"\n[[route]]\npeers = ["other"]\n'


@pytest.mark.parametrize(
    "changed",
    [
        OTHER,
        PEER + 'number_format = "plus"\nping_s = 5\n',
        "[sip]\nring_timeout_s = 5\nmax_call_s = 6\nno_progress_s = 1\ndrain_s = 3\n",
        '[numbers]\nprefixes = ["70010000002"]\nphase = "transition"\nlegacy = ["95013000001"]\ncool_down = "1h"\n',
        '[policy]\nanonymous = "allow"\ncaller_caps = []\n',
        "[limits]\nmax_calls = 5\n",
        "[api]\nrequests_per_s = 5\n",
        '[fraud]\nshort_s = 5\n[webhooks]\nbatch = 5\n[retention]\nrecords = "200d"\n[dns]\nservers = ["127.0.0.53"]\n',
        '[tls]\ncertificate = "c"\nkey = "k"\n',
        '[recording]\ncipher = "sm4-gcm"\non_failure = "end"\n',
    ],
)
def test_reloadable_settings(changed: str) -> None:
    assert what_is_fixed(config(""), config(changed)) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ('[sip]\nlisten = ["udp:127.0.0.1:5070"]', "sip.listen, sip.advertise"),
        ('[sip]\nadvertise = "203.0.113.7"', "sip.listen, sip.advertise"),
        ("[sip]\nt1_ms = 100", "sip.t1_ms"),
        ('[store]\nurl = "sqlite:other.db"', "store"),
        ('[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"', "media.mode, media.rtpengine"),
        ('[recording]\nkept_in = "elsewhere"', "recording.spool, recording.kept_in"),
        ("[api]\nenabled = false", "api.enabled"),
        ('[api]\nlisten = "127.0.0.1:8701"', "api.listen"),
        ('[api]\ncertificate = "c"\nkey = "k"', "api.certificate, api.key"),
        ('[verify]\nurl = "https://v.example"\nsecret_file = "s"', "verify"),
        ('[hep]\nserver = "udp:127.0.0.1:9060"', "hep"),
        ('[log]\nlevel = "debug"', "log"),
        ("[streams]\nmax_strangers = 5", "streams"),
    ],
)
def test_settings_that_need_a_restart_are_named(changed: str, named: str) -> None:
    (told,) = what_is_fixed(config(""), config(changed))
    assert told == f"{named}: a change needs a restart; write the former value, or restart the relay"


def test_folders_where_recordings_wait_stay_until_a_restart() -> None:
    """What waits in a folder that is listed no longer stays there in clear."""
    media = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n[recording]\nspool = '
    for other in ('"b"', '""', '["a", "b"]'):
        (told,) = what_is_fixed(config(f'{media}"a"'), config(media + other))
        assert told.startswith("recording.spool, recording.kept_in: a change needs a restart")


def test_all_settings_that_need_a_restart_are_named_at_once() -> None:
    assert len(what_is_fixed(config(""), config("[sip]\nt1_ms = 100\n[api]\nenabled = false"))) == 2


# Each part at a reload: applied by `Relay.reload` and `Backend.apply_config`, or named by `what_is_fixed`.
FOLLOWED = {
    *("numbers", "rules", "fraud", "webhooks", "retention", "purge_at_minute", "tls", "sounds", "passwords", "dns"),
    *("drain_s", "capture", "probe", "complaint_ppm"),
}


FIXED = {"store", "alibaba", "verify", "hooks", "hep", "log", "otlp", "streams", "rtpengine"}


IN_PARTS = {"settings", "api", "recordings"}


READ_FROM = {"name", "text", "warnings"}


OF_COMMANDS = {"report"}  # not used by the relay


def test_every_part_of_the_configuration_is_classified() -> None:
    assert {field.name for field in fields(Config)} == FOLLOWED | FIXED | IN_PARTS | READ_FROM | OF_COMMANDS
