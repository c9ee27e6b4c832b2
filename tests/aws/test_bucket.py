from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kyra_etl.aws import quick
from kyra_etl.aws.bucket import open_bucket
from kyra_etl.errors import AccessError, CollectError, ObjectError, ObjectGone, TransientError
from kyra_etl.model import Integration
from kyra_etl.ports import LogBucket
from tests.aws.conftest import BUCKET, CUSTOMER, FOLDER, Answer, Customer, key_of, log_file, utc_now
from tests.planted import EXTERNAL_ID

Scripted = Callable[[Callable[[str, str], Answer]], str]

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message><RequestId>R1</RequestId></Error>"


def test_an_s3_bucket_is_a_log_bucket(customer: Customer, integration: Integration) -> None:
    bucket: LogBucket = open_bucket(integration)
    assert bucket.name == BUCKET


def test_opening_talks_to_nobody() -> None:
    bucket = open_bucket(Integration("x", "x-logs"), endpoint_url="http://127.0.0.1:1")
    assert bucket.name == "x-logs"


def test_files_come_in_key_order_with_etag_size_and_naive_utc_time(
    customer: Customer, integration: Integration
) -> None:
    customer.put(key_of(1005), key_of(1000), body=b"12345")
    first, second = open_bucket(integration).files(f"{FOLDER}/2026/03/04/")
    assert [first.key, second.key] == [key_of(1000), key_of(1005)]
    assert (first.etag, first.size) == ("827ccb0eea8a706c4c34a16891f84e7b", 5)
    assert first.last_modified is not None
    assert first.last_modified.tzinfo is None
    assert abs(first.last_modified - utc_now()) < timedelta(minutes=1)


def test_every_page_of_a_listing_is_read(
    customer: Customer, integration: Integration, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import moto.settings

    monkeypatch.setattr(moto.settings, "get_s3_default_max_keys", lambda: 3)
    customer.put(*(key_of(number) for number in range(10)))
    customer.put(*(f"AWSLogs/{account:012d}/CloudTrail/x" for account in range(10)), body=b"")
    wire.calls.clear()
    bucket = open_bucket(integration)
    assert [file.key for file in bucket.files(f"{FOLDER}/")] == [key_of(number) for number in range(10)]
    accounts = [f"{account:012d}" for account in range(10)]
    assert list(bucket.folders("AWSLogs/")) == [f"AWSLogs/{account}/" for account in [*accounts, CUSTOMER]]
    assert wire.actions.count("s3:ListBucket") == 1 + 4 + 4  # HeadBucket, then pages of three


def test_keys_with_odd_characters_survive_listing_and_reading(customer: Customer, integration: Integration) -> None:
    odd = "AWSLogs/a b+c%2Fd&é=ü/ü #?.json.gz"
    customer.put(odd)
    bucket = open_bucket(integration)
    assert [file.key for file in bucket.files("AWSLogs/")] == [odd]
    assert bucket.read(odd) == log_file()


def test_objects_are_read_as_stored_whatever_their_content_encoding(
    customer: Customer, integration: Integration
) -> None:
    body = log_file(3)
    customer.client("s3").put_object(Bucket=BUCKET, Key=key_of(1), Body=body, ContentEncoding="gzip")
    assert open_bucket(integration).read(key_of(1)) == body


def test_a_missing_object_is_gone_and_an_archived_one_waits(customer: Customer, integration: Integration) -> None:
    bucket = open_bucket(integration)
    with pytest.raises(ObjectGone, match=f"s3://{BUCKET}/AWSLogs/nowhere no longer exists"):
        bucket.read("AWSLogs/nowhere")
    customer.client("s3").put_object(Bucket=BUCKET, Key=key_of(1), Body=b"x", StorageClass="GLACIER")
    with pytest.raises(ObjectError, match="is archived") as archived:
        bucket.read(key_of(1))
    assert (archived.value.reason, archived.value.permanent) == ("archived", True)
    assert "kyra quarantine retry" in archived.value.remedy


def test_a_missing_bucket_fails_listing_reading_and_the_clock(customer: Customer) -> None:
    bucket = open_bucket(Integration("x", "nobody-has-this-bucket"))
    for use in (lambda: list(bucket.files("")), lambda: bucket.read("x"), bucket.now):
        with pytest.raises(CollectError, match="there is no such bucket"):
            use()


def test_many_threads_read_at_once_and_assume_the_role_once(
    customer: Customer, integration: Integration, wire: Any
) -> None:
    customer.put(*(key_of(number) for number in range(40)))
    bucket = open_bucket(integration, connections=8)
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(bucket.read, (key_of(number) for number in range(40))))
    assert bodies == [log_file()] * 40
    assert wire.actions.count("sts:AssumeRole") == 1
    assert wire.actions.count("s3:GetObject") == 40


