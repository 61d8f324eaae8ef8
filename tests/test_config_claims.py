"""`[[peer]] numbers`: how they are written, what is wrong with them, and what is warned of."""

from __future__ import annotations

import pytest

from relay.call.claims import CallerNumbers
from relay.call.settings import Peer
from relay.config import load_config
from relay.config.peers import MAX_REFUSED
from tests.test_config import PEER, config, problem, problems

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
def test_a_number_is_written_as_everywhere(entry: str) -> None:
    assert listed(entry) == CallerNumbers(numbers=frozenset({"8613800000001"}))


def test_a_landline_with_a_dash_is_a_number_and_no_range() -> None:
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
        ("1*", "may stand for extensions and others"),  # or half of China
        ("86*", "may stand for extensions and others"),
        ("8613*", "may stand for extensions and others"),
        ("0*", "may stand for extensions and others"),
        ("00*", "may stand for extensions and others"),
        ("01*", "may stand for extensions and others"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(entry: str, word: str) -> None:
    told = problem(f'{PEER}numbers = ["13800000001", "{entry}"]')
    assert told.startswith(f"peer[0].numbers[1]: '{entry}': ")
    assert word in told


@pytest.mark.parametrize("value", ['"all"', "5", "[1]"])
def test_what_is_no_list_is_told_with_what_to_write(value: str) -> None:
    told = problem(f"{PEER}numbers = {value}")
    assert told.startswith("peer[0].numbers")
    assert '"any", or a list such as' in told


def test_any_is_anybody_and_so_is_a_peer_without_the_setting() -> None:
    assert peer(f'{PEER}numbers = "any"').numbers is None
    assert peer(PEER).numbers is None


@pytest.mark.parametrize(
    ("username", "number"), [("13800000001", "8613800000001"), ("1001", "1001"), ("+8613800000001@x", "8613800000001")]
)
def test_a_login_is_its_own_number(username: str, number: str) -> None:
    assert peer(PHONE.format(username)).numbers == CallerNumbers(frozenset({number}))


@pytest.mark.parametrize("username", ["branch", "700100000010001", "12"])
def test_a_login_that_is_no_number_is_nobody(username: str) -> None:
    assert peer(PHONE.format(username)).numbers == CallerNumbers()


def test_a_login_with_numbers_has_those_alone() -> None:
    assert peer(f'{PHONE.format("1001")}numbers = ["13800000001"]').numbers == CallerNumbers(
        frozenset({"8613800000001"})
    )


def test_a_login_may_not_be_anybody() -> None:
    (told,) = problems(f'{PHONE.format("1001")}numbers = "any"')
    assert told.startswith("peer[0].numbers: a peer with a login may name its own alone")


def test_a_peer_without_numbers_is_warned_of_with_what_to_write() -> None:
    (told,) = config(PEER).warnings
    assert told.startswith("peer[0].numbers: missing: carrier may call in anybody's name; ")
    assert '"any"' in told
    assert '"13800000001"' in told


def test_a_login_that_can_call_nobody_is_warned_of() -> None:
    (told,) = config(PHONE.format("branch")).warnings
    assert told.startswith("peer[0].numbers: missing, and the login's username is no number: ")


@pytest.mark.parametrize(
    "text", [f'{PEER}numbers = "any"', f"{PEER}numbers = []", PHONE.format("1001"), f"{PHONE.format('x')}numbers = []"]
)
def test_what_is_said_is_not_warned_of(text: str) -> None:
    assert config(text).warnings == ()


def test_nothing_built_in_is_warned_of(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_how_many_refused_attempts_a_peer_has(lines: str, most: int) -> None:
    assert peer(f"{PEER}{lines}").max_refused_in == most
