"""`kyra costs`: a bill that can be added up by hand, and selectors that AWS's own client takes."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from kyra_etl.cloudtrail.selectors import Data, Management, command, document
from kyra_etl.costs import Ours, costs
from kyra_etl.model import Window
from kyra_etl.prices import table
from tests.cli.conftest import ACCOUNT, Kyra, put, record

OBJECTS = [{"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::busy/x"}, {"type": "AWS::S3::Bucket"}]
FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:resize"


def problems(request: dict[str, Any]) -> str:
    """What AWS's client has against a request of PutEventSelectors."""
    model = botocore.session.Session().get_service_model("cloudtrail").operation_model("PutEventSelectors")
    report: str = ParamValidator().validate(request, model.input_shape).generate_report()
    return report


def at(minute: int) -> str:
    return f"{datetime(2026, 1, 10) + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"


def read_object(number: int, bucket: str = "busy", name: str = "GetObject") -> dict[str, Any]:
    return record(
        f"{bucket}-{name}-{number}",
        name,
        eventSource="s3.amazonaws.com",
        eventTime=at(number),
        eventCategory="Data",
        managementEvent=False,
        readOnly=name == "GetObject",
        requestParameters={"bucketName": bucket, "key": str(number)},
        resources=OBJECTS,
    )


@pytest.fixture
def mixed(kyra: Kyra, tmp_path: Path) -> Path:
    """A day of a customer: 60 management events, 140 data events, and a second trail for the management events."""
    folder = tmp_path / "mixed"
    manages = [record(f"m{n}", "DescribeInstances", eventTime=at(n), readOnly=True) for n in range(40)]
    manages += [
        record(f"k{n}", "Decrypt", eventSource="kms.amazonaws.com", eventTime=at(n), readOnly=True) for n in range(15)
    ]
    manages += [record(f"w{n}", "RunInstances", eventTime=at(1440), readOnly=False) for n in range(5)]
    put(folder, "management", *manages)
    put(folder, "again", *manages)
    data = [read_object(n) for n in range(90)] + [read_object(n, "quiet", "PutObject") for n in range(10)]
    data += [
        record(
            f"i{n}",
            "Invoke",
            eventSource="lambda.amazonaws.com",
            eventTime=at(n),
            eventCategory="Data",
            readOnly=False,
            resources=[{"type": "AWS::Lambda::Function", "ARN": FUNCTION}],
        )
        for n in range(40)
    ]
    put(folder, "data", *data)
    kyra("integration", "add", "prod", "--bucket", folder.as_uri())
    assert kyra("sync", "prod").code == 0
    return folder


def test_a_bill_that_adds_up_by_hand(kyra: Kyra, mixed: Path) -> None:
    report = kyra("costs", "prod", "--json").json

    assert (report["events"], report["records"], report["second_copies"]) == (200, 260, 60)
    assert (report["covered_days"], report["month_factor"]) == (1.0, 30.0)
    assert [(row["category"], row["events"]) for row in report["by_category"]] == [("Data", 140), ("Management", 60)]
    assert report["by_source"][0] == {"source": "s3.amazonaws.com", "events": 100, "share": 0.5, "read_share": 0.9}
    assert [(row["target"], row["events"]) for row in report["targets"]] == [
        ("busy", 90),
        (FUNCTION, 40),
        ("quiet", 10),
    ]
    lines = {line["what"]: line["number"] for line in report["month"]}
    assert lines["management events, first copy"] == 60 * 30
    assert lines["log files written to S3"] == 3 * 30
    assert report["total"] == pytest.approx(sum(line["usd"] for line in report["month"]))


def test_suggestions_are_ranked_and_each_document_is_one_aws_takes(kyra: Kyra, mixed: Path) -> None:
    found = kyra("costs", "prod", "--trail", "everything", "--json").json["suggestions"]

    assert [one["usd"] for one in found] == sorted((one["usd"] for one in found), reverse=True)
    assert found[0]["title"].startswith("Record each event once")
    titles = [one["title"] for one in found]
    assert any("kms.amazonaws.com" in title for title in titles)
    assert any(f"data events of busy, {FUNCTION}" in title for title in titles)
    for one in found[1:]:
        assert one["selectors"]["TrailName"] == "everything"
        assert problems(one["selectors"]) == ""
        words = shlex.split(one["command"])
        assert words[:4] == ["aws", "cloudtrail", "put-event-selectors", "--cli-input-json"]
        assert json.loads(words[4]) == one["selectors"]


def test_data_events_stay_limited_to_the_buckets_that_are_recorded(kyra: Kyra, mixed: Path) -> None:
    found = kyra("costs", "prod", "--json").json["suggestions"]

    def recorded(part: str) -> list[Any]:
        one = next(one for one in found if part in one["title"])
        return [
            next((field for field in selector["FieldSelectors"] if field["Field"] == "resources.ARN"), None)
            for selector in one["selectors"]["AdvancedEventSelectors"]
        ]

    buckets = {"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::busy/", "arn:aws:s3:::quiet/"]}
    assert recorded("kms")[1] == buckets
    assert recorded("of busy")[1:] == [{"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::quiet/"]}]
    assert recorded("management events alone") == [None]


