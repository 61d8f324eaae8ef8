"""Sessions in memory."""

from __future__ import annotations

import pytest

from relay.console.sessions import IDLE_S, LONGEST_S, MOST, MOST_NOTICES, Sessions, is_private, is_same


def test_a_session_is_found_by_its_token_until_it_is_over() -> None:
    sessions = Sessions()
    token = sessions.begin("key", "shunda", 0)
    assert (found := sessions.find(token, IDLE_S)) is not None and found.key_id == "key"
    assert sessions.find("other", 0) is None
    assert sessions.find(token, 2 * IDLE_S + 1) is None
    assert sessions.find(token, 0) is None  # it does not come back with the clock


def test_a_stream_does_not_keep_a_session_alive() -> None:
    sessions = Sessions()
    token = sessions.begin("key", "shunda", 0)
    assert sessions.find(token, IDLE_S, used=False)
    assert sessions.find(token, IDLE_S + 1) is None


def test_a_session_keeps_the_last_notices_only() -> None:
    sessions = Sessions()
    session = sessions.find(sessions.begin("key", "shunda", 0), 0)
    assert session is not None
    for n in range(MOST_NOTICES + 5):
        session.notices.append(("bad", str(n)))
    assert [text for _, text in session.notices] == [str(n) for n in range(5, MOST_NOTICES + 5)]


def test_a_session_used_all_day_ends() -> None:
    sessions = Sessions()
    token = sessions.begin("key", "shunda", 0)
    for now_s in range(0, int(LONGEST_S) + 1, 600):
        assert sessions.find(token, now_s)
    assert sessions.find(token, LONGEST_S + 1) is None


def test_the_session_unused_for_longest_gives_way() -> None:
    sessions = Sessions()
    first, second = sessions.begin("first", "1", 0), sessions.begin("second", "2", 0)
    assert sessions.find(first, 1)
    for n in range(MOST - 1):
        sessions.begin(f"{n}", f"of {n}", 2)
    assert sessions.find(first, 3) and not sessions.find(second, 3)


def test_nobody_ends_the_sessions_of_others_by_logging_in_often() -> None:
    sessions = Sessions()
    first, other = sessions.begin("key", "shunda", 0), sessions.begin("key", "operator", 0)
    for n in range(2 * MOST):
        last = sessions.begin(f"{n}", "shunda", 1)
    assert sessions.find(other, 2) and sessions.find(last, 2) and not sessions.find(first, 2)


def test_an_empty_token_is_never_the_same() -> None:
    assert is_same("a", "a")
    assert not is_same("", "") and not is_same("b", "a") and not is_same("é", "e")


@pytest.mark.parametrize(
    ("scheme", "server", "client", "forwarded", "private"),
    [
        ("https", "192.0.2.1", "198.51.100.1", "", True),
        ("https", "192.0.2.1", "127.0.0.1", "http", False),  # TLS behind the proxy alone
        ("http", "192.0.2.1", "198.51.100.1", "", False),
        ("http", "192.0.2.1", "127.0.0.1", "https", True),
        ("http", "192.0.2.1", "198.51.100.1", "https", False),  # anybody can write the header
        ("http", "127.0.0.1", "127.0.0.1", "https", True),
        ("http", "127.0.0.1", "127.0.0.1", "http", False),
        ("http", "127.0.0.1", "127.0.0.1", "", True),
        ("http", "::1", "::1", "", True),
    ],
)
def test_a_console_needs_tls_or_loopback(scheme: str, server: str, client: str, forwarded: str, private: bool) -> None:
    headers = [(b"x-forwarded-proto", forwarded.encode())] if forwarded else []
    scope = {"scheme": scheme, "server": (server, 8700), "client": (client, 40000), "headers": headers}
    assert is_private(scope) == private


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via"])
def test_a_proxy_has_to_say_that_its_browser_uses_tls(header: str) -> None:
    by_proxy = [(header.lower().encode(), b"192.0.2.1")]
    scope = {"scheme": "http", "server": ("127.0.0.1", 8700), "client": ("127.0.0.1", 40000), "headers": by_proxy}
    assert not is_private(scope) and not is_private(scope | {"scheme": "https"})
    assert is_private(scope | {"headers": [*by_proxy, (b"x-forwarded-proto", b"https")]})
