from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from kyra_etl.aws import anonymous
from kyra_etl.aws.bucket import open_bucket
from kyra_etl.aws.session import Session
from kyra_etl.aws.trails import describe_trails
from kyra_etl.check import NAMES, check
from kyra_etl.folder import FolderBucket
from kyra_etl.model import Integration, Probe
from tests.aws.conftest import BUCKET, CUSTOMER, Customer, key_of, log_file, utc_now
from tests.planted import EXTERNAL_ID
from tests.wire import Wire


def probes_of(integration: Integration, **more: Any) -> dict[str, Probe]:
    found = check(integration, bucket=open_bucket(integration), **({"now": utc_now()} | more))
    assert tuple(probe.name for probe in found) == NAMES
    for probe in found:
        assert probe.detail
        assert probe.remedy or probe.passed is not False, f"{probe.name} failed without a remedy"
        assert probe.warning == bool(probe.passed and probe.remedy)
        assert EXTERNAL_ID not in f"{probe.detail} {probe.remedy}"
        assert "\n" not in f"{probe.detail} {probe.remedy}"
    return {probe.name: probe for probe in found}


def failed(probes: Mapping[str, Probe]) -> list[str]:
    return [name for name, probe in probes.items() if probe.passed is False]


def passed(probes: Mapping[str, Probe]) -> list[str]:
    return [name for name, probe in probes.items() if probe.passed]


def warned(probes: Mapping[str, Probe]) -> list[str]:
    return [name for name, probe in probes.items() if probe.warning]


NOT_ASKED_WITHOUT_NOTICES = ["topic", "queue", "subscription"]


@pytest.fixture
def connected(guarded: None, customer: Customer) -> Customer:
    """A customer who did everything right."""
    customer.put(key_of(1000), key_of(1005))
    customer.trail()
    return customer


def test_a_right_connection_passes_every_probe_without_a_warning(connected: Customer, integration: Integration) -> None:
    probes = probes_of(integration)
    assert passed(probes) == [name for name in NAMES if name not in NOT_ASKED_WITHOUT_NOTICES]
    assert warned(probes) == []
    assert "eu-west-1" in probes["bucket"].detail
    assert "1 account, 1 region; newest log file" in probes["layout"].detail
    assert re.search(r", [0-9]+ s old\.$", probes["layout"].detail)
    assert probes["decode"].detail == "1 record."


def test_without_a_role_the_questions_about_it_are_not_asked(s3_server: str) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=key_of(1), Body=log_file())
    probes = probes_of(Integration("x", BUCKET))
    assert [name for name, probe in probes.items() if probe.passed is None] == [
        *("assume_role", "external_id", "trail", "regions", "validation", "logging", "delivery", "selectors"),
        *NOT_ASKED_WITHOUT_NOTICES,
    ]
    assert failed(probes) == []


def test_the_wrong_external_id_fails_one_probe_and_what_needs_the_role_is_not_asked(
    connected: Customer, integration: Integration
) -> None:
    probes = probes_of(replace(integration, external_id="kyra-not-this-one"))
    assert failed(probes) == ["assume_role"]
    assert passed(probes) == ["identity", "clock"]
    assert "sts:ExternalId" in probes["assume_role"].remedy
    assert "kyra-not-this-one" not in str(probes)


def test_a_role_that_does_without_the_external_id_is_reported_as_dangerous(
    customer: Customer, integration: Integration
) -> None:
    customer.put(key_of(1))
    customer.trail()
    probes = probes_of(integration)
    assert warned(probes) == ["external_id"]
    assert failed(probes) == []
    assert probes["external_id"].detail.startswith("Dangerous (confused deputy): the role can be assumed with a wrong")
    assert "external id and without one" in probes["external_id"].detail
    assert "sts:ExternalId" in probes["external_id"].remedy


