"""The columns of the lake: their types, where they come from, what they mean.

Names are snake_case of AWS's own. Free-form parts stay byte-exact JSON text, because the same path is a string in one
service and an object in the next; an explicit JSON null is the text `null`, an absent part is NULL.
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Role = Literal["typed", "json", "identity", "derived", "provenance", "partition"]

TEXT = pa.string()
FLAG = pa.bool_()
TIME = pa.timestamp("us")
"""Naive UTC."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `field` is the record's top-level field a typed or json column is read from."""

    name: str
    type: pa.DataType
    role: Role
    about: str
    field: str = ""


EVENT_COLUMNS: tuple[Column, ...] = (
    Column("event_time", TIME, "typed", "When the request completed, UTC", "eventTime"),
    Column("event_id", TEXT, "typed", "CloudTrail's id; 'sha256:…' of the record where it has none", "eventID"),
    Column("event_name", TEXT, "typed", "The call, for example CreateUser", "eventName"),
    Column("event_source", TEXT, "typed", "The service called, for example iam.amazonaws.com", "eventSource"),
    Column("event_type", TEXT, "typed", "AwsApiCall, AwsConsoleSignIn, AwsServiceEvent …", "eventType"),
    Column("event_category", TEXT, "typed", "Management, Data, NetworkActivity …", "eventCategory"),
    Column(
        "event_version", TEXT, "typed", "Version of the record format; text, because 1.10 is not 1.1", "eventVersion"
    ),
    Column("api_version", TEXT, "typed", "API version of the call", "apiVersion"),
    Column("aws_region", TEXT, "typed", "Region the call was made to; us-east-1 for global services", "awsRegion"),
    Column(
        "source_ip_address", TEXT, "typed", "Caller's address, a service's name, or 'AWS Internal'", "sourceIPAddress"
    ),
    Column("user_agent", TEXT, "typed", "As sent by the caller: evidence, not proof", "userAgent"),
    Column("error_code", TEXT, "typed", "Why the call failed; null when it succeeded", "errorCode"),
    Column("error_message", TEXT, "typed", "The failure in words", "errorMessage"),
    Column("read_only", FLAG, "typed", "True for calls that change nothing", "readOnly"),
    Column("management_event", FLAG, "typed", "True for control-plane calls", "managementEvent"),
    Column("recipient_account_id", TEXT, "typed", "Account the record was delivered to", "recipientAccountId"),
    Column("request_id", TEXT, "typed", "The service's id of the request", "requestID"),
    Column("shared_event_id", TEXT, "typed", "Same for copies delivered to several accounts", "sharedEventID"),
    Column("vpc_endpoint_id", TEXT, "typed", "VPC endpoint the call came through", "vpcEndpointId"),
    Column("vpc_endpoint_account_id", TEXT, "typed", "Owner of that endpoint", "vpcEndpointAccountId"),
    Column(
        "session_credential_from_console",
        TEXT,
        "typed",
        "'true' when a console session made the call",
        "sessionCredentialFromConsole",
    ),
    Column("user_identity", TEXT, "json", "Who called, as delivered", "userIdentity"),
    Column("request_parameters", TEXT, "json", "What was asked, as delivered", "requestParameters"),
    Column("response_elements", TEXT, "json", "What was answered, as delivered", "responseElements"),
    Column("additional_event_data", TEXT, "json", "Further data of the service, as delivered", "additionalEventData"),
    Column("resources", TEXT, "json", "Resources touched, as delivered", "resources"),
    Column(
        "service_event_details", TEXT, "json", "Details of a service's own event, as delivered", "serviceEventDetails"
    ),
    Column("tls_details", TEXT, "json", "TLS version and cipher, as delivered", "tlsDetails"),
    Column(
        "extra", TEXT, "json", "Every other field, and any typed field whose text its column cannot hold: a JSON object"
    ),
    Column("user_type", TEXT, "identity", "userIdentity.type"),
    Column("user_arn", TEXT, "identity", "userIdentity.arn"),
    Column("user_principal_id", TEXT, "identity", "userIdentity.principalId"),
    Column("user_account_id", TEXT, "identity", "userIdentity.accountId: the caller's account"),
    Column("user_access_key_id", TEXT, "identity", "userIdentity.accessKeyId"),
    Column("user_name", TEXT, "identity", "userIdentity.userName"),
    Column("user_invoked_by", TEXT, "identity", "userIdentity.invokedBy: the AWS service that called for the user"),
    Column("issuer_type", TEXT, "identity", "sessionContext.sessionIssuer.type"),
    Column("issuer_arn", TEXT, "identity", "sessionContext.sessionIssuer.arn: the role behind a session"),
    Column("issuer_user_name", TEXT, "identity", "sessionContext.sessionIssuer.userName"),
    Column("issuer_account_id", TEXT, "identity", "sessionContext.sessionIssuer.accountId"),
    Column("session_name", TEXT, "identity", "Last part of an assumed role's ARN"),
    Column("source_identity", TEXT, "identity", "sessionContext.sourceIdentity"),
    Column("mfa_authenticated", FLAG, "identity", "sessionContext.attributes.mfaAuthenticated"),
    Column("success", FLAG, "derived", "The call worked (no error code; a sign-in did not fail)"),
    Column("denied", FLAG, "derived", "The call was refused for want of a permission"),
    Column(
        "actor_kind",
        TEXT,
        "derived",
        "root, iam_user, role, sso, federated, saml, web_identity, cross_account, anonymous, aws_service or unknown",
    ),
    Column(
        "principal", TEXT, "derived", "Who did it: the role behind a session, else the identity's ARN, else its name"
    ),
    Column("access_key_kind", TEXT, "derived", "AKIA long-term, ASIA temporary, ABIA bearer"),
    Column("source_kind", TEXT, "derived", "public_v4, public_v6, private, aws_service, aws_internal or hostname"),
    Column("source_net", TEXT, "derived", "The caller's /24 (IPv4) or /48 (IPv6)"),
    Column("is_write", FLAG, "derived", "The call may change something"),
    Column("source_type", TEXT, "provenance", "Always 'aws-cloudtrail'"),
    Column("integration", TEXT, "provenance", "Integration that loaded it; 'local' for loaded files"),
    Column("source_key", TEXT, "provenance", "S3 key or path of the log file"),
    Column("delivered_at", TIME, "provenance", "When the log file was delivered, UTC"),
    Column("batch_id", TEXT, "provenance", "Batch that committed it"),
    Column("account", TEXT, "partition", "Account the event belongs to, 12 digits"),
    Column("date", pa.date32(), "partition", "UTC date of event_time"),
)

