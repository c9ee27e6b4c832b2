"""Every row of the table of errors, through botocore's own parsing."""

from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.aws.failures import TABLE, UNKNOWN, Row, match
from kyra_etl.aws.mapping import reported, translate, translated
from kyra_etl.errors import AccessError, CollectError, KyraError, ObjectError, ObjectGone, TransientError

ROLE = "arn:aws:iam::111122223333:role/kyra-etl"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:cloudtrail"
ME = "arn:aws:sts::999988887777:assumed-role/runner/1"
NOT_AUTHORIZED = f"User: {ME} is not authorized to perform: {{}} on resource: {{}}"
CALLS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "GetCallerIdentity": ("sts", "get_caller_identity", {}, "our AWS credentials"),
    "AssumeRole": ("sts", "assume_role", {"RoleArn": ROLE, "RoleSessionName": "kyra"}, f"role {ROLE}"),
    "HeadBucket": ("s3", "head_bucket", {"Bucket": "logs"}, "bucket logs"),
    "ListObjectsV2": ("s3", "list_objects_v2", {"Bucket": "logs"}, "s3://logs/AWSLogs/"),
    "GetObject": ("s3", "get_object", {"Bucket": "logs", "Key": "a/b.json.gz"}, "s3://logs/a/b.json.gz"),
    "DescribeTrails": ("cloudtrail", "describe_trails", {}, "trails in eu-west-1"),
    "GetTrailStatus": ("cloudtrail", "get_trail_status", {"Name": "everything"}, "trail everything"),
    "LookupEvents": ("cloudtrail", "lookup_events", {}, "events of eu-west-1"),
    "GetEventSelectors": ("cloudtrail", "get_event_selectors", {"TrailName": "everything"}, "trail everything"),
    "GetQueueAttributes": ("sqs", "get_queue_attributes", {"QueueUrl": "https://q"}, "the queue of notices"),
    "ReceiveMessage": ("sqs", "receive_message", {"QueueUrl": "https://q"}, "the queue of notices"),
    "Subscribe": ("sns", "subscribe", {"TopicArn": TOPIC, "Protocol": "sqs"}, f"topic {TOPIC}"),
}

ASSUME = NOT_AUTHORIZED.format("sts:AssumeRole", ROLE)
LIST = NOT_AUTHORIZED.format("s3:ListBucket", "arn:aws:s3:::logs")
GET = NOT_AUTHORIZED.format("s3:GetObject", "arn:aws:s3:::logs/a/b.json.gz")
OLD_KMS = (
    "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are"
    " not allowed to access."
)

