"""The tables of the number-protection service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.config import VerifyConfig, load_config
from relay.model.numbers import MOBILES_ALONE
from relay.policy.fraud import Signal
from relay.policy.rules import NEVER_MS, NO_LIMIT, Cap, Hours, Quotas
from relay.service.fields import CHINA
from tests.config.support import config, problem, problems

DAY_MS = 86_400_000


@pytest.mark.parametrize(("text", "ppm"), [("0.05%", 500), ("1%", 10_000), ("0.0001%", 1), ("off", 0)])
def test_a_limit_of_complaints_is_parts_per_million(text: str, ppm: int) -> None:
    assert config(f'[policy]\ncomplaint_rate = "{text}"').complaint_ppm == ppm


def test_defaults_follow_the_regulation() -> None:
    empty = config("")
    assert (empty.numbers.cool_down_ms, empty.numbers.max_bindings) == (DAY_MS, 200)
    assert (empty.settings.legacy, empty.numbers.legacy_until_ms) == (frozenset(), None)
    assert (empty.api.enabled, empty.api.host, empty.api.port) == (True, "127.0.0.1", 8700)
    assert empty.rules.caller_caps == (Cap(3, 300), Cap(6, 600), Cap(10, 86_400))
    assert not (empty.rules.anonymous_allowed or empty.rules.international_allowed)
    assert (empty.fraud.strangers, empty.fraud.short_s) == (Signal(20, 0), 6)
    assert empty.verify is None
    assert (empty.webhooks.give_up_ms, empty.webhooks.batch) == (DAY_MS, 50)
    kept = empty.retention
    assert (kept.records_ms, kept.bindings_ms) == (184 * DAY_MS, 184 * DAY_MS)
    assert (kept.audit_ms, kept.businesses_ms) == (731 * DAY_MS, 731 * DAY_MS)
    assert empty.purge_at_minute == 3 * 60 + 30


def test_default_quotas_are_small_and_none_means_no_limit() -> None:
    assert config("").numbers.quotas == Quotas(1_000, 50, 1_000, 100, 20) == config("").rules.quotas
    made = config('[quotas]\nmax_bindings = 7\nmax_cps = "none"')
    assert made.numbers.quotas == Quotas(7, 50, 1_000, 100, NO_LIMIT) == made.rules.quotas
    assert "quotas.max_calls: " in problem("[quotas]\nmax_calls = -1")


def test_the_commented_configuration_equals_the_built_in_one() -> None:
    made, empty = load_config(Path("config/relay.toml")), config("")
    for table in ("numbers", "api", "rules", "fraud", "verify", "webhooks", "retention"):
        assert getattr(made, table) == getattr(empty, table), table


@pytest.mark.parametrize("filing", ["off", "warn", "require"])
def test_the_mode_for_a_numbers_that_are_not_filed(filing: str) -> None:
    made = config(f'[numbers]\nfiling = "{filing}"')
    assert (made.numbers.filing, made.rules.filing_required) == (filing, filing == "require")


def test_legacy_numbers_are_normalised_and_end_after_their_last_day_in_china() -> None:
    made = config('[numbers]\nlegacy = ["+86 170-0000-0001", "17000000001"]\nlegacy_until = "2027-03-31"')
    assert made.settings.legacy == {"8617000000001"}
    assert made.numbers.legacy_until_ms == datetime(2027, 3, 31, 16, tzinfo=UTC).timestamp() * 1000


def test_legacy_numbers_may_end_with_the_last_day_of_the_calendar() -> None:
    made = config('[numbers]\nlegacy_until = "9999-12-31"')
    assert made.numbers.legacy_until_ms == datetime(9999, 12, 31, 16, tzinfo=UTC).timestamp() * 1000


def test_the_rules_are_built_from_all_tables() -> None:
    numbers = '[numbers]\nphase = "transition"\nlegacy_until = "2027-03-31"\n'
    policy = '[policy]\nanonymous = "allow"\nhours = "22:00-06:00"\n'
    rules = config(numbers + policy + '[verify]\nurl = "https://x.example"\nsecret_file = "s"').rules
    assert (rules.phase, rules.anonymous_allowed, rules.verify) == ("transition", True, True)
    assert rules.legacy_until_ms == datetime(2027, 3, 31, 16, tzinfo=UTC).timestamp() * 1000
    assert rules.hours == Hours(22 * 60, 6 * 60)


def midnight_ms(year: int, month: int, day: int) -> int:
    return round(datetime(year, month, day, tzinfo=CHINA).timestamp() * 1000)


def test_the_phase_follows_the_dates_in_the_time_of_china() -> None:
    made = config("[pilot]\nends = 2028-01-01")
    for rules in (made.rules, made.numbers):
        for phase, first in (("transition", (2025, 10, 1)), ("pilot", (2026, 1, 1))):
            assert rules.phase_at(midnight_ms(*first)) == phase != rules.phase_at(midnight_ms(*first) - 1)
        assert rules.phase_at(midnight_ms(2020, 1, 1)) == "preparation"
        assert rules.phase_at(midnight_ms(2040, 1, 1)) == "pilot"
        assert rules.dates.ends_ms == midnight_ms(2028, 1, 1)
    assert made.numbers.legacy_ends_ms() == midnight_ms(2026, 1, 1)
    assert config('[numbers]\nphase = "transition"').numbers.phase_at(midnight_ms(2040, 1, 1)) == "transition"


def test_the_pilot_does_not_end_by_itself() -> None:
    assert config("").rules.dates.ends_ms == NEVER_MS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("transition = 2025-06-30", "pilot.transition: 2025-06-30 is not after pilot.preparation, 2025-07-01; write a"),
        ("pilot = 2025-10-01", "pilot.pilot: 2025-10-01 is not after pilot.transition, 2025-10-01; write a later day,"),
        (
            "ends = 2025-12-31",
            "pilot.ends: 2025-12-31 is not after pilot.pilot, 2026-01-01; write a later day, or",
        ),
        ('ends = "soon"', "pilot.ends: invalid RFC3339 encoded date; write a day without quotes, such as 2028-01-01"),
    ],
)
def test_dates_that_overlap_or_run_backwards_are_named(text: str, fault: str) -> None:
    assert fault in problem(f"[pilot]\n{text}")


def test_an_empty_list_of_caps_is_no_limit() -> None:
    made = config("[policy]\ncaller_caps = []\nnumber_caps = []").rules
    assert (made.caller_caps, made.number_caps) == ((), ())


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1:1", "127.0.0.1"), ("[::1]:8700", "::1"), ("127.1.2.3:65535", "127.1.2.3")]
)
def test_the_api_may_use_plain_http_on_loopback(listen: str, host: str) -> None:
    assert config(f'[api]\nlisten = "{listen}"').api.host == host


def test_the_api_needs_a_certificate_on_other_addresses() -> None:
    assert "keys would cross the network in clear" in problem('[api]\nlisten = "0.0.0.0:8700"')
    made = config('[api]\nlisten = "0.0.0.0:8700"\ncertificate = "c.pem"\nkey = "k.pem"').api
    assert (made.certificate, made.key) == (Path("c.pem"), Path("k.pem"))


def test_the_hook_needs_https_unless_on_loopback() -> None:
    hook = '[verify]\nurl = "{}"\nsecret_file = "s"\nfail = "open"'
    assert config(hook.format("https://platform.example/v")).verify == VerifyConfig(
        "https://platform.example/v", Path("s"), 2.0, "open"
    )
    assert config(hook.format("http://127.0.0.1:99/v")).verify is not None
    assert problem(hook.format("http://platform.example/v")).startswith("verify.url: http shows real numbers")
    assert "not a URL" in problem(hook.format("platform.example"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[numbers]\ncool_down = "24"', "numbers.cool_down: not a duration"),
        ("[numbers]\nmax_bindings = 0", "numbers.max_bindings: expected int >= 1"),
        ('[numbers]\nlegacy = ["x"]', "numbers.legacy[0]: not a number"),
        ('[numbers]\nlegacy = ["700100000010001"]', "numbers.legacy[0]: a 700 number cannot be a party"),
        ('[numbers]\nlegacy_until = "31.3.2027"', "numbers.legacy_until: '31.3.2027' is not a day"),
        ('[api]\nlisten = "999.0.0.1:8700"', "api.listen: 999.0.0.1 is not an address"),
        ('[api]\nlisten = "127.0.0.1:0"', "api.listen: port 0 does not exist"),
        ('[api]\ncertificate = "c"', "api.key: missing"),
        ('[compat.alibaba]\nlisten = "0.0.0.0:8701"', "compat.alibaba.listen: 0.0.0.0 is reachable"),
        ('[compat.alibaba]\nlisten = "127.0.0.1:8700"', "compat.alibaba.listen: the same as api.listen"),
        ('[compat.alibaba]\nlisten = "localhost"', "compat.alibaba"),
        ("[compat.alibaba]\n[api]\nenabled = false", "compat.alibaba: the backend serves it"),
        ("[compat.alibaba]\nlist = 1", "compat.alibaba: object contains unknown field list"),
        ("[compat.huawei]", "compat.huawei: unknown setting"),
        ('[api]\nkey = "k"', "api.certificate: missing"),
        ('[policy]\ncomplaint_rate = "0.05"', "policy.complaint_rate: "),
        ('[policy]\ncaller_caps = ["3/5m", "0/5m"]', "policy.caller_caps[1]: '0/5m' is not a cap"),
        ('[policy]\nnumber_caps = ["3/x"]', "policy.number_caps[0]: not a duration"),
        ('[policy]\ncaller_caps = ["3/25h"]', "policy.caller_caps[0]: 25h is too long"),
        ('[policy]\nhours = "8-22"', "policy.hours: must be two times of the day"),
        ("[fraud]\nstrangers = {warn = 20, lock = 10}", "fraud.strangers: lock is below warn"),
        ("[fraud]\nstrangers = {wrn = 20}", "fraud.strangers: object contains unknown field wrn"),
        ('[verify]\nurl = "https://x.example"', "verify.secret_file: missing"),
        ('[hep]\nserver = "homer:9060"', "hep.server: not a collector"),
        ('[hep]\nserver = "udp:homer:0"', "hep.server: not a collector"),
        ('[hep]\nnumbers = "clear"', "hep.server: missing"),
        ('[webhooks]\ngive_up = "soon"', "webhooks.give_up: not a duration"),
        ('[capture]\nkeep = "some"', "capture.keep: invalid enum value 'some'; write"),
        ('[capture]\nkeep_for = "soon"', "capture.keep_for: not a duration"),
        ("[webhooks]\nbatch = 51", "webhooks.batch: expected int <= 50"),
        ('[retention]\nrecords = "183d"', '183d is shorter than the six months that the law requires; write "184d'),
        ('[retention]\nbindings = "1d"', "retention.bindings: 1d is shorter than the six months"),
        ('[retention]\naudit = "730d"', '730d is shorter than the two years that the law requires; write "731d"'),
        ('[retention]\nbusinesses = "730d"', "retention.businesses: 730d is shorter than the two years"),
        ('[retention]\npurge_at = "24:00"', "retention.purge_at: "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_with_the_allowed_ones(text: str, told: str) -> None:
    assert told in problem(text)


def test_links_begin_with_the_url_that_clients_know() -> None:
    assert config("").api.public_url == "http://127.0.0.1:8700"
    assert config('[api]\nlisten = "[::1]:8701"').api.public_url == "http://[::1]:8701"
    assert config('[api]\npublic_url = "https://api.example/"').api.public_url == "https://api.example"
    assert 'such as "https://api.example.com"' in problem('[api]\npublic_url = "api.example"')


def test_alibaba_s_api_is_served_only_if_it_is_named() -> None:
    assert config("").alibaba is None
    assert config("[compat.alibaba]").alibaba == ("127.0.0.1", 8701)
    assert config('[compat.alibaba]\nlisten = "[::1]:8702"').alibaba == ("::1", 8702)


def test_all_faults_are_reported_at_once() -> None:
    text = '[retention]\nrecords = "1d"\naudit = "1d"\n[policy]\nhours = "x"\n[api]\nlisten = "0.0.0.0:1"\n'
    keys = [each.partition(":")[0] for each in problems(text)]
    assert keys == ["api.listen", "policy.hours", "retention.records", "retention.audit"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("parties = []", "numbers.parties: "),
        ('parties = ["cell"]', "numbers.parties[0]: invalid enum value 'cell'; write kinds of numbers"),
        (
            'parties = ["foreign"]',
            'numbers.countries: missing, for "foreign" in parties; write a list such as ["HK", "SG"]',
        ),
        (
            'parties = ["extension"]',
            'numbers.extensions: missing, for "extension" in parties; write a list such as ["1000-1999"]',
        ),
        (
            'countries = ["UK"]',
            "numbers.countries[0]: 'UK' is not a country; write two letters of ISO 3166, such as \"GB\"",
        ),
        ('countries = ["GB", "44"]', "numbers.countries[1]: '44' is not a country"),
        ('countries = ["CN"]', 'numbers.countries[0]: China\'s own numbers are "mobile" and "landline" in parties'),
        *(
            (
                f'extensions = ["1000-1999", "{text}"]',
                "numbers.extensions[1]: not a range of 3 to 8 digits",
            )
            for text in ("1000", "10-19", "1000-199", "1999-1000", "100000000-199999999", "+100-+199", "１００-１９９")
        ),
        *(
            (f'extensions = ["{text}"]', f"({size} digits that begin with {start}); leave them out")
            for text, size, start in [
                ("100-199", 3, "11"),
                ("110-110", 3, "11"),
                ("120-129", 3, "12"),
                ("900-999", 3, "911"),
                ("000-099", 3, "0"),
                ("0100-0199", 4, "0"),
                ("86000-87000", 5, "86"),
                ("10000-10999", 5, "10"),
                ("00000-99999", 5, "0"),
                ("12345-12345", 5, "12"),
                ("95000-95999", 5, "95"),
                ("94000-95000", 5, "95"),
                ("960000-960001", 6, "96"),
                ("16800000-16899999", 8, "16"),
            ]
        ),
    ],
)
def test_invalid_party_numbers_are_reported(text: str, told: str) -> None:
    assert told in problem(f"[numbers]\n{text}")


@pytest.mark.parametrize("text", ["1000-1999", "200-899", "13000-15999", "1000-9999", "20000000-85999999", "101-109"])
def test_extensions_are_a_range_outside_the_service_numbers(text: str) -> None:
    made = config(f'[numbers]\nparties = ["extension"]\nextensions = ["{text}"]')
    assert made.numbers.parties.kinds == ("extension",)
    assert made.rules.parties is made.numbers.parties


def test_only_mobile_numbers_are_parties_by_default() -> None:
    assert config("").rules.parties == config("").numbers.parties == MOBILES_ALONE
    assert config('[numbers]\ncountries = ["HK"]\nextensions = ["1000-1999"]').rules.parties == MOBILES_ALONE


def test_the_collector_of_spans() -> None:
    assert config("").otlp is None
    assert config('[otlp]\nendpoint = "http://127.0.0.1:4318"').otlp == "http://127.0.0.1:4318"
    assert "not a URL" in problem('[otlp]\nendpoint = "127.0.0.1:4318"')
    assert "otlp.endpoint: http shows who does what" in problem('[otlp]\nendpoint = "http://collector.example:4318"')
    assert "set api.enabled = true" in problem('[api]\nenabled = false\n[otlp]\nendpoint = "http://127.0.0.1:4318"')


HEP = '[hep]\nserver = "{}"\n'


@pytest.mark.parametrize(
    ("server", "read"),
    [
        ("udp:127.0.0.1:9060", ("udp", "127.0.0.1", 9060)),
        ("tls:homer.example:9061", ("tls", "homer.example", 9061)),
        ("tcp:[2001:db8::9]:9060", ("tcp", "2001:db8::9", 9060)),
    ],
)
def test_a_collector_is_read(server: str, read: tuple[str, str, int]) -> None:
    made = config(HEP.format(server)).hep
    assert made is not None
    assert (made.transport, made.host, made.port) == read
    assert (made.is_clear, made.agent_id, made.key_file, made.ca) == (False, 700, None, None)


def test_real_numbers_go_to_a_collector_by_tls_or_loopback_only() -> None:
    clear = HEP + 'numbers = "clear"\n'
    assert "shows real numbers to the network" in problem(clear.format("udp:192.0.2.9:9060"))
    for server in ("tls:192.0.2.9:9060", "udp:127.0.0.9:9060", "tcp:[::1]:9060"):
        made = config(clear.format(server)).hep
        assert made is not None and made.is_clear
    no_peers, warning = config(clear.format("tls:192.0.2.9:9060")).warnings
    assert warning.startswith("hep.numbers: ")
    assert config(HEP.format("udp:192.0.2.9:9060")).warnings == (no_peers,)


def test_a_collector_needs_the_backend() -> None:
    assert problem(HEP.format("udp:127.0.0.1:9060") + "[api]\nenabled = false").startswith("hep: the backend")