def test_the_clock_is_the_servers(scripted: Scripted) -> None:
    url = scripted(lambda method, path: Answer(headers={"Date": "Wed, 04 Mar 2026 10:00:00 GMT"}))
    assert open_bucket(Integration("x", "logs"), endpoint_url=url).now() == datetime(2026, 3, 4, 10)


def test_a_refused_head_still_tells_the_region(scripted: Scripted) -> None:
    url = scripted(lambda method, path: Answer(403, {"x-amz-bucket-region": "ap-southeast-2"}))
    bucket = open_bucket(Integration("x", "logs", region="eu-west-1"), endpoint_url=url)
    assert bucket.region == "ap-southeast-2"
    assert abs(bucket.now() - utc_now()) < timedelta(minutes=1)


def test_the_region_is_found_even_when_the_integration_names_a_wrong_one(
    customer: Customer, integration: Integration
) -> None:
    wrong = Integration("x", BUCKET, role_arn=integration.role_arn, external_id=EXTERNAL_ID, region="sa-east-1")
    assert open_bucket(wrong).region == "eu-west-1"


def test_a_body_that_breaks_off_is_read_again(scripted: Scripted) -> None:
    cuts: list[int | None] = [10, 20, None]

    def answer(method: str, path: str) -> Answer:
        return Answer(body=b"x" * 100, cut=cuts.pop(0) if method == "GET" else None)

    assert open_bucket(Integration("x", "logs"), endpoint_url=scripted(answer)).read("a") == b"x" * 100


def test_a_body_that_always_breaks_off_concerns_that_object_only(scripted: Scripted) -> None:
    url = scripted(lambda method, path: Answer(body=b"x" * 100, cut=10 if method == "GET" else None))
    with pytest.raises(ObjectError) as error:
        open_bucket(Integration("x", "logs"), endpoint_url=url).read("a")
    assert (error.value.reason, error.value.permanent) == ("interrupted", False)


@pytest.mark.parametrize(
    ("code", "status", "text", "reason"),
    [
        ("AccessDenied", 403, "Access Denied", "access_denied"),
        ("AccessDenied", 403, "User: u is not authorized to perform: kms:Decrypt on resource: k", "kms_denied"),
        ("KMS.DisabledException", 400, "arn:aws:kms:k is disabled.", "kms_unusable"),
        ("NeverHeardOf", 418, "Teapot", "unexpected"),
    ],
)
def test_what_concerns_one_object_is_an_object_error(
    scripted: Scripted, code: str, status: int, text: str, reason: str
) -> None:
    def answer(method: str, path: str) -> Answer:
        return Answer() if method == "HEAD" else Answer(status, body=ERROR.format(code, text).encode())

    with pytest.raises(ObjectError) as error:
        open_bucket(Integration("x", "logs"), endpoint_url=scripted(answer)).read("a/b.json.gz")
    assert (error.value.reason, error.value.permanent) == (reason, False)
    assert "s3://logs/a/b.json.gz" in error.value.message


def test_expired_credentials_concern_every_object(scripted: Scripted) -> None:
    def answer(method: str, path: str) -> Answer:
        return Answer() if method == "HEAD" else Answer(400, body=ERROR.format("ExpiredToken", "expired").encode())

    with pytest.raises(AccessError, match="have expired"):
        open_bucket(Integration("x", "logs"), endpoint_url=scripted(answer)).read("a")


