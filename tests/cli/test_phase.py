"""`relay700 phase`."""

from __future__ import annotations

from tests.cli.conftest import Command

OLD = "17012345678"


def test_the_phase_is_shown_with_what_is_left(relay700: Command) -> None:
    assert "nothing uses old middle numbers" in relay700.done("phase")
    config = relay700.folder / "relay.toml"
    phases = f'phase = "auto"\nlegacy = ["{OLD}"]\n[pilot]\npilot = 2199-01-01\nends = 2199-06-01\n'
    config.write_text(config.read_text() + phases)
    relay700.done("bind", "AXB", "--a", "13800000001", "--b", "13900000002", "--x", OLD, "--expires-in", "2199-01-02")
    (shown,) = relay700.objects("phase")
    assert (shown["phase"], shown["by_calendar"], shown["in_time"]) == ("transition", True, False)
    assert shown["ends_at"] == shown["legacy_ends_at"] == "2198-12-31T16:00:00.000Z"
    assert shown["left"] == [
        {
            **{"business_id": "default", "bindings": 1, "outlasting": 1, "calls": [0] * 7, "calls_before": 0},
            **{"trend": "steady", "in_time": False},
        }
    ]
    told = relay700.done("phase")
    assert "default" in told and "138" not in told
    config.write_text(config.read_text() + "\n[fraud]\n")
    config.write_text(config.read_text().replace("pilot = 2199-01-01\nends = 2199-06-01", "ends = 2026-06-01"))
    assert relay700.objects("phase")[0]["phase"] == "over"
    refused = relay700.refused("bind", "AXB", "--a", "13800000001", "--b", "13900000003")
    assert refused.startswith("the pilot ended at 2026-05-31T16:00:00.000Z")