# row, operation, code, status, AWS's text, class, a word of the message, a word of the remedy
ROWS: list[tuple[str, str, str, int, str, type[KyraError], str, str]] = [
    ("clock", "GetCallerIdentity", "SignatureDoesNotMatch", 403, "Signature expired: 2026… is now earlier than …",
     AccessError, "time", "clock"),
    ("clock", "ListObjectsV2", "RequestTimeTooSkewed", 403, "The difference between the request time and the current"
     " time is too large.", AccessError, "time", "clock"),
    ("bad_credentials", "GetCallerIdentity", "InvalidClientTokenId", 403, "The security token included in the request"
     " is invalid.", AccessError, "does not accept", "get-caller-identity"),
    ("bad_credentials", "GetCallerIdentity", "SignatureDoesNotMatch", 403, "The request signature we calculated does"
     " not match the signature you provided.", AccessError, "does not accept", "get-caller-identity"),
    ("expired_credentials", "GetCallerIdentity", "ExpiredToken", 403, "The security token included in the request is"
     " expired", AccessError, "expired", "Renew"),
    ("expired_credentials", "GetObject", "ExpiredToken", 400, "The provided token has expired.",
     AccessError, "expired", "Renew"),
    ("expired_credentials", "DescribeTrails", "ExpiredTokenException", 400, "expired", AccessError, "expired", "Renew"),
    ("expired_credentials", "ListObjectsV2", "InvalidToken", 400, "malformed", AccessError, "expired", "Renew"),
    ("assume_role_ours", "AssumeRole", "AccessDenied", 403,
     f"{ASSUME} because no identity-based policy allows the sts:AssumeRole action", AccessError, "our side", ME),
    ("assume_role_ours", "AssumeRole", "AccessDenied", 403,
     f"{ASSUME} with an explicit deny in a service control policy", AccessError, "our side", "service control"),
    ("assume_role", "AssumeRole", "AccessDenied", 403, ASSUME, AccessError, ROLE, "sts:ExternalId"),
    ("assume_role", "AssumeRole", "AccessDenied", 403,
     f"{ASSUME} because no resource-based policy allows the sts:AssumeRole action", AccessError, ME, "Principal"),
    ("role_duration", "AssumeRole", "ValidationError", 400, "The requested DurationSeconds exceeds the"
     " MaxSessionDuration set for this role.", AccessError, "hour", "3600"),
    ("region_disabled", "AssumeRole", "RegionDisabledException", 403, "STS is not activated in this region",
     AccessError, "not enabled", "Enable"),
    ("bad_parameter", "AssumeRole", "ValidationError", 400, "1 validation error detected", CollectError,
     "cannot take", "integration change"),
    ("throttled", "ListObjectsV2", "SlowDown", 503, "Please reduce your request rate.", TransientError,
     "slow down", "next run"),
    ("throttled", "GetObject", "SlowDown", 503, "Please reduce your request rate.", ObjectError,
     "slow down", "next run"),
    ("throttled", "DescribeTrails", "ThrottlingException", 400, "Rate exceeded", TransientError,
     "slow down", "next run"),
    ("throttled", "AssumeRole", "RequestLimitExceeded", 503, "Request limit exceeded.", TransientError,
     "slow down", "next run"),
    ("server_error", "ListObjectsV2", "InternalError", 500, "We encountered an internal error.", TransientError,
     "on its side", "next run"),
    ("server_error", "GetObject", "ServiceUnavailable", 503, "", ObjectError, "on its side", "next run"),
    ("server_error", "GetTrailStatus", "SomethingNew", 502, "Bad gateway", TransientError, "on its side", "next run"),
    ("no_bucket", "HeadBucket", "404", 404, "Not Found", CollectError, "no such bucket", "S3BucketName"),
    ("no_bucket", "ListObjectsV2", "NoSuchBucket", 404, "The specified bucket does not exist", CollectError,
     "no such bucket", "S3BucketName"),
    ("no_bucket", "GetObject", "NoSuchBucket", 404, "The specified bucket does not exist", CollectError,
     "no such bucket", "S3BucketName"),
    ("bad_request", "HeadBucket", "400", 400, "Bad Request", CollectError, "without saying why", "--region"),
    ("wrong_region", "ListObjectsV2", "PermanentRedirect", 301, "The bucket you are attempting to access must be"
     " addressed using the specified endpoint.", CollectError, "another region", "--region"),
    ("wrong_region", "GetObject", "AuthorizationHeaderMalformed", 400, "the region 'us-east-1' is wrong",
     CollectError, "another region", "--region"),
    ("wrong_region", "ListObjectsV2", "IllegalLocationConstraintException", 400, "incompatible", CollectError,
     "another region", "--region"),
    ("wrong_region", "HeadBucket", "301", 301, "Moved Permanently", CollectError, "another region", "--region"),
    ("account_problem", "ListObjectsV2", "AllAccessDisabled", 403, "All access to this resource has been disabled",
     AccessError, "disabled", "AWS support"),
    ("vanished", "GetObject", "NoSuchKey", 404, "The specified key does not exist.", ObjectGone,
     "no longer exists", "lifecycle"),
    ("archived", "GetObject", "InvalidObjectState", 403, "The operation is not valid for the object's storage class",
     ObjectError, "archived", "Restore"),
    ("kms_unusable", "GetObject", "KMS.DisabledException", 400, "arn:aws:kms:…:key/1 is disabled.", ObjectError,
     "KMS key", "Enable"),
    ("kms_denied", "GetObject", "AccessDenied", 403, NOT_AUTHORIZED.format("kms:Decrypt", "arn:aws:kms:…:key/1"),
     ObjectError, "KMS key", "kms:Decrypt"),
    ("kms_denied", "GetObject", "AccessDenied", 403, OLD_KMS, ObjectError, "KMS key", "kms:Decrypt"),
    ("access_denied", "GetObject", "AccessDenied", 403, "Access Denied", ObjectError, "may not be read",
     "s3:GetObject on arn:aws:s3:::logs/*"),
    ("access_denied", "GetObject", "AccessDenied", 403, f"{GET} because no identity-based policy allows it",
     ObjectError, "may not be read", "s3:GetObject"),
    ("access_denied", "GetObject", "AccessDenied", 403, f"{GET} with an explicit deny in a resource-based policy",
     ObjectError, "denies s3:GetObject", "bucket policy"),
    ("access_denied", "ListObjectsV2", "AccessDenied", 403, f"{LIST} with an explicit deny in a service control"
     " policy", AccessError, "denies s3:ListBucket", "service"),
    ("list_denied", "ListObjectsV2", "AccessDenied", 403, LIST, AccessError, "may not be listed",
     "s3:ListBucket on arn:aws:s3:::logs itself"),
    ("list_denied", "HeadBucket", "403", 403, "Forbidden", AccessError, "may not be listed", "s3:prefix"),
    ("no_queue", "ReceiveMessage", "AWS.SimpleQueueService.NonExistentQueue", 400, "The queue does not exist.",
     CollectError, "queue of notices does not exist", "get-queue-url"),
    ("call_denied", "ReceiveMessage", "AccessDenied", 403, "Access to the resource is denied.", AccessError,
     "sqs:ReceiveMessage is denied", "Allow sqs:ReceiveMessage"),
    ("no_topic", "Subscribe", "NotFound", 404, "Topic does not exist", CollectError, "does not exist", "SnsTopicARN"),
    ("subscribe_denied", "Subscribe", "AuthorizationError", 403, NOT_AUTHORIZED.format("SNS:Subscribe", TOPIC),
     AccessError, "does not let the queue's owner subscribe", "sns:Subscribe"),
    ("no_trail", "GetTrailStatus", "TrailNotFoundException", 400, "Unknown trail: everything", CollectError,
     "no such trail", "ARN"),
    ("not_permitted", "DescribeTrails", "UnsupportedOperationException", 400, "not supported", CollectError,
     "does not support", "another region"),
    ("call_denied", "DescribeTrails", "AccessDeniedException", 400,
     NOT_AUTHORIZED.format("cloudtrail:DescribeTrails", "*"), AccessError, "cloudtrail:DescribeTrails",
     "Allow cloudtrail:DescribeTrails"),
    ("call_denied", "GetTrailStatus", "AccessDeniedException", 400,
     NOT_AUTHORIZED.format("cloudtrail:GetTrailStatus", "*"), AccessError, "cloudtrail:GetTrailStatus",
     "kyra integration policy"),
    ("call_denied", "LookupEvents", "AccessDeniedException", 400,
     NOT_AUTHORIZED.format("cloudtrail:LookupEvents", "*"), AccessError, "cloudtrail:LookupEvents",
     "Allow cloudtrail:LookupEvents"),
    ("call_denied", "GetEventSelectors", "AccessDeniedException", 400,
     NOT_AUTHORIZED.format("cloudtrail:GetEventSelectors", "*"), AccessError, "cloudtrail:GetEventSelectors",
     "Allow cloudtrail:GetEventSelectors"),
    ("no_trail", "GetEventSelectors", "CloudTrailARNInvalidException", 400, "bad ARN", CollectError, "no such trail",
     "ARN"),
    ("throttled", "LookupEvents", "ThrottlingException", 400, "Rate exceeded", TransientError, "slow down", "next run"),
    ("no_queue", "GetQueueAttributes", "AWS.SimpleQueueService.NonExistentQueue", 400, "gone", CollectError,
     "queue of notices does not exist", "get-queue-url"),
    ("call_denied", "GetQueueAttributes", "AccessDenied", 403, "Access to the resource is denied.", AccessError,
     "sqs:GetQueueAttributes is denied", "Allow sqs:GetQueueAttributes"),
    ("unexpected", "ListObjectsV2", "NeverHeardOf", 418, "I am a teapot", CollectError, "I am a teapot",
     "ListObjectsV2"),
    ("unexpected", "GetObject", "NeverHeardOf", 418, "I am a teapot", ObjectError, "I am a teapot", "GetObject"),
]  # fmt: skip

