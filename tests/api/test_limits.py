"""Token buckets: grants, RateLimit values, and memory."""

from __future__ import annotations

from relay.api.middleware import MOST_BUCKETS, Allowance, Buckets


def test_grants_the_burst_at_once_then_the_rate() -> None:
    buckets = Buckets(rate=10, burst=3)
    assert [buckets.take("a", 0.0).granted for _ in range(4)] == [True, True, True, False]
    assert not buckets.take("a", 0.05).granted
    assert buckets.take("a", 0.2).granted


def test_an_allowance_has_the_time_to_the_next_token_and_to_a_full_bucket() -> None:
    buckets = Buckets(rate=1, burst=2)
    assert buckets.take("a", 0.0) == Allowance(True, limit=2, remaining=1, reset_s=1, retry_after_s=0)
    assert buckets.take("a", 0.0) == Allowance(True, limit=2, remaining=0, reset_s=2, retry_after_s=1)
    assert buckets.take("a", 0.0) == Allowance(False, limit=2, remaining=0, reset_s=2, retry_after_s=1)


def test_names_do_not_share_a_bucket() -> None:
    buckets = Buckets(rate=1, burst=1)
    assert buckets.take("a", 0.0).granted
    assert buckets.take("b", 0.0).granted
    assert not buckets.take("a", 0.0).granted


def test_a_clock_set_back_grants_nothing() -> None:
    buckets = Buckets(rate=1, burst=1)
    assert buckets.take("a", 100.0).granted
    assert not buckets.take("a", 50.0).granted


def test_the_number_of_buckets_is_limited() -> None:
    buckets = Buckets(rate=1, burst=1)
    for number in range(MOST_BUCKETS + 100):
        buckets.take(str(number), 0.0)
    assert len(buckets._buckets) == MOST_BUCKETS


def test_a_full_bucket_is_forgotten() -> None:
    buckets = Buckets(rate=1, burst=1)
    buckets.take("a", 0.0)
    buckets.take("b", 10.0)
    assert list(buckets._buckets) == ["b"]


def test_a_new_rate_applies_from_the_next_token() -> None:
    buckets = Buckets(rate=1, burst=5)
    buckets.take("a", 0.0)
    buckets.apply_config(rate=1, burst=2)
    assert [buckets.take("a", 0.0).granted for _ in range(3)] == [True, True, False]
