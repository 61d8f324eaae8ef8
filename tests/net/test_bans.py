"""Bans as operators see them: log lines and control-socket commands."""

from __future__ import annotations

import time

import pytest

from relay.defence.bans import Ban, Bans, Known
from relay.errors import Refused
from relay.model.settings import Limits
from relay.net.control import LOGGED_PER_S, BanAnswers, BanLog, read_source
from tests.net.support import Log

BAD, GOOD = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def bans() -> Bans:
    made = Bans(Limits(ban_after=10))
    made.spare(lambda: Known([], [GOOD]))
    return made


def refused(answers: BanAnswers, *asked: object) -> tuple[str, str]:
    with pytest.raises(Refused) as error:
        answers.ban(*asked) if len(asked) > 1 else answers.unban(*asked)  # type: ignore[arg-type]
    return error.value.kind, error.value.field


def test_start_and_end_of_a_ban_are_logged(bans: Bans) -> None:
    log = Log()
    bans.listeners.append(BanLog(log.logger))
    for host in (BAD, GOOD):
        for _ in range(10):
            bans.offend(host, "stranger", 1000.0, proven=True)
    bans.expire(5000.0)
    told = [{name: value for name, value in event.items() if name != "timestamp"} for event in log.events()]
    assert told == [
        {"event": "source.banned", "level": "warning", "source": BAD, "reason": "stranger", "for_s": 600},
        {"event": "source.spared", "level": "warning", "source": GOOD, "reason": "stranger"},
        {"event": "source.unbanned", "level": "info", "source": BAD, "reason": "stranger"},
    ]


def test_ban_log_lines_are_rate_limited() -> None:
    log = Log()
    tell = BanLog(log.logger)
    began = time.monotonic()
    for number in range(10_000):
        tell("banned", Ban(f"10.0.{number // 256}.{number % 256}", "stranger", 1.0, 2.0))
    assert len(log.events()) <= LOGGED_PER_S * (time.monotonic() - began + 1)


def test_the_number_of_left_out_lines_is_logged() -> None:
    log = Log()
    tell = BanLog(log.logger)
    ban = Ban(BAD, "stranger", 1.0, 2.0)
    told: list[int] = []
    while not told:
        tell("banned", ban)
        told = [event["left_out"] for event in log.events() if "left_out" in event]
    assert told[0] > 0


def test_an_operator_bans_lists_and_lifts(bans: Bans) -> None:
    answers = BanAnswers(bans)
    before = time.time() * 1000
    made = answers.ban(BAD, 3600.0)
    assert abs(made["until"] - before - 3_600_000) < 60_000
    (shown,) = answers.bans()["bans"]
    assert (shown["address"], shown["reason"]) == (BAD, "operator")
    assert abs(shown["since"] - before) < 60_000
    assert bans.holds(BAD)
    assert answers.unban(BAD) == {"lifted": [BAD]}
    assert not bans.holds(BAD)
    assert answers.bans() == {"bans": []}


def test_a_second_ban_changes_the_end_of_the_first(bans: Bans) -> None:
    answers = BanAnswers(bans)
    answers.ban(BAD, 3600.0)
    later = answers.ban(BAD, 60.0)
    (shown,) = answers.bans()["bans"]
    assert abs(shown["until"] - later["until"]) < 1000


def test_all_bans_can_be_lifted_at_once(bans: Bans) -> None:
    answers = BanAnswers(bans)
    for number in range(3):
        answers.ban(f"192.0.2.{number}", 60.0 + number)
    assert answers.unban() == {"lifted": ["192.0.2.0", "192.0.2.1", "192.0.2.2"]}
    assert answers.unban() == {"lifted": []}


def test_an_address_in_a_banned_network_lifts_the_network(bans: Bans) -> None:
    answers = BanAnswers(bans)
    answers.ban("2001:db8::/64", 60.0)
    assert bans.holds("2001:db8::1")
    assert answers.unban("2001:db8::7") == {"lifted": ["2001:db8::/64"]}
    answers.ban("2001:db8::1", 60.0)
    assert (bans.holds("2001:db8::1"), bans.holds("2001:db8::2")) == (True, False)


def test_impossible_bans_are_refused(bans: Bans) -> None:
    answers = BanAnswers(bans)
    assert refused(answers, GOOD, 60.0) == ("state_conflict", "address")
    assert refused(answers, BAD, 0.0) == refused(answers, BAD, 1e9) == ("invalid", "for_s")
    assert refused(answers, BAD) == ("not_found", "address")


@pytest.mark.parametrize("text", ["carrier.example", "", "192.0.2.0/24", "2001:db8::/48", "2001:db8::1/64", "1.2.3.4;"])
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(Refused) as error:
        read_source(text)
    assert (error.value.kind, error.value.field) == ("invalid", "address")


def test_a_dry_run_reports_and_changes_nothing(bans: Bans) -> None:
    answers = BanAnswers(bans)
    assert answers.ban(BAD, 60.0, dry_run=True) == {}
    assert not bans.holds(BAD)
    for asked in ((GOOD, 60.0), (BAD, 0.0)):
        with pytest.raises(Refused):
            answers.ban(*asked, dry_run=True)
    with pytest.raises(Refused):
        answers.unban(BAD, dry_run=True)
    answers.ban(BAD, 60.0)
    assert answers.unban(BAD, dry_run=True) == answers.unban(dry_run=True) == {"lifted": [BAD]}
    assert bans.holds(BAD)