def test_what_it_blinds_is_named(kyra: Kyra, kyra_home: Path, mixed: Path) -> None:
    (kyra_home / "kyra.toml").unlink()
    found = kyra("costs", "prod", "--json").json["suggestions"]
    blinds = {one["title"]: one["blinds"] for one in found}

    assert "secrets_read_in_bulk" in blinds["Leave out reading management events (Get, List, Describe)"]
    assert "cloudtrail_disabled" not in str(blinds)


def test_prices_can_be_corrected(kyra: Kyra, kyra_home: Path, mixed: Path) -> None:
    usual = kyra("costs", "prod", "--json").json
    with (kyra_home / "kyra.toml").open("a") as file:
        file.write("\n[prices]\ndata_event = 1.0\n")
    dear = kyra("costs", "prod", "--json").json

    line = next(line for line in dear["month"] if line["what"] == "data events")
    assert line["usd"] == pytest.approx(140 * (1 + 60 / 200) * 30)
    assert dear["prices"]["own"] == ["data_event"]
    assert dear["prices"]["as_of"] == usual["prices"]["as_of"] == table().as_of
    assert "data_event of kyra.toml" in kyra("costs", "prod").out


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[prices]\ndata_evnt = 1.0\n", "Did you mean data_event?"),
        ('[prices]\ndata_event = "1"\n', "must be US dollars for one"),
        ("prices = 3\n", "prices in"),
    ],
)
def test_wrong_prices_are_refused(kyra: Kyra, kyra_home: Path, written: str, said: str) -> None:
    (kyra_home / "kyra.toml").write_text(written)
    ran = kyra("costs", "local")

    assert ran.code == 2
    assert said in ran.error


def test_without_events_there_is_nothing_to_count(kyra: Kyra, bucket: Path) -> None:
    kyra("integration", "add", "prod", "--bucket", bucket.as_uri())

    assert "There are no events to count yet." in kyra("costs", "prod").error
    assert kyra("costs", "nope").code == 2


def test_events_told_by_history_first_are_no_second_copies() -> None:
    row = {"category": "Management", "source": "s3.amazonaws.com", "name": "CreateBucket", "reads": False}
    row |= {"events": 100, "fetched": 80, "first_at": datetime(2026, 1, 1), "last_at": datetime(2026, 1, 2)}
    volume = {"files": 3, "bytes": 9000, "records": 110, "duplicates": 85}
    report = costs(
        "prod",
        Window(datetime(2026, 1, 1), datetime(2026, 1, 3)),
        ask=lambda sql, given: [row] if "GROUP BY ALL" in sql else [],
        volume=volume,
        prices=table(),
        ours=Ours(1000, encrypted=True),
    )

    assert report["second_copies"] == 5
    assert {line["what"] for line in report["month"]} >= {"LIST requests by kyra", "uses of the log files' KMS key"}


@pytest.mark.parametrize(
    ("management", "data"),
    [
        (Management(), []),
        (Management(writes_only=True, without=("kms.amazonaws.com", "rdsdata.amazonaws.com")), []),
        (None, [Data("AWS::S3::Object", writes_only=True, without=("arn:aws:s3:::a/",))]),
        (Management(), [Data("AWS::Lambda::Function", only=(FUNCTION,)), Data("AWS::DynamoDB::Table")]),
    ],
)
def test_every_kind_of_document_is_one_aws_takes(management: Management | None, data: list[Data]) -> None:
    made = document("arn:aws:cloudtrail:eu-west-1:111122223333:trail/x", management, data)

    assert problems(made) == ""
    assert json.loads(shlex.split(command(made))[4]) == made


def test_the_validator_is_not_satisfied_with_anything() -> None:
    assert "Unknown parameter" in problems({"TrailName": "x", "AdvancedSelectors": []})


def test_a_public_incident_s_sources_are_named(kyra: Kyra, shared_data: Path) -> None:
    logs = shared_data / "raw" / "invictus"
    if not logs.is_dir():
        pytest.skip("no invictus records beside the repository")
    assert kyra("load", logs, "--no-detect").code == 0
    report = kyra("costs", "local", "--json").json

    assert [row["source"] for row in report["by_source"][:3]] == [
        "ec2.amazonaws.com",
        "ssm.amazonaws.com",
        "kms.amazonaws.com",
    ]
    assert report["suggestions"]
    assert [problems(one["selectors"]) for one in report["suggestions"]] == [""] * len(report["suggestions"])
    shown = kyra("costs", "local").out
    assert "ec2.amazonaws.com" in shown
    assert "less than a day" in shown
    assert [line for line in shown.splitlines() if len(line) > 100 and "aws cloudtrail" not in line] == []
