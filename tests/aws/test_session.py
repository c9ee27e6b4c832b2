from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import loaders

from kyra_etl.aws.bucket import open_bucket
from kyra_etl.aws.session import Session
from kyra_etl.errors import AccessError, CollectError
from kyra_etl.model import Integration
from tests.aws.conftest import BUCKET, CUSTOMER, ROLE, Customer, key_of
from tests.planted import EXTERNAL_ID, QUEUE_URL


def test_without_a_role_the_machine_s_own_credentials_are_used(s3_server: str) -> None:
    session = Session(Integration("x", "x-logs"))
    assert session.identity() == session.role_identity()
    assert session.identity().account == "123456789012"


def test_with_a_role_the_customer_s_account_is_read(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    session = Session(integration)
    assert session.identity().account == "123456789012"
    assert session.role_identity().account == CUSTOMER
    assert session.role_identity().arn.endswith("assumed-role/kyra-etl/kyra-etl-production")


def test_the_wrong_external_id_is_refused_with_a_checklist(
    guarded: None, customer: Customer, integration: Integration
) -> None:
    bucket = open_bucket(replace(integration, external_id="kyra-another-id"))
    with pytest.raises(AccessError) as error:
        list(bucket.folders(""))
    assert ROLE in error.value.message
    assert "sts:ExternalId" in error.value.remedy
    assert "kyra-another-id" not in str(error.value)
    assert error.value.__suppress_context__


def test_whether_the_external_id_is_demanded_is_found_by_leaving_it_out_and_by_a_wrong_one(
    customer: Customer, integration: Integration, request: pytest.FixtureRequest
) -> None:
    session = Session(integration)
    assert session.lets_in_without_external_id()
    assert session.lets_in_with_wrong_external_id()
    request.getfixturevalue("guarded")
    assert not session.lets_in_without_external_id()
    assert not session.lets_in_with_wrong_external_id()


def test_the_role_is_assumed_anew_before_its_credentials_expire(
    customer: Customer, integration: Integration, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.put(key_of(1))
    bucket = open_bucket(integration)
    bucket.read(key_of(1))
    bucket.read(key_of(1))
    assert wire.actions.count("sts:AssumeRole") == 1
    later = datetime.now(UTC) + timedelta(minutes=58)
    credentials = bucket.session._theirs._session.get_credentials()
    monkeypatch.setattr(credentials, "_time_fetcher", lambda: later)
    time.sleep(0.2)  # obstore asks for credentials ten times a second at most
    bucket.read(key_of(1))
    assert wire.actions.count("sts:AssumeRole") == 2


def test_a_value_aws_cannot_take_is_told_without_the_secret(s3_server: str, integration: Integration) -> None:
    session = Session(replace(integration, role_arn="arn:short", external_id="!" * 2000))
    with pytest.raises(CollectError) as error:
        session.role_identity()
    assert "!!" not in str(error.value)


def test_no_credentials_at_all_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessError, match="no usable AWS credentials"):
        Session(Integration("x", "x-logs"), endpoint_url="http://127.0.0.1:1").identity()


def test_a_profile_that_is_not_there_is_said_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    session = Session(Integration("x", "x-logs"))
    with pytest.raises(AccessError, match="ProfileNotFound"):
        session.identity()


@pytest.mark.parametrize(
    ("role_arn", "region", "expected"),
    [
        (None, None, "us-east-1"),
        (None, "eu-west-1", "eu-west-1"),
        (ROLE, None, "us-east-1"),
        ("arn:aws-us-gov:iam::111122223333:role/kyra", None, "us-gov-west-1"),
        ("arn:aws-cn:iam::111122223333:role/kyra", None, "cn-north-1"),
    ],
)
def test_the_first_region_to_ask_is_of_the_role_s_partition(
    role_arn: str | None, region: str | None, expected: str
) -> None:
    assert Session(Integration("x", "x-logs", role_arn=role_arn, region=region)).region == expected


def test_neither_session_nor_bucket_shows_secrets(integration: Integration) -> None:
    with_queue = replace(integration, queue_url=QUEUE_URL)
    bucket = open_bucket(with_queue)
    shown = f"{bucket!r} {bucket.session!r} {with_queue!r}"
    assert BUCKET in shown
    assert EXTERNAL_ID not in shown
    assert QUEUE_URL not in shown


def test_what_botocore_knows_of_aws_is_read_once_for_all_integrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.session.create_loader", loaders.create_loader)  # conftest has one for all tests
    Session(Integration("one", "logs")).client("s3")
    read: list[str] = []
    monkeypatch.setattr(loaders.JSONFileLoader, "load_file", lambda _, path: read.append(path))

    Session(Integration("other", "logs")).client("s3")

    assert read == []