EXCEPTIONS: list[tuple[str, str, Exception, type[KyraError]]] = [
    ("no_credentials", "GetCallerIdentity", botocore.NoCredentialsError(), AccessError),
    ("no_credentials", "GetObject", botocore.PartialCredentialsError(provider="env", cred_var="x"), AccessError),
    ("no_credentials", "GetObject", botocore.TokenRetrievalError(provider="sso", error_msg="expired"), AccessError),
    ("no_credentials", "ListObjectsV2", botocore.ProfileNotFound(profile="x"), AccessError),
    ("bad_parameter", "AssumeRole", botocore.ParamValidationError(report="RoleArn is too short"), CollectError),
    ("timeout", "GetObject", botocore.ReadTimeoutError(endpoint_url="https://s3"), ObjectError),
    ("timeout", "ListObjectsV2", botocore.ReadTimeoutError(endpoint_url="https://s3"), TransientError),
    ("interrupted", "GetObject", botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), ObjectError),
    ("interrupted", "GetObject", botocore.ResponseStreamingError(error="reset"), ObjectError),
    ("unreachable", "GetObject", botocore.EndpointConnectionError(endpoint_url="https://s3"), TransientError),
    ("unreachable", "ListObjectsV2", botocore.ConnectTimeoutError(endpoint_url="https://s3"), TransientError),
    ("unreachable", "ListObjectsV2", botocore.SSLError(endpoint_url="https://s3", error="x"), TransientError),
    ("server_error", "GetObject", ResponseParserError("<html>"), ObjectError),
    ("server_error", "AssumeRole", ResponseParserError("<html>"), TransientError),
    ("unreachable", "GetObject", ConnectionResetError("reset by peer"), TransientError),
    ("unreachable", "GetObject", OSError("no route to host"), TransientError),
]

