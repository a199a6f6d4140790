"""The dashboard and the alert rules ask for metrics that there are."""

import json
import re
from pathlib import Path

import pytest
import yaml

import penjing.serve
from penjing.jobs import alerts

PLACE = Path(penjing.serve.__file__).with_name("monitoring")
NAME = re.compile(r"\bpenjing_\w+")


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every series of the service and of `penjing watch --metrics`."""
    source = Path(penjing.serve.__file__).with_name("metrics.py").read_text(encoding="utf-8")
    found = set(re.findall(r'"(penjing_\w+)"', source))
    own = {
        f"penjing_{n}"
        for n in re.findall(r'"((?:drift|live)_\w+)"', Path(alerts.__file__).read_text("utf-8"))
    }
    suffixed = {f"{name}{end}" for name in found for end in ("_total", "_bucket", "_sum", "_count")}
    return found | own | suffixed


def test_the_dashboard_asks_for_metrics_that_there_are(known: set[str]) -> None:
    board = json.loads((PLACE / "penjing-dashboard.json").read_text(encoding="utf-8"))
    asked = {name for p in board["panels"] for t in p["targets"] for name in NAME.findall(t["expr"])}
    assert len(board["panels"]) >= 10
    assert asked <= known, asked - known
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_alerts_ask_for_metrics_that_there_are_and_say_what_is_wrong(known: set[str]) -> None:
    groups = yaml.safe_load((PLACE / "penjing-alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    asked = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert asked <= known, asked - known
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    assert all(rule["expr"].count("(") == rule["expr"].count(")") for rule in rules)
