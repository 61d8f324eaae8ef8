"""Listeners, routes, media, announcements and recordings of the engine; the sounds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from relay.call.announcement import OF_REFUSAL, SOUNDS
from relay.config import parse_config
from relay.config.engine import MOST_BYTES, SHIPPED, SoundFiles, read_sounds
from relay.errors import ConfigError
from relay.model.call import LANGUAGES, Language
from relay.model.outcomes import OF_POLICY
from relay.model.settings import Announcements, Listener, TlsFiles
from relay.service.fields import DAY_MS
from relay.store.recordings import Recordings
from tests.config.support import PEER, config, problem
from tests.support.sounds import a_law_wav


def test_text_messages_are_relayed_only_if_enabled() -> None:
    empty, said = config("").settings, config('[sms]\nenabled = true\nnumbers = "mask"').settings
    assert (empty.sms, empty.sms_numbers) == (False, "refuse")
    assert (said.sms, said.sms_numbers) == (True, "mask")
    assert problem('[sms]\nnumbers = "show"').startswith("sms.numbers: ")


def test_the_other_timers_scale_with_t1() -> None:
    timings = config("[sip]\nt1_ms = 50").settings.timings
    assert (timings.t1, timings.t2, timings.t4) == (0.05, 0.4, 0.5)


@pytest.mark.parametrize(("t1_ms", "most_ms"), [(50, 499), (500, 499), (2000, 1999)])
def test_calls_are_shed_before_their_first_retransmission(t1_ms: int, most_ms: int) -> None:
    sip = f"[sip]\nt1_ms = {t1_ms}\n[limits]\nshed_lag_ms = "
    assert config(f"{sip}{most_ms}").settings.limits.shed_lag_ms == most_ms
    assert config(f"{sip}0").settings.limits.shed_lag_ms == 0
    assert problem(f"{sip}{most_ms + 1}") == (
        f"limits.shed_lag_ms: peers retransmit after {most_ms + 1} ms; write less, such as 250"
    )


# Listeners


def test_listeners_of_every_transport_and_family() -> None:
    listen = '["udp:127.0.0.1:5060", "tcp:[::1]:5060", "tls:127.0.0.1:5061"]'
    made = config(f'[sip]\nlisten = {listen}\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\nverify = false\n')
    assert made.settings.listeners == (
        Listener("udp", "127.0.0.1", 5060, "127.0.0.1"),
        Listener("tcp", "::1", 5060, "[::1]"),
        Listener("tls", "127.0.0.1", 5061, "127.0.0.1"),
    )
    assert made.tls == TlsFiles(Path("c.pem"), Path("k.pem"), None, False)
    text = '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\nclient_ca = "p.pem"'
    assert config(text).tls == TlsFiles(Path("c.pem"), Path("k.pem"), client_ca=Path("p.pem"))


@pytest.mark.parametrize(
    ("uris", "authorities", "tls_only"),
    [
        (["sip:127.0.0.2:5061;transport=tls", "sips:127.0.0.3"], 'client_ca = "p.pem"', True),
        (["sip:127.0.0.2:5061;transport=tls", "sip:127.0.0.3:5060;transport=udp"], 'client_ca = "p.pem"', False),
        (["sips:127.0.0.2"], "", False),
    ],
    ids=["TLS alone", "also UDP", "no certificates"],
)
def test_peer_of_tls_alone_sends_by_tls_alone_if_it_needs_a_certificate(
    uris: list[str], authorities: str, tls_only: bool
) -> None:
    targets = ", ".join(f'{{uri = "{uri}"}}' for uri in uris)
    text = (
        '[sip]\nlisten = ["udp:127.0.0.1:5060", "tls:127.0.0.1:5061"]\n'
        f'[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n{authorities}\n'
        f'[[peer]]\nname = "carrier"\ntargets = [{targets}]\nnumbers = "any"\n'
        '[[peer]]\nname = "phone"\nlogin = {username = "phone", password_file = "p"}\nnumbers = ["138*"]\n'
    )
    assert [peer.tls_only for peer in config(text).settings.peers] == [tls_only, False]


@pytest.mark.parametrize(
    ("advertise", "shown"),
    [
        ('"203.0.113.7"', ["203.0.113.7", "[2001:db8::1]"]),
        ('["203.0.113.7", "2001:db8::7"]', ["203.0.113.7", "[2001:db8::7]"]),
        ('"[2001:db8::7]"', ["10.0.0.1", "[2001:db8::7]"]),
        ('"sip.example.com"', ["sip.example.com", "sip.example.com"]),
    ],
)
def test_the_advertised_address_is_chosen_by_family(advertise: str, shown: list[str]) -> None:
    listen = '["udp:10.0.0.1:5060", "udp:[2001:db8::1]:5060"]'
    listeners = config(f"[sip]\nlisten = {listen}\nadvertise = {advertise}").settings.listeners
    assert [listener.advertised for listener in listeners] == shown


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("sctp:127.0.0.1:5060", "'sctp:127.0.0.1:5060' is not a listener; write \"udp|tcp|tls:address:port\""),
        ("udp:localhost:5060", "'udp:localhost:5060' is not a listener"),
        ("udp:::1:5060", "'udp:::1:5060' is not a listener"),
        ("udp:127.0.0.256:5060", "127.0.0.256 is not an address"),
        ("udp:127.0.0.1:0", "port 0 does not exist; write one of 1 to 65535"),
        ("udp:127.0.0.1:65536", "port 65536 does not exist"),
        ("udp:0.0.0.0:5060", "listens on every address; write sip.advertise"),
        ("tls:127.0.0.1:5061", "tls needs a certificate; write [tls]"),
    ],
)
def test_an_invalid_listener_is_reported_with_its_position(listen: str, told: str) -> None:
    found = problem(f'[sip]\nlisten = ["udp:127.0.0.1:5060", "{listen}"]')
    assert found.startswith("sip.listen[1]: ")
    assert told in found


def test_a_duplicate_listener_is_refused() -> None:
    assert "twice" in problem('[sip]\nlisten = ["udp:[::1]:5060", "udp:[0:0::1]:5060"]')


def test_an_advertised_address_with_a_port_is_refused() -> None:
    assert problem('[sip]\nadvertise = "203.0.113.7:5060"').startswith(
        "sip.advertise: '203.0.113.7:5060' is not an address"
    )


# Routes


def test_a_route_to_an_unknown_peer_is_refused() -> None:
    assert problem(PEER + '[[route]]\npeers = ["carrier", "carier"]') == (
        "route[0].peers[1]: no peer is named carier; write one of carrier"
    )


def test_two_routes_of_one_prefix_are_refused() -> None:
    assert "route[1].prefix: an earlier route has it too" in problem(
        PEER + 2 * '[[route]]\nprefix = "86"\npeers = ["carrier"]\n'
    )


def test_a_prefix_must_be_digits() -> None:
    assert problem(PEER + '[[route]]\nprefix = "+86"\npeers = ["carrier"]').startswith("route[0].prefix: ")


# Media


@pytest.mark.parametrize(
    ("written", "addresses"),
    [
        ('"udp:127.0.0.1:2223"', [("127.0.0.1", 2223)]),
        ('["udp:192.0.2.1:22222", "udp:[2001:db8::1]:2223"]', [("192.0.2.1", 22222), ("2001:db8::1", 2223)]),
    ],
)
def test_several_rtpengines_can_be_configured(written: str, addresses: list[tuple[str, int]]) -> None:
    made = parse_config(f'[media]\nmode = "rtpengine"\nrtpengine = {written}\ncheck_s = 5', "f")
    assert [(each.host, each.port) for each in made.rtpengine] == addresses
    assert made.settings.rtpengine == made.rtpengine  # no media may be sent there
    assert (made.settings.anchored, made.settings.media_check_s) == (True, 5)


MEDIA = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n'


def test_announcements_are_off_by_default() -> None:
    made = parse_config(MEDIA, "f")
    assert (made.settings.announcements, made.sounds) == (Announcements(), None)


@pytest.mark.parametrize("what", ["refused", "begin", "ending"])
def test_announcements_can_be_enabled_one_by_one(what: str) -> None:
    made = parse_config(f'{MEDIA}[announcements]\n{what} = true\nlanguage = "en"\nmax_at_once = 7', "f")
    assert made.settings.announcements == Announcements(**{what: True}, max_at_once=7)
    assert made.sounds == SoundFiles("en")


def test_media_go_directly_by_default() -> None:
    made = parse_config('[media]\nrtpengine = "udp:127.0.0.1:2223"', "f")
    assert (made.rtpengine, made.settings.anchored) == ((), False)


# -- [recording]


RECORDS = '[recording]\nspool = "spool"\n'


def test_an_rtpengine_that_other_nodes_do_not_reach_is_warned_about() -> None:
    media = '[media]\nmode = "rtpengine"\nrtpengine = ["udp:127.0.0.1:2223", "udp:192.0.2.9:2223", "udp:[::1]:2223"]\n'
    told = config(f'{media}[store]\nurl = "postgresql://r@h/d"\nnode = "a"').warnings
    assert [each.partition(": a node")[0] for each in told] == [
        "peer: none: every call is refused, as from an unknown source; add a [[peer]] for each PBX and carrier",
        "media.rtpengine: udp:127.0.0.1:2223",
        "media.rtpengine: udp:[::1]:2223",
    ]
    assert len(config(media).warnings) == 1


def test_recording_is_off_by_default() -> None:
    made = config("")
    assert made.recordings == Recordings(Path("var/recordings"))
    assert (made.settings.recording, made.settings.recording_needed, made.numbers.recording) == (False, False, False)
    assert made.sounds is None


def test_recording_allows_a_notice_to_both_sides() -> None:
    made = config(MEDIA + '[recording]\nspool = "s"\nkept_in = "k"\ncipher = "sm4-gcm"\non_failure = "end"')
    assert made.recordings == Recordings(Path("k"), (Path("s"),), "sm4-gcm")
    assert (made.settings.recording, made.settings.recording_needed, made.numbers.recording) == (True, True, True)
    assert made.sounds == SoundFiles("zh")


def test_each_instance_may_have_its_own_folder() -> None:
    assert config(MEDIA + '[recording]\nspool = ["a", "b"]').recordings.spools == (Path("a"), Path("b"))


def test_recording_needs_rtpengine() -> None:
    with pytest.raises(ConfigError, match=r"recording\.spool: rtpengine records; write media\.mode"):
        parse_config(RECORDS, "f")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            MEDIA + RECORDS + "[api]\nenabled = false",
            "recording.spool: recordings are taken over by the backend process",
        ),
        ('[recording]\ncipher = "des"', "recording.cipher: invalid enum value"),
        ('[recording]\non_failure = "shrug"', "recording.on_failure: invalid enum value"),
        ('[retention]\nrecordings = "soon"', "retention.recordings: not a duration"),
        (
            '[retention]\nrecordings = "183d"',
            'recordings: 183d is shorter than the six months that the law requires; write "184d"',
        ),
        ('[retention]\nrecordings = "185d"', "recordings: 185d is longer than retention.records, 184d: a recording"),
    ],
)
def test_a_wrong_value_is_reported(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(text)
    (problem,) = error.value.problems
    assert told in problem


def test_recordings_may_be_deleted_before_the_records() -> None:
    assert config('[retention]\nrecords = "400d"\nrecordings = "200d"').retention.recordings_ms == 200 * DAY_MS


# -- Sounds


TEXTS = tomllib.loads((SHIPPED / "texts.toml").read_text())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sound_has_a_text_and_a_file(language: Language) -> None:
    assert set(TEXTS[language]) == set(SOUNDS)
    assert {path.stem for path in (SHIPPED / language).iterdir()} == set(SOUNDS)
    for name, data in read_sounds(SoundFiles(language)).items():
        assert len(data) < MOST_BYTES, name
        head = data[: data.index(b"data")]
        # Format 6 is A-law: one channel, 8000 samples a second of one byte each.
        assert head[20:36] == bytes.fromhex("0600 0100 401f0000 401f0000 0100 0800"), name
        assert len(set(data)) > 50, f"{name} is silent"


def test_sounds_differ_by_language() -> None:
    sounds = read_sounds(SoundFiles("en"))
    assert sounds["zh", "busy"] != sounds["en", "busy"] == sounds["", "busy"]


def test_announced_outcomes_exist() -> None:
    known = {refusal.outcome for refusal in OF_POLICY}
    of_callees = {"busy", "rejected", "no_answer", "unreachable", "number_unknown"}
    assert set(OF_REFUSAL) <= known | of_callees


def test_an_operator_s_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    own, in_chinese = a_law_wav(700, 0.5), a_law_wav(800, 0.5)
    (tmp_path / "zh").mkdir()
    (tmp_path / "busy.wav").write_bytes(own)
    (tmp_path / "zh/busy.wav").write_bytes(in_chinese)
    sounds = read_sounds(SoundFiles("en", tmp_path))
    assert (sounds["", "busy"], sounds["en", "busy"], sounds["zh", "busy"]) == (own, own, in_chinese)
    assert sounds["", "unknown"] == read_sounds(SoundFiles("en"))["", "unknown"]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_bytes(a_law_wav(700, 0.5))
    (tmp_path / "busy.wav").write_bytes(b"MP3")
    (tmp_path / "ending.wav").write_bytes(a_law_wav(700, 8))
    (tmp_path / "begin.wav").mkdir()
    with pytest.raises(ConfigError) as told:
        read_sounds(SoundFiles("en", tmp_path))
    begin, busy, ending, hello = told.value.problems
    assert begin == f"announcements.folder: {tmp_path}/begin.wav cannot be read: Is a directory"
    assert busy == f"announcements.folder: {tmp_path}/busy.wav is not a WAV file"
    assert ending.endswith("bytes, above 60000: encode it as 8 kHz, mono, A-law")
    assert "hello.wav is not a known sound; the names are begin, ending, recorded, busy," in hello


def test_a_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \.wav file"):
        read_sounds(SoundFiles("en", tmp_path))
