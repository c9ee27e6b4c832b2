"""Metrics: every one documented, all there after a real run, and the dashboard asks for no other."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kyra_etl.metrics import METRICS
from tests.cli.conftest import Kyra, bucket, kyra, put, record  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parent.parent
NAMES = {metric.name for metric in METRICS}


@pytest.fixture
def scrape(kyra: Kyra, bucket: Path) -> dict[str, list[tuple[dict[str, str], float]]]:  # noqa: F811
    """What is shown after a sync that met a broken file, by name: labels and value of each sample."""
    put(bucket, "broken").write_bytes(b"\x1f\x8bnonsense")
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())
    assert kyra("sync", "prod").code == 3
    shown = kyra("metrics")
    assert shown.code == 0
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(shown.out):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_every_metric_has_a_value_after_a_real_run(scrape: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    assert set(scrape) == NAMES
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    assert all(set(found) == labels[name] for name, samples in scrape.items() for found, _ in samples)


def test_the_values_are_those_of_the_run(scrape: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    prod = {"integration": "prod"}
    expected = {
        "kyra_log_files_loaded_total": [(prod, 2.0)],
        "kyra_records_total": [(prod, 4.0)],
        "kyra_events_total": [(prod, 3.0)],
        "kyra_duplicates_total": [(prod, 1.0)],
        "kyra_get_requests_total": [(prod, 3.0)],
        "kyra_log_files_waiting": [(prod, 0.0)],
        "kyra_detection_queue": [({}, 0.0)],
    }
    assert {name: scrape[name] for name in expected} == expected
    (quarantined,) = scrape["kyra_log_files_quarantined"]
    assert quarantined[1] == 1
    alerts = [labels for labels, value in scrape["kyra_alerts"] if value]
    assert alerts == [{"severity": "high", "status": "open", "historical": "yes"}]
    states = {labels["state"]: value for labels, value in scrape["kyra_integration_state"]}
    assert (states["Degraded"], sum(states.values())) == (1.0, 1.0)


def test_age_of_the_last_success_is_told_of_those_that_somebody_waits_for(
    kyra: Kyra,  # noqa: F811
    bucket: Path,  # noqa: F811
) -> None:
    for name in ("synced", "paused", "removed", "new"):
        kyra("integration", "add", name, "--bucket", bucket.as_uri())
    for name in ("synced", "paused", "removed"):
        kyra("sync", name)
    kyra("integration", "pause", "paused")
    kyra("integration", "remove", "removed")

    told = kyra("metrics", "--json").json

    ages = {one["integration"]: one["value"] for one in told["kyra_last_success_age_seconds"] if one["verb"] == "sync"}
    assert set(ages) == {"synced", "new"}
    assert all(0 <= age < 600 for age in ages.values())
    assert [one["integration"] for one in told["kyra_last_success_timestamp_seconds"]] == ["synced"]
    assert len(told["kyra_runs_total"]) == 3  # a counter goes on


@contextmanager
def answering() -> Iterator[tuple[int, str]]:
    """A process that answers with metrics: its port, and what it says first.

    A port that was free may be somebody else's a moment later: then on another one.
    """
    for left in reversed(range(5)):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "kyra_etl", "metrics", "--port", str(port)]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr is not None
            said = running.stderr.readline()
            if left and f"Port {port} cannot be used" in said:
                continue
            try:
                yield port, said
            finally:
                running.terminate()
            return


def test_metrics_are_answered_over_http_on_this_machine_only(kyra: Kyra, kyra_home: Path) -> None:  # noqa: F811
    with answering() as (port, said):
        assert said == f"Metrics are at http://127.0.0.1:{port}/metrics\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
            assert answer.read().decode().count("# HELP") == len(METRICS)
        assert f"Port {port} cannot be used on 127.0.0.1" in kyra("metrics", "--port", port).error
    elsewhere = kyra("metrics", "--port", port, "--host", "192.0.2.1").error
    assert f"Port {port} cannot be used on 192.0.2.1" in elsewhere


def test_the_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    board = json.loads((ROOT / "deploy/grafana/kyra.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [one["query"] for one in board["templating"]["list"]]
    labels = {label for metric in METRICS for label in metric.labels}

    assert {name for query in queries for name in re.findall(r"\bkyra_\w+", query)} <= NAMES
    assert {name for query in queries for name in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)} <= labels
    grouped = [name for query in queries for some in re.findall(r"by \(([^)]*)\)", query) for name in some.split(", ")]
    assert set(grouped) <= labels
    shown = [name for panel in board["panels"] for target in panel["targets"] for name in _legend(target)]
    assert set(shown) <= labels


def _legend(target: dict[str, str]) -> list[str]:
    return re.findall(r"{{(\w+)}}", target["legendFormat"])


def test_alarms_in_the_documents_ask_for_metrics_that_exist() -> None:
    named = set(re.findall(r"\bkyra_[a-z_]+(?=[{)\s`])", (ROOT / "docs/metrics.md").read_text()))

    assert named - NAMES == set()
    assert len(named) == len(NAMES)


def test_lines_of_a_run_are_json_with_its_ids(kyra_home: Path, bucket: Path) -> None:  # noqa: F811
    def run(*arguments: str) -> list[dict[str, str]]:
        command = [sys.executable, "-m", "kyra_etl", *arguments]
        env = {"KYRA_HOME": str(kyra_home), "KYRA_LOG_FORMAT": "json", "PATH": ""}
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
        return [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]

    run("integration", "add", "prod", "--bucket", bucket.as_uri())
    begins, committed, done = run("sync", "prod")

    assert begins["message"] == "The sync of prod begins."
    assert committed["message"].startswith("Committed 2 log files of ")
    assert done["message"].startswith("Done: 2 log files loaded, 0 quarantined, 0 pending; 3 new events")
    assert committed["batch"]
    assert len({line["run"] for line in (begins, committed, done)}) == 1
    assert {line["integration"] for line in (begins, committed, done)} == {"prod"}
    assert {line["level"] for line in (begins, committed, done)} == {"info"}


def test_without_the_setting_nothing_is_logged(
    kyra: Kyra,  # noqa: F811
    bucket: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())

    assert kyra("sync", "prod").err == ""
    assert all(handler.formatter is None for handler in logging.getLogger("kyra_etl").handlers)
