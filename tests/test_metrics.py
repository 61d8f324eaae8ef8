"""Metrics as parsed by Prometheus' client."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from relay.api.backend import RequestCounts
from relay.call.engine import Engine
from relay.metrics import text, with_zeros
from relay.model.outcomes import REFUSALS
from relay.sip_service import tokens
from tests.call.support import settings


def read(data: bytes) -> dict[str, tuple[str, str, list[tuple[dict[str, str], float]]]]:
    """name: type, description, samples."""
    return {
        family.name: (
            family.type,
            family.documentation,
            [(sample.labels, sample.value) for sample in family.samples if not sample.name.endswith("_created")],
        )
        for family in text_string_to_metric_families(data.decode())
    }


def test_gauges_counters_and_labels() -> None:
    assert read(text({"calls_up": 3, "bugs": 2, "refused": {"no_binding": 5, "expired": 1}})) == {
        "relay700_calls_up": ("gauge", "answered calls", [({}, 3.0)]),
        "relay700_bugs": ("counter", "exceptions in the engine, each logged; must stay 0", [({}, 2.0)]),
        "relay700_refused": (
            "counter",
            "calls and text messages refused by the relay",
            [({"outcome": "expired"}, 1.0), ({"outcome": "no_binding"}, 5.0)],
        ),
    }


def test_gauges_of_peers_and_targets() -> None:
    found = read(text({"target_up": {"carrier udp:192.0.2.10:5060": 0}, "peer_calls": {"carrier in": 2}}))
    assert found["relay700_target_up"][2] == [({"peer": "carrier", "target": "udp:192.0.2.10:5060"}, 0.0)]
    assert found["relay700_peer_calls"][0] == "gauge"
    assert found["relay700_peer_calls"][2] == [({"peer": "carrier", "direction": "in"}, 2.0)]


def test_a_statistic_without_description_is_a_counter() -> None:
    assert read(text({"new_thing": 7})) == {"relay700_new_thing": ("counter", "", [({}, 7.0)])}


def test_all_statistics_of_the_engine_have_descriptions() -> None:
    engine = Engine(settings(), tokens().__next__, 0.0)
    families = read(text(engine.statistics()))
    assert len(families) == len(engine.statistics())
    assert [name for name, (_, what, _) in families.items() if not what] == []


def test_counters_start_at_zero() -> None:
    told = {"up": 1, "bugs": 2, "refused": {"expired": 3}, "streams_closed_idle": 4, "shed": {"gone": 5}}
    found = read(text(with_zeros(told, ["carrier"])))
    assert found["relay700_leak_check"][2] == [({}, 0.0)]
    assert found["relay700_bugs"][2] == [({}, 2.0)]
    refused = {labels["outcome"]: value for labels, value in found["relay700_refused"][2]}
    assert refused.keys() == REFUSALS
    assert {outcome: value for outcome, value in refused.items() if value} == {"expired": 3.0}
    assert ({"outcome": "answered"}, 0.0) in found["relay700_calls_ended"][2]
    assert ({"why": "idle"}, 4.0) in found["relay700_streams_closed"][2]
    assert found["relay700_shed"][2] == [({"peer": "carrier"}, 0.0), ({"peer": "gone"}, 5.0)]
    assert all(what for _, what, _ in found.values())


def test_outcomes_and_histograms_of_configured_peers_start_at_zero() -> None:
    engine = Engine(settings(), tokens().__next__, 0.0)
    found = read(text(with_zeros(engine.results(), ["carrier"])))
    assert ({"of": "caller"}, 0.0) in found["relay700_refused_too_often"][2]
    assert ({"peer": "carrier", "outcome": "no_binding"}, 0.0) in found["relay700_calls_in"][2]
    assert ({"peer": "carrier", "outcome": "answered"}, 0.0) in found["relay700_calls_out"][2]
    assert not any(labels["outcome"] == "no_binding" for labels, _ in found["relay700_calls_out"][2])
    for name in ("relay700_call_setup_seconds", "relay700_call_post_dial_delay_seconds"):
        kind, _, samples = found[name]
        assert kind == "histogram"
        assert ({"peer": "carrier", "le": "+Inf"}, 0.0) in samples


def test_a_histogram_is_cumulative() -> None:
    told = {"call_setup_seconds": {"bounds": (0.1, 1.0), "rows": {"carrier": [2, 1, 3, 40.5]}}}
    samples = read(text(told))["relay700_call_setup_seconds"][2]
    assert [value for _, value in samples] == [2.0, 3.0, 6.0, 6.0, 40.5]


def test_build_info_and_requests_have_labels() -> None:
    requests = RequestCounts()
    requests.add("GET", "/v1/calls/{call_id}", 200, 12.0)
    requests.add("BREW", "-", 404, 1.0)
    found = read(text({"build_info": {"1.0.0rc1 3.11.2 true": 1}, **requests.statistics()}))
    assert found["relay700_build_info"][2] == [({"version": "1.0.0rc1", "python": "3.11.2", "compiled": "true"}, 1.0)]
    assert found["relay700_api_requests"][2] == [({"status": "2xx"}, 1.0), ({"status": "4xx"}, 1.0)]
    labels = [labels for labels, _ in found["relay700_api_request_seconds"][2] if labels.get("le") == "+Inf"]
    assert [(each["method"], each["route"], each["status"]) for each in labels] == [
        ("-", "-", "4xx"),
        ("GET", "/v1/calls/{call_id}", "2xx"),
    ]
