"""config/compose: podman-compose reads it, and its files agree with each other and with those that they name."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from podman_compose import PodmanCompose, podman_compose  # type: ignore[import-untyped]

from relay.config import load_config

CONFIG = Path(__file__).parents[1] / "config"
COMPOSE = CONFIG / "compose"
RTPENGINE = (CONFIG / "rtpengine" / "rtpengine.conf").read_text()


@cache
def parsed() -> PodmanCompose:
    podman_compose._parse_args(["-f", str(COMPOSE / "compose.yaml"), "config"])
    podman_compose._parse_compose_file()
    return podman_compose


def services() -> dict[str, Any]:
    found: dict[str, Any] = parsed().services
    return found


def mounts(service: str) -> dict[str, str]:
    """What is mounted in a service, by its place there."""
    return {place: source for source, place, *_ in (each.split(":") for each in services()[service]["volumes"])}


def read(name: str) -> Any:
    return yaml.safe_load((COMPOSE / name).read_text())


def test_services_depend_on_services_and_volumes_are_declared() -> None:
    needed = {name for service in services().values() for name in service.get("depends_on", {})}
    assert needed <= set(services())
    named = {source for service in services() for source in mounts(service).values() if "/" not in source}
    assert named == set(parsed().vols)


@pytest.mark.parametrize("service", ["relay", "rtpengine", "postgres", "prometheus", "grafana"])
def test_mounted_files_are_there(service: str) -> None:
    files = [COMPOSE / source for source in mounts(service).values() if "/" in source]
    assert [file for file in files if not file.exists()] == []


def relay_toml() -> dict[str, Any]:
    return tomllib.loads((COMPOSE / "relay.toml").read_text())


def test_relay_toml_is_good() -> None:
    assert load_config(COMPOSE / "relay.toml").rtpengine


def test_relay_uses_the_services_beside_it() -> None:
    config = relay_toml()
    assert f"listen-ng = {config['media']['rtpengine'].removeprefix('udp:')}\n" in RTPENGINE
    postgres = services()["postgres"]
    assert postgres["environment"]["POSTGRES_USER"] == postgres["environment"]["POSTGRES_DB"] == "relay700"
    assert config["store"]["url"] == f"postgresql:///relay700?host={socket_folder()}"


def socket_folder() -> str:
    [folder] = [place for place, source in mounts("relay").items() if source == "postgres-socket"]
    return folder


def test_prometheus_asks_the_relay_and_grafana_asks_prometheus() -> None:
    scraped = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    [target] = scraped[0]["static_configs"][0]["targets"]
    assert target == tomllib.loads((CONFIG / "relay.toml").read_text())["api"]["listen"]  # the default
    [listen] = [re.search(r"listen-address=(.*)", part) for part in services()["prometheus"]["command"][1:]]
    assert listen is not None
    assert read("grafana-datasource.yaml")["datasources"][0]["url"] == f"http://{listen[1]}"
    [provider] = read("grafana-dashboards.yaml")["providers"]
    assert mounts("grafana")[provider["options"]["path"]] == "../grafana"


def test_the_relay_s_configuration_is_mounted_as_a_folder() -> None:
    """The mount of a file keeps the one that an editor has replaced, so that a reload would change nothing."""
    source = mounts("relay")["/etc/relay700"]
    assert (COMPOSE / source).resolve() == COMPOSE


def test_the_relay_s_log_is_bounded() -> None:
    assert set(services()["relay"]["logging"]["options"]) == {"max-size", "max-file"}


def test_the_relay_is_given_time_to_drain() -> None:
    assert int(services()["relay"]["stop_grace_period"].removesuffix("s")) > relay_toml()["sip"]["drain_s"]
