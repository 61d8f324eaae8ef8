"""Settings that a reload can and cannot change."""

from __future__ import annotations

from dataclasses import fields

import pytest

from relay.config import Config
from relay.config.reload import what_is_fixed
from tests.test_config import PEER, config

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
        ('[recording]\nkept_in = "elsewhere"', "recording.kept_in"),
        ("[api]\nenabled = false", "api.enabled"),
        ('[api]\nlisten = "127.0.0.1:8701"', "api.listen"),
        ('[api]\ncertificate = "c"\nkey = "k"', "api.certificate, api.key"),
        ('[verify]\nurl = "https://v.example"\nsecret_file = "s"', "verify"),
        ('[log]\nlevel = "debug"', "log"),
        ("[streams]\nmax_strangers = 5", "streams"),
    ],
)
def test_settings_that_need_a_restart_are_named(changed: str, named: str) -> None:
    (told,) = what_is_fixed(config(""), config(changed))
    assert told == f"{named}: a change needs a restart; write the former value, or restart the relay"


def test_all_settings_that_need_a_restart_are_named_at_once() -> None:
    assert len(what_is_fixed(config(""), config("[sip]\nt1_ms = 100\n[api]\nenabled = false"))) == 2


# Each part at a reload: applied by `Relay.reload` and `Backend.follow`, or named by `what_is_fixed`.
FOLLOWED = {
    *("numbers", "rules", "fraud", "webhooks", "retention", "purge_at_minute", "tls", "sounds", "passwords", "dns"),
    *("drain_s",),
}
FIXED = {"store", "verify", "log", "streams", "rtpengine"}
IN_PARTS = {"settings", "api", "recordings"}
READ_FROM = {"name", "warnings"}
OF_COMMANDS = {"report"}  # not used by the relay


def test_every_part_of_the_configuration_is_classified() -> None:
    assert {field.name for field in fields(Config)} == FOLLOWED | FIXED | IN_PARTS | READ_FROM | OF_COMMANDS