ACTIVITY_COLUMNS: tuple[Column, ...] = (
    Column("principal", TEXT, "derived", "As in events"),
    Column("actor_kind", TEXT, "derived", "As in events"),
    Column(
        "access_key",
        TEXT,
        "derived",
        "Long-term access key id (AKIA…); null for temporary ones, which never come again",
    ),
    Column("source_net", TEXT, "derived", "As in events"),
    Column("region", TEXT, "derived", "aws_region of events"),
    Column("event_source", TEXT, "derived", "As in events"),
    Column("event_name", TEXT, "derived", "As in events"),
    Column("is_write", FLAG, "derived", "As in events"),
    Column("success", FLAG, "derived", "As in events"),
    Column("first_seen", TIME, "derived", "Earliest event_time"),
    Column("last_seen", TIME, "derived", "Latest event_time"),
    Column("count", pa.int64(), "derived", "Number of events"),
    Column("account", TEXT, "partition", "As in events"),
    Column("date", pa.date32(), "partition", "As in events"),
)

MALFORMED_COLUMNS: tuple[Column, ...] = (
    Column("integration", TEXT, "provenance", "Integration that read it"),
    Column("source_key", TEXT, "provenance", "S3 key or path of the log file"),
    Column("position", pa.int64(), "provenance", "Place of the record in its file, from 0"),
    Column("reason", TEXT, "derived", "Why it is not an event"),
    Column("record", pa.binary(), "json", "The record's bytes as delivered"),
    Column("batch_id", TEXT, "provenance", "Batch that committed it"),
)


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


EVENTS = _schema(EVENT_COLUMNS)
ACTIVITY = _schema(ACTIVITY_COLUMNS)
MALFORMED = _schema(MALFORMED_COLUMNS)

PARTITION = ("account", "date")
RECORD_COLUMNS = tuple(column.name for column in EVENT_COLUMNS if column.role in ("typed", "json"))
"""Columns that together hold a whole record; two rows equal in all of them are one event."""

SOURCE_TYPE = "aws-cloudtrail"