# row, what CloudTrail did, the error in the trail's status, a word of the message, words of the remedy in their order
REPORTED: list[tuple[str, str, str, str, str]] = [
    ("delivery_no_bucket", "Delivery", "NoSuchBucket", "bucket does not exist", "--s3-bucket-name"),
    ("delivery_kms", "Delivery", "KMS.DisabledException", "cannot use its KMS key", "enable the key.*GenerateDataKey"),
    ("delivery_denied", "Delivery", "AccessDenied", "cannot deliver", "s3:PutObject.*aws:SourceArn.*KMS key"),
    ("delivery_denied", "Delivery", "InsufficientS3BucketPolicyException", "cannot deliver", "s3:GetBucketAcl"),
    ("notification_no_topic", "Notification", "NotFound", "topic does not exist", "--sns-topic-name"),
    ("notification_denied", "Notification", "AuthorizationError", "cannot notify", "sns:Publish.*KMS key"),
]


@pytest.mark.parametrize(("row", "operation", "code", "said", "remedy"), REPORTED)
def test_an_error_of_a_trail_s_status_becomes_an_error_with_a_remedy(
    row: str, operation: str, code: str, said: str, remedy: str
) -> None:
    found = reported(code, operation, "trail everything")
    assert match(code, operation, code).name == row
    assert type(found) is CollectError
    assert said in found.message
    assert f"({code})" in found.message
    assert re.search(remedy, found.remedy)


@pytest.mark.parametrize("row", [row for row in TABLE if "ikeliest first" in row.remedy], ids=lambda row: row.name)
def test_where_one_answer_has_several_causes_they_are_listed(row: Row) -> None:
    assert row.remedy.startswith("Likeliest first: ")
    assert ";" in row.remedy


