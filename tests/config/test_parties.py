"""`[[peer]] numbers`: notation, faults and warnings."""

from __future__ import annotations

import pytest

from relay.config import load_config
from relay.config.peers import MAX_REFUSED
from relay.model.settings import CallerNumbers, Peer
from tests.config.support import PEER, config, problem, problems

PHONE = '[[peer]]\nname = "phone"\nlogin = {{username = "{}", password_file = "p"}}\n'


def peer(text: str) -> Peer:
    (made,) = config(text).settings.peers
    return made


def listed(*entries: str) -> CallerNumbers:
    numbers = peer(f"{PEER}numbers = {list(entries)!r}").numbers
    assert numbers is not None
    return numbers


@pytest.mark.parametrize(
    "entry", ["13800000001", "+8613800000001", "008613800000001", "8613800000001", "138-0000-0001", "138 0000 0001"]
)
def test_a_number_may_be_written_in_any_usual_form(entry: str) -> None:
    assert listed(entry) == CallerNumbers(numbers=frozenset({"8613800000001"}))


@pytest.mark.parametrize("entry", ["1380013800a", "86 138 0013 800x", "13800138000-1380013", "+138*x"])
def test_a_number_that_cannot_be_read_is_named_by_its_place(entry: str) -> None:
    """It is a real number with a slip of the pen."""
    found = problem(f'{PEER}numbers = ["1000-1999", "{entry}"]')
    assert found.startswith("peer[0].numbers[1]: ") and entry not in found and entry[:7] not in found
    assert "13800138000" not in problem(f'{PEER}numbers = "13800138000"')


def test_a_landline_with_a_dash_is_not_a_range() -> None:
    assert listed("010-12345678", "0755-12345678") == CallerNumbers(frozenset({"861012345678", "8675512345678"}))


@pytest.mark.parametrize(
    ("entry", "prefix"),
    [
        *(("138*", "86138"), ("13*", "8613"), ("+86138*", "86138"), ("0086138*", "86138")),
        *(("010*", "8610"), ("0755*", "86755"), ("+852*", "852"), ("001*", "1"), ("+86*", "86")),
    ],
)
def test_a_prefix_of_numbers(entry: str, prefix: str) -> None:
    assert listed(entry) == CallerNumbers(prefixes=(prefix,))


@pytest.mark.parametrize("entry", ["8", "10", "201"])
def test_a_prefix_of_extensions(entry: str) -> None:
    assert listed(f"{entry}*") == CallerNumbers(extension_prefixes=(entry,))


@pytest.mark.parametrize(
    ("entry", "ends"),
    [
        ("1000-1999", ("1000", "1999")),
        ("13800000000-13800000999", ("8613800000000", "8613800000999")),
        ("+8613800000000 - +8613800000999", ("8613800000000", "8613800000999")),
        ("01012340000-01012349999", ("861012340000", "861012349999")),
    ],
)
def test_a_range(entry: str, ends: tuple[str, str]) -> None:
    assert listed(entry) == CallerNumbers(ranges=(ends,))


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("*", '"any"'),
        ("138**", '"any"'),
        ("+0755*", '"any"'),
        ("alice", "only digits"),
        ("12", "3 to 15 digits"),
        ("700100000010001", "cannot be a party"),
        ("1999-1000", "a higher one"),
        ("1*", "fits extensions and other numbers"),  # or half of China
        ("86*", "fits extensions and other numbers"),
        ("8613*", "fits extensions and other numbers"),
        ("0*", "fits extensions and other numbers"),
        ("00*", "fits extensions and other numbers"),
        ("01*", "fits extensions and other numbers"),
    ],
)
def test_a_wrong_entry_is_reported_with_its_position(entry: str, word: str) -> None:
    told = problem(f'{PEER}numbers = ["13800000001", "{entry}"]')
    assert told.startswith("peer[0].numbers[1]: ")
    assert word in told


@pytest.mark.parametrize("value", ['"all"', "5", "[1]"])
def test_a_value_that_is_not_a_list_is_reported_with_an_example(value: str) -> None:
    told = problem(f"{PEER}numbers = {value}")
    assert told.startswith("peer[0].numbers")
    assert '"any", or a list such as' in told


def test_any_and_a_missing_setting_allow_every_caller() -> None:
    assert peer(f'{PEER}numbers = "any"').numbers is None
    assert peer(PEER).numbers is None


@pytest.mark.parametrize(
    ("username", "number"), [("13800000001", "8613800000001"), ("1001", "1001"), ("+8613800000001@x", "8613800000001")]
)
def test_a_login_may_call_by_its_own_number(username: str, number: str) -> None:
    assert peer(PHONE.format(username)).numbers == CallerNumbers(frozenset({number}))


@pytest.mark.parametrize("username", ["branch", "700100000010001", "12"])
def test_a_login_without_a_number_may_not_call(username: str) -> None:
    assert peer(PHONE.format(username)).numbers == CallerNumbers()


def test_a_login_with_numbers_may_only_call_by_them() -> None:
    assert peer(f'{PHONE.format("1001")}numbers = ["13800000001"]').numbers == CallerNumbers(
        frozenset({"8613800000001"})
    )


def test_a_login_may_not_have_any_caller() -> None:
    (told,) = problems(f'{PHONE.format("1001")}numbers = "any"')
    assert told.startswith("peer[0].numbers: a peer with a login needs a list")


def test_a_peer_without_numbers_is_warned_about_with_examples() -> None:
    told, _ = config(PEER).warnings
    assert told.startswith("peer[0].numbers: missing: carrier may claim any caller number; ")
    assert '"any"' in told
    assert '"13800000001"' in told


def test_a_login_that_cannot_call_is_warned_about() -> None:
    told, _ = config(PHONE.format("branch")).warnings
    assert told.startswith("peer[0].numbers: missing, and the login's username is not a number: ")


@pytest.mark.parametrize(
    "text", [f'{PEER}numbers = "any"', f"{PEER}numbers = []", PHONE.format("1001"), f"{PHONE.format('x')}numbers = []"]
)
def test_an_explicit_setting_is_not_warned_about(text: str) -> None:
    (no_route,) = config(text).warnings
    assert no_route.startswith("route: none: ")


def test_a_configuration_without_peers_is_warned_about() -> None:
    (told,) = config("").warnings
    assert told.startswith("peer: none: every call is refused")


def test_the_built_in_configuration_has_no_warnings(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert load_config().warnings == ()


@pytest.mark.parametrize(
    ("lines", "most"),
    [
        ("", 0),
        ('numbers = "any"', 0),
        ('numbers = ["138*"]', MAX_REFUSED),
        ('numbers = "any"\nmax_refused_in = 5000', 5000),
        ('numbers = ["138*"]\nmax_refused_in = 0', 0),
    ],
)
def test_the_limit_of_refused_attempts_of_a_peer(lines: str, most: int) -> None:
    assert peer(f"{PEER}{lines}").max_refused_in == most