def test_without_credentials_nothing_else_is_asked(
    connected: Customer, integration: Integration, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    probes = probes_of(integration)
    assert failed(probes) == ["identity"]
    assert passed(probes) == ["clock"]  # which S3 tells callers without credentials, too


def test_a_missing_bucket_does_not_keep_the_trails_from_being_seen(
    connected: Customer, integration: Integration
) -> None:
    probes = probes_of(replace(integration, bucket="example-other-logs", region="eu-west-1"))
    assert failed(probes) == ["bucket", "trail"]
    assert [probes[name].passed for name in ("list", "layout", "read", "decode", "kms")] == [None] * 5
    assert BUCKET in probes["trail"].detail


def test_a_wrong_prefix_is_told_by_the_layout_and_the_trail(connected: Customer, integration: Integration) -> None:
    probes = probes_of(replace(integration, prefix="org"))
    assert failed(probes) == ["layout", "trail"]
    assert probes["list"].passed
    assert "log files lie under AWSLogs/" in probes["layout"].detail
    assert probes["layout"].remedy == '`kyra integration change production --prefix ""`.'
    assert probes["trail"].remedy == '`kyra integration change production --prefix ""`.'


def test_a_missing_prefix_is_told_by_the_layout_and_the_trail(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    customer.put(f"org/trail/{key_of(1)}")
    customer.trail(prefix="org/trail")
    probes = probes_of(integration)
    assert failed(probes) == ["layout", "trail"]
    assert probes["layout"].remedy == '`kyra integration change production --prefix "org/trail"`.'
    assert probes["trail"].remedy == '`kyra integration change production --prefix "org/trail"`.'
    assert failed(probes_of(replace(integration, prefix="org/trail"))) == []


def test_an_empty_bucket_says_so_with_its_causes_likeliest_first(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    customer.trail()
    probes = probes_of(integration)
    assert failed(probes) == ["layout"]
    assert "the bucket is empty" in probes["layout"].detail
    assert re.match(r"Likeliest first: .*15 minutes.*--prefix.*logging.*delivery", probes["layout"].remedy)


@pytest.mark.parametrize(
    ("key", "change", "detail", "remedy"),
    [
        ("logs/2026/03/04/x.json.gz", {}, "nothing under AWSLogs/ in example-cloudtrail-logs; instead there is logs/",
         "S3KeyPrefix"),
        ("AWSLogs/2026/03/04/x.json.gz", {}, "no account's folder under AWSLogs/ in example-cloudtrail-logs;"
         " instead there is 2026", "AWSLogs/<account>/CloudTrail/"),
        (f"AWSLogs/{CUSTOMER}/Config/eu-west-1/2026/3/4/x.json.gz", {}, "hold Config, not CloudTrail", "S3BucketName"),
        (key_of(1), {"organization_id": "o-a1b2c3d4e5"}, f"instead there is {CUSTOMER}", '--organization ""'),
        (f"AWSLogs/o-otherother/{CUSTOMER}/CloudTrail/eu-west-1/2026/03/04/x.json.gz",
         {"organization_id": "o-a1b2c3d4e5"}, "instead there is organization o-otherother", "--organization"),
        (key_of(1), {"account_id": "444455556666"}, f"no log files of account 444455556666 under AWSLogs/ in"
         f" example-cloudtrail-logs; instead there is {CUSTOMER}", f"--account-id {CUSTOMER}"),
    ],
)  # fmt: skip
def test_a_wrong_layout_is_told_with_what_is_there_instead(
    guarded: None,
    customer: Customer,
    integration: Integration,
    key: str,
    change: dict[str, Any],
    detail: str,
    remedy: str,
) -> None:
    customer.put(key)
    customer.trail()
    probes = probes_of(replace(integration, **change))
    assert failed(probes) == ["layout"]
    assert detail in probes["layout"].detail
    assert remedy in probes["layout"].remedy


def test_a_bucket_without_log_files_yet_says_so(guarded: None, customer: Customer, integration: Integration) -> None:
    customer.trail()
    customer.put(f"AWSLogs/{CUSTOMER}/CloudTrail/", body=b"")
    probes = probes_of(integration)
    assert failed(probes) == ["layout"]
    assert "no log file yet" in probes["layout"].detail
    assert "15 minutes" in probes["layout"].remedy


@pytest.mark.parametrize("body", [b"not a log file", b"", log_file()[:-9]])
def test_a_newest_file_that_is_no_log_file_fails_decode_alone(
    connected: Customer, integration: Integration, body: bytes
) -> None:
    connected.put(key_of(2000), body=body or b"{}")
    probes = probes_of(integration)
    assert failed(probes) == ["decode"]


def test_the_newest_file_is_found_by_delivery_over_accounts_regions_and_both_layouts(
    connected: Customer, integration: Integration
) -> None:
    newest = "AWSLogs/o-abcdefghij/444455556666/CloudTrail/us-east-1/2026/03/05/x.json.gz"
    connected.put(f"AWSLogs/{CUSTOMER}/CloudTrail-Digest/eu-west-1/2027/01/01/d.json.gz")
    connected.put(newest)
    probes = probes_of(integration, now=utc_now() + timedelta(minutes=4))
    assert f"organization o-abcdefghij, 2 accounts, 2 regions; newest log file {newest}" in probes["layout"].detail


def test_old_log_files_are_a_warning(
    connected: Customer, integration: Integration, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The look-alike dates every object now; so S3's clock goes on instead, and this machine's with it.
    later = utc_now() + timedelta(days=3, minutes=5)
    monkeypatch.setattr(anonymous, "clock", lambda headers: later)
    probes = probes_of(integration, now=later)
    assert warned(probes) == ["layout"]
    assert "3 days old" in probes["layout"].detail
    assert re.match(r"A trail delivers.* Likeliest first: ", probes["layout"].remedy)


@pytest.mark.parametrize(("minutes", "how"), [(-9.5, "9 min behind"), (9.5, "9 min ahead of"), (230, "3 h ahead of")])
def test_a_clock_that_is_off_fails_its_probe(
    connected: Customer, integration: Integration, minutes: float, how: str
) -> None:
    probes = probes_of(integration, now=utc_now() + timedelta(minutes=minutes))
    assert failed(probes) == ["clock"]
    assert f"clock is {how} S3's" in probes["clock"].detail
    assert "NTP" in probes["clock"].remedy


def test_a_trail_that_stopped_is_told_with_the_command_that_starts_it(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    customer.put(key_of(1))
    arn = customer.trail(logging=False)
    probes = probes_of(integration)
    assert failed(probes) == ["logging"]
    assert f"start-logging --region eu-west-1 --name {arn}" in probes["logging"].remedy


def test_a_trail_of_one_region_is_found_by_the_log_files_and_is_a_warning(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    customer.put(key_of(1))
    customer.trail(multi_region=False)
    probes = probes_of(replace(integration, region="us-east-1"))
    assert warned(probes) == ["bucket", "regions"]
    assert "--is-multi-region-trail" in probes["regions"].remedy
    assert probes["bucket"].remedy == "`kyra integration change production --region eu-west-1`."


def test_a_trail_without_digest_files_is_a_warning(guarded: None, customer: Customer, integration: Integration) -> None:
    customer.put(key_of(1))
    customer.trail(validation=False)
    probes = probes_of(integration)
    assert (warned(probes), failed(probes)) == (["validation"], [])
    assert "--enable-log-file-validation" in probes["validation"].remedy


def test_a_trail_of_another_account_is_not_missed(guarded: None, customer: Customer, integration: Integration) -> None:
    customer.put(key_of(1))
    probes = probes_of(integration)
    assert failed(probes) == []
    assert (probes["trail"].passed, probes["logging"].passed) == (None, None)
    assert "cannot be seen from this account" in probes["trail"].detail


def test_trails_are_handed_over_as_rows_of_their_relation(connected: Customer, integration: Integration) -> None:
    kept: list[Mapping[str, Any]] = []
    probes_of(integration, save_trails=kept.extend)
    (row,) = kept
    assert row["name"] == "everything"
    assert (row["bucket"], row["prefix"], row["home_region"]) == (BUCKET, "", "eu-west-1")
    assert (row["multi_region"], row["organization"], row["logging"]) == (True, False, True)
    assert isinstance(row["latest_delivery_at"], datetime)
    assert row["latest_delivery_at"].tzinfo is None


def test_a_trail_of_many_regions_is_one_trail(connected: Customer, integration: Integration) -> None:
    assert len(describe_trails(Session(integration), ["eu-west-1", "us-east-1", "sa-east-1"])) == 1


def test_a_folder_is_checked_without_asking_aws(tmp_path: Path, wire: Wire) -> None:
    file = tmp_path / key_of(1)
    file.parent.mkdir(parents=True)
    file.write_bytes(log_file(3))
    folder = Integration("demo", tmp_path.as_uri())
    found = check(folder, bucket=FolderBucket(tmp_path), now=datetime(2026, 3, 4, 12))
    assert [probe.name for probe in found if probe.passed] == ["bucket", "list", "layout", "read", "decode"]
    assert [probe.name for probe in found if probe.passed is None] == [
        name for name in NAMES if name not in ("bucket", "list", "layout", "read", "decode")
    ]
    assert wire.actions == []


def test_a_folder_that_is_not_there_fails_the_bucket(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = check(Integration("demo", nowhere.as_uri()), bucket=FolderBucket(nowhere), now=datetime(2026, 3, 4))
    assert [probe.name for probe in found if probe.passed is False] == ["bucket"]
