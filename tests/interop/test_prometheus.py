"""Alert rules and dashboard, in a real Prometheus that scrapes a running relay after real calls."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call, refused
from tests.support.addresses import RELAY, Address, free
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, Setup, X
from tests.support.waiting import until_seen

RULES = Path("config/prometheus/relay700.rules.yml")
RULE_TESTS = Path("tests/data/prometheus/relay700.rules.test.yml")
EXAMPLE = Path("config/prometheus/prometheus.yml")
DASHBOARD = Path("config/grafana/relay700.json")
MANUAL = Path("docs/ALERTS.md")
VARIABLES = {"$job": "relay700", "$instance": ".*", "$__rate_interval": "1m"}


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_and_the_example_are_valid() -> None:
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(EXAMPLE))


def test_each_alert_fires_and_stays_quiet() -> None:
    promtool("test", "rules", str(RULE_TESTS))
    tests = RULE_TESTS.read_text()
    for alert in alerts():
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tests), f"{alert}: no test in which it fires"
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", tests), f"{alert}: no test in which it is quiet"


def test_the_manual_says_what_to_do_about_each_alert() -> None:
    described = re.findall(r"^- `(Relay700\w+)`:", MANUAL.read_text(), re.MULTILINE)
    assert sorted(described) == sorted(alerts())


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: Address) -> None:
        self._http = httpx.Client(base_url=f"http://{address}", trust_env=False)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None while there is none."""
        try:
            answer = self._http.get(path, params=parameters)
        except httpx.TransportError:
            return None
        assert answer.status_code in (200, 503), answer.text
        return answer.json()["data"] if answer.status_code == 200 else None

    def has(self, query: str) -> bool:
        """Whether the query has a value that is a number."""
        data = self.get("/api/v1/query", query=query)
        return data is not None and any(not math.isnan(float(each["value"][1])) for each in data["result"])


@contextmanager
def prometheus(folder: Path, api: Address) -> Iterator[Prometheus]:
    """The configuration of the example, but for address and interval."""
    text = (
        EXAMPLE.read_text()
        .replace("127.0.0.1:8700", str(api))
        .replace("scrape_interval: 15s", "scrape_interval: 200ms")
    )
    assert str(api) in text
    assert "200ms" in text
    (folder / "prometheus.yml").write_text(f"global: {{evaluation_interval: 200ms}}\n{text}")
    (folder / RULES.name).write_text(RULES.read_text())
    address = free("127.0.0.1")
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = ["prometheus", *options, f"--web.listen-address={address}", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(20)


async def busy(ends: Ends) -> None:
    """A call that the callee refuses."""
    leg = Leg.calling(ends.left, ends.relay.setup.relay, A, X)
    branch = await leg.request("INVITE", body=SDP)
    invite = await ends.right.expect("INVITE")
    await Leg.called(ends.right, ends.relay.setup.relay, invite).answer(invite, 486)
    answer = await ends.left.expect(486)
    leg.learn(answer)
    await leg.request("ACK", branch=branch, cseq=1)


async def test_each_query_of_the_dashboard_has_data_and_no_rule_fails(tmp_path: Path) -> None:
    ends = f'caller_at = "{free("127.0.0.71")}"\ncallee_at = "{free("127.0.0.72")}"\n'
    probe = f'\n[probe]\ncaller = "13800000071"\ncallees = {{probe = "13900000072"}}\n{ends}'
    setup = Setup(api=free(RELAY), more=probe)
    assert setup.api is not None
    with running_relay(tmp_path, setup) as relay, prometheus(tmp_path, setup.api) as server:
        relay.bind()
        await until_seen(lambda: server.has('relay700_calls_in_total{outcome="answered"} == 0'))
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            phones = Ends(relay, left, right)
            await call(phones, A, X)
            await busy(phones)
            assert (await refused(phones, "13800000009", X)).status == 403
        for query in queries():
            async with asyncio.timeout(20):
                await until_seen(partial(server.has, query))
        rules = server.get("/api/v1/rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} == {"ok"}
        assert [rule["name"] for rule in rules] == alerts()
        assert {rule["state"] for rule in rules} == {"inactive"}


def queries() -> list[str]:
    """The dashboard's queries, its variables replaced."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    assert found
    return found
