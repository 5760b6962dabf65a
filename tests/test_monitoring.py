"""Alert rules, dashboard and their page: well-formed, true to what a server sends, and firing when
they should.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser as promql
import pytest
import yaml  # type: ignore[import-untyped]
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from config.services import Services
from config.settings import Settings, load_settings
from processors.metrics import TOPICS_REMADE
from tests.alerting import failures_of, seconds_of
from tests.live import eventually, get, post, shop
from tests.promql import selectors

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/monitoring.md").read_text()
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())[
    "groups"
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SCENARIOS: list[dict[str, Any]] = yaml.safe_load((ROOT / "monitoring/alerts_test.yml").read_text())[
    "tests"
]
DASHBOARD = json.loads((ROOT / "monitoring/dashboard.json").read_text())
PROMETHEUS_OWN = {"up": {"job", "instance"}}
"""What Prometheus itself adds."""
TARGET = {"job", "instance"}
ROWS = [
    "Throughput",
    "Freshness",
    "Lag",
    "Latency by route",
    "Degraded and shed",
    "Hit rates",
    "Dead letters",
    "Exploration",
    "Process restarts",
]


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _shown() -> Iterator[str]:
    for panel in _panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m")


EXPRESSIONS = [rule["expr"] for rule in RULES] + list(_shown())


def test_rules_have_prometheus_shape() -> None:
    assert len({group["name"] for group in GROUPS}) == len(GROUPS)
    for group in GROUPS:
        assert group.keys() == {"name", "interval", "rules"}
        assert seconds_of(group["interval"]) > 0
    for rule in RULES:
        if "record" in rule:
            assert rule.keys() == {"record", "expr"}
            assert re.fullmatch(r"headwater:\w+:\w+|headwater:hit_rate", rule["record"])
            continue
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert re.fullmatch(r"Headwater[A-Za-z]+", rule["alert"])
        assert "for" not in rule or seconds_of(rule["for"]) > 0
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        # What is away has no value but which one it is.
        told = "{{ $labels.instance" if rule["alert"] == "HeadwaterDown" else "{{ $value"
        assert told in rule["annotations"]["summary"]
    assert len({rule.get("alert") or rule["record"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_promql(expression: str) -> None:
    assert selectors(expression)


def test_what_is_no_promql_is_refused() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        selectors("sum(rate(headwater_events_applied_total[5m])")


def test_every_alert_has_its_section() -> None:
    sections = re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)
    assert len(sections) == len(set(sections))
    assert set(sections) == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        expected = f"docs/monitoring.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == expected


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_alerts_fire_when_they_should(scenario: dict[str, Any]) -> None:
    assert failures_of(GROUPS, scenario) == []


def test_every_alert_is_seen_to_fire() -> None:
    wanted = [
        sample["labels"]
        for scenario in SCENARIOS
        for one in scenario["promql_expr_test"]
        for sample in one["exp_samples"]
    ]
    for rule in ALERTS:
        severity = f'severity="{rule["labels"]["severity"]}"'
        assert any(f'"{rule["alert"]}"' in one and severity in one for one in wanted), rule["alert"]


def test_dashboard_has_what_grafana_wants() -> None:
    assert DASHBOARD["schemaVersion"] >= 41
    assert DASHBOARD["id"] is None
    assert "uid" not in DASHBOARD
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    source = {"type": "prometheus", "uid": "${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert [one["title"] for one in DASHBOARD["panels"] if one["type"] == "row"] == ROWS
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        assert panel["datasource"] == source
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["legendFormat"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            assert (x, place["y"]) not in taken
            taken.add((x, place["y"]))


async def test_everything_named_is_what_a_server_sends(services: Services, tmp_path: Path) -> None:
    """A server and a worker that have seen all there is: dead letters, answers without Redis."""
    sent = await _scraped(services, tmp_path)
    known = {name: set().union(*labels) | TARGET for name, labels in sent.items()}
    known |= PROMETHEUS_OWN
    # In /metrics only once a topic was made again.
    (remade,) = TOPICS_REMADE.describe()
    known[f"{remade.name}_total"] = {"tenant", "topic"}
    for rule in RULES:
        if "record" in rule:
            known[rule["record"]] = set()
            if isinstance(tree := promql.parse(rule["expr"]), promql.AggregateExpr):
                by = tree.modifier.labels if tree.modifier else []
                known[rule["record"]] = set(by)
    known["headwater:request_seconds:p99"] = {"route"}
    for expression in EXPRESSIONS:
        for selector, labels in selectors(expression):
            assert selector.name in known, f"{selector.name}: nobody sends it"
            lacking = labels - known[selector.name]
            assert not lacking, f"{selector.name} has no {lacking}: {expression}"
            if selector.name in sent and not _is_of_errors(selector):
                assert any(_is_met(selector, one) for one in sent[selector.name]), str(selector)


def _is_of_errors(selector: promql.VectorSelector) -> bool:
    return any(
        one.name == "code" and one.value.startswith("5") for one in selector.matchers.matchers
    )


def _is_met(selector: promql.VectorSelector, labels: dict[str, str]) -> bool:
    return all(
        re.fullmatch(one.value, labels.get(one.name, ""))
        if one.op == promql.MatchOp.Re
        else labels.get(one.name) == one.value
        for one in selector.matchers.matchers
    )


async def _scraped(services: Services, home: Path) -> dict[str, list[dict[str, str]]]:
    """By name, the labels of each sample."""
    own = load_settings(
        kafka={"bootstrap": services.kafka_bootstrap}, services={"data_dir": home / "own"}
    )
    with Services(own) as breakable:
        assert breakable.redis is not None
        quick = {"timeout_seconds": 0.5}
        async with (
            shop(breakable, home / "home", redis=quick) as stack,
            aiohttp.ClientSession(stack.http_url) as http,
        ):
            await get(http, "/v1/recommendations/u1?n=5")
            await get(http, "/v1/items/tea-1/similar?n=5")
            await post(http, "/v1/recommendations", {"session": ["tea-1"]})
            await post(http, "/v1/recommendations/batch", [{"user_id": "u1"}])
            await asyncio.to_thread(_send_nonsense, stack.settings)
            os.kill(breakable.redis.pid, signal.SIGSTOP)
            try:
                answer = await get(http, "/v1/recommendations/u1?n=5")
                assert answer["degraded"]
            finally:
                os.kill(breakable.redis.pid, signal.SIGCONT)

            async def scrape() -> str:
                async with http.get("/metrics") as answer:
                    return await answer.text()

            # What has no value is not sent; workers tell these now and then.
            wanted = (
                "events_rejected_total{",
                "consumer_lag_records{",
                "degraded_total{",
                "new_items{",
                "learned_ranking_served{",
            )
            text = await eventually(
                scrape, lambda text: all(f"\nheadwater_{one}" in text for one in wanted), 60
            )
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def _send_nonsense(settings: Settings) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap})
    producer.produce(settings.kafka.events_topic, key=b"u1", value=b"no JSON")
    assert producer.flush(20) == 0
