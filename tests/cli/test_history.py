"""`kyra backfill NAME --from-history`. AWS is tests/lookup.py: moto has no LookupEvents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import Kyra
from tests.lookup import ACCOUNT, Lookup, served
from tests.test_history import record


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lookup]:
    monkeypatch.setattr("kyra_etl.aws.history.EVERY", 0.0)
    at = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=3)
    records = {region: [record(region, n, at) for n in range(3)] for region in ("eu-west-1", "us-east-1")}
    with served(Lookup(records)) as server:
        monkeypatch.setenv("KYRA_AWS_ENDPOINT_URL", server.url)
        yield server


def hours(lookup: Lookup) -> set[tuple[str, float]]:
    """The hours of regions that were asked for."""
    return {(region, question["StartTime"]) for region, question in lookup.questions if "StartTime" in question}


def test_history_is_offered_fetched_and_told_by_day(kyra: Kyra, lookup: Lookup) -> None:
    added = kyra("integration", "add", "prod", "--bucket", "example-logs")
    assert "kyra backfill prod --from-history" in added.err

    lookup.errors = lambda region, number: "UnrecognizedClientException" if region == "ap-east-1" else None
    fetch = ("backfill", "prod", "--from-history", "--days", 1, "--regions", "eu-west-1,us-east-1,ap-east-1")
    ran = kyra(*fetch, "--json")

    assert ran.code == 0, ran.err
    assert f"Asking eu-west-1, us-east-1 of account {ACCOUNT}." in ran.err
    assert "Left out: ap-east-1. The account has not enabled ap-east-1." in ran.err
    assert (ran.json["events"], ran.json["regions"]) == (6, ["eu-west-1", "us-east-1"])
    assert sum(day["events"] for day in ran.json["days"]) == 6

    loaded = hours(lookup)
    lookup.questions.clear()
    again = kyra(*fetch)
    assert again.out.startswith(("0 hours loaded, ", "2 hours loaded, "))  # an hour may just have closed
    assert hours(lookup).isdisjoint(loaded)
    assert kyra("search", "event_name:DescribeInstances", "--json").json[0]["account"] == ACCOUNT


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-history", "--from", "2026-01-01"), "takes no --from"),
        (("--from-history", "--regions", "europe"), "'europe' is not an AWS region"),
        (("--from-history", "--days", 91), "less than or equal to 90"),
        (("--days", 3), "go with --from-history"),
        ((), "needs --from (or --from-history)"),
    ],
)
def test_wrong_use_is_told(kyra: Kyra, arguments: tuple[object, ...], said: str) -> None:
    kyra("integration", "add", "prod", "--bucket", "example-logs")
    ran = kyra("backfill", "prod", *arguments)

    assert ran.code == 2
    assert said in ran.error


def test_a_paused_integration_is_left_alone(kyra: Kyra) -> None:
    kyra("integration", "add", "prod", "--bucket", "example-logs")
    kyra("integration", "pause", "prod")

    assert "prod is paused." in kyra("backfill", "prod", "--from-history").error


def test_a_folder_has_no_history(kyra: Kyra, bucket: object) -> None:
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())  # type: ignore[attr-defined]
    ran = kyra("backfill", "prod", "--from-history")

    assert ran.code == 2
    assert "which has no history but its files" in ran.error