def test_no_network_is_passing_trouble_for_listing_and_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    bucket = open_bucket(Integration("x", "logs"), endpoint_url="http://127.0.0.1:1")
    for use in (lambda: list(bucket.files("")), lambda: bucket.read("x"), bucket.now):
        with pytest.raises(TransientError, match="cannot be reached"):
            use()


def test_quick_and_patient_client_see_the_same(customer: Customer, integration: Integration) -> None:
    customer.put(*(key_of(number) for number in range(12)), f"{FOLDER}/2026/03/04/", "AWSLogs/x/y.json")
    quick, patient = open_bucket(integration), open_bucket(integration)
    patient._failures = 1_000
    for prefix in ("", "AWSLogs/", f"{FOLDER}/", f"{FOLDER}/2026/03/04/", "AWSLogs/none/", "AWSLogs"):
        # A marker inside the prefix comes without its slash; being empty, it is a marker all the same.
        unslashed = [replace(file, key=file.key.rstrip("/")) for file in patient.files(prefix)]
        assert [replace(file, key=file.key.rstrip("/")) for file in quick.files(prefix)] == unslashed
        assert list(quick.folders(prefix)) == list(patient.folders(prefix))
    after = key_of(5)
    assert [file.key for file in quick.files(f"{FOLDER}/", after)] == [key_of(number) for number in range(6, 12)]
    assert list(quick.files(f"{FOLDER}/", after)) == list(patient.files(f"{FOLDER}/", after))


@pytest.mark.parametrize("odd", ["AWSLogs/a//b.json", "AWSLogs/a/../b.json", "AWSLogs/a/\x01b.json", "AWSLogs/a/b/"])
def test_keys_that_are_no_paths_are_listed_and_read_all_the_same(
    customer: Customer, integration: Integration, odd: str
) -> None:
    customer.put(odd, "AWSLogs/a/z.json")
    bucket = open_bucket(integration)
    assert {file.key for file in bucket.files("AWSLogs/")} >= {odd.rstrip("/"), "AWSLogs/a/z.json"}
    assert bucket.read(odd) == log_file()


def test_a_client_that_never_works_is_given_up_and_nothing_is_lost(
    customer: Customer, integration: Integration, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def broken(*_: object) -> bytes:
        tries.append(1)
        raise OSError("a proxy that only boto3 can pass")

    monkeypatch.setattr("kyra_etl.aws.quick.read", broken)
    customer.put(key_of(1))
    bucket = open_bucket(integration)
    assert [bucket.read(key_of(1)) for _ in range(25)] == [log_file()] * 25
    assert len(tries) == 20


def test_the_environment_s_own_settings_do_not_lead_the_quick_client_astray(
    customer: Customer, integration: Integration, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.put(key_of(1))
    bucket = open_bucket(integration)
    bucket.session.client("s3", bucket.region)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_REGION": "ap-east-1",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/nobody",
    }.items():
        monkeypatch.setenv(name, value)
    wire.calls.clear()
    assert bucket.read(key_of(1)) == log_file()
    assert wire.actions == ["s3:GetObject"]
    assert bucket._failures == 0


@pytest.mark.parametrize(
    ("endpoint", "bucket", "address"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "logs", ("https://logs.s3.eu-west-1.amazonaws.com", True)),
        ("https://s3.cn-north-1.amazonaws.com.cn", "logs", ("https://logs.s3.cn-north-1.amazonaws.com.cn", True)),
        ("https://s3.eu-west-1.amazonaws.com", "my.logs", ("https://s3.eu-west-1.amazonaws.com", False)),
        ("http://127.0.0.1:9000", "logs", ("http://127.0.0.1:9000", False)),
        ("https://s3.amazonaws.com.example.net", "logs", ("https://s3.amazonaws.com.example.net", False)),
    ],
)
def test_requests_go_where_boto3_would_send_them(endpoint: str, bucket: str, address: tuple[str, bool]) -> None:
    assert quick._address(endpoint, bucket) == address