def test_the_answers_that_have_several_causes_list_them() -> None:
    """As AWS gives one answer for several causes: facts on AssumeRole, ListBucket and GetObject."""
    listing = {row.name for row in TABLE if "ikeliest first" in row.remedy}
    assert {"assume_role", "list_denied", "access_denied", "delivery_denied", "notification_denied"} <= listing


@pytest.mark.parametrize(("row", "operation", "code", "status", "text", "error", "said", "remedy"), ROWS)
def test_an_answer_of_aws_becomes_an_error_with_a_remedy(
    row: str, operation: str, code: str, status: int, text: str, error: type[KyraError], said: str, remedy: str
) -> None:
    service, method, parameters, subject = CALLS[operation]
    client = boto3.client(service, region_name="eu-west-1")
    with Stubber(client) as stub:
        stub.add_client_error(method, code, text, status)
        with pytest.raises(KyraError) as raised, translated(operation, subject):
            getattr(client, method)(**parameters)
    found = raised.value
    assert type(found) is error
    assert said in found.message
    assert remedy in found.remedy
    assert code in found.message
    assert "\n" not in str(found)
    assert "{" not in str(found)
    if isinstance(found, ObjectError):
        assert found.reason == row
        assert found.permanent == (row in ("archived", "vanished"))


@pytest.mark.parametrize(("row", "operation", "cause", "error"), EXCEPTIONS)
def test_an_exception_of_botocore_becomes_an_error_with_a_remedy(
    row: str, operation: str, cause: Exception, error: type[KyraError]
) -> None:
    with pytest.raises(KyraError) as raised, translated(operation, CALLS[operation][3]):
        raise cause
    found = raised.value
    assert type(found) is error
    assert found.remedy
    if isinstance(found, ObjectError):
        assert (found.reason, found.permanent) == (row, False)


def test_every_row_of_the_table_is_tried() -> None:
    tried = [match(code, operation, text) for _, operation, code, _, text, *_ in ROWS]
    tried += [match(type(cause).__name__, operation, str(cause)) for _, operation, cause, _ in EXCEPTIONS]
    tried += [match(code, operation, code) for _, operation, code, _, _ in REPORTED]
    assert [row.name for row in TABLE if row not in tried] == []


def test_the_bucket_s_region_is_named_where_aws_tells_it() -> None:
    client = boto3.client("s3", region_name="us-east-1")
    with Stubber(client) as stub:
        stub.add_client_error(
            "list_objects_v2", "PermanentRedirect", "…", 301, service_error_meta={"Region": "eu-central-1"}
        )
        with pytest.raises(CollectError, match="another region, eu-central-1"), translated("ListObjectsV2", "s3://l/"):
            client.list_objects_v2(Bucket="logs")


@given(
    st.from_regex(r"[A-Za-z0-9_+=,.@:/-]{16,40}", fullmatch=True), st.sampled_from(sorted(CALLS)), st.text(max_size=30)
)
def test_secrets_are_never_repeated(secret: str, operation: str, around: str) -> None:
    cause = botocore.ClientError(
        {"Error": {"Code": "ValidationError", "Message": f"{around} Value '{secret}' at 'externalId' failed {secret}"}},
        operation,
    )
    assert secret not in str(translate(cause, operation, "role", [secret]))


@given(st.text(max_size=20), st.sampled_from(sorted(CALLS)), st.text(max_size=1000), st.integers(200, 599))
def test_any_answer_at_all_becomes_one_line(code: str, operation: str, text: str, status: int) -> None:
    cause = botocore.ClientError(
        {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation
    )
    found = translate(cause, operation, "bucket logs")
    assert len(found.message.splitlines()) == 1


def test_what_is_unknown_is_told_with_code_operation_and_request() -> None:
    cause = botocore.ClientError(
        {"Error": {"Code": "New", "Message": "Why."}, "ResponseMetadata": {"RequestId": "R-1"}}, "ListObjectsV2"
    )
    message = translate(cause, "ListObjectsV2", "s3://logs/").message
    assert message == "s3://logs/: ListObjectsV2 failed: Why (New, request R-1)."
    assert match("New", "ListObjectsV2", "") is UNKNOWN
