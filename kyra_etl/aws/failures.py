"""Every AWS failure that is known: one table, first match wins.

A row is chosen by error code, operation and, where AWS uses one code for several causes, by words in its text. Nothing
here looks at exception classes of clients: botocore's modelled classes differ from service to service, codes do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

LIST = ("ListObjectsV2", "HeadBucket")
_S3 = (*LIST, "GetObject")
_DENIED = ("AccessDenied", "AccessDeniedException", "403", "UnauthorizedOperation", "NotAuthorized")
_POLICY = "`kyra integration policy` prints the statement."


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure. `name` is the quarantine's reason when the failure concerns a single object.

    `codes` are exact, or end in `*`. No `operations` means any. `says` and `remedy` may use {subject}, {operation},
    {action} (IAM's name of the call), {bucket}, {caller}, {region} and {text} (AWS's own words).
    """

    name: str
    codes: tuple[str, ...]
    says: str
    remedy: str
    kind: Literal["access", "transient", "collect", "gone"] = "access"
    operations: tuple[str, ...] = ()
    text: str = ""
    of_object: bool = False
    permanent: bool = False

    def fits(self, code: str, operation: str, text: str) -> bool:
        """Whether the row is about this failure."""
        if self.operations and operation not in self.operations:
            return False
        if not any(code == known or (known.endswith("*") and code.startswith(known[:-1])) for known in self.codes):
            return False
        return not self.text or re.search(self.text, text, re.IGNORECASE) is not None


TABLE: tuple[Row, ...] = (
    # ── our own credentials ──
    Row(
        "no_credentials",
        (
            *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
            *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError"),
            *("InvalidConfigError", "ConfigParseError", "ConfigNotFound", "MetadataRetrievalError"),
        ),
        "There are no usable AWS credentials on this machine",
        "Give it some (AWS_PROFILE, an instance or task role) until `aws sts get-caller-identity` works.",
    ),
    Row(
        "clock",
        ("RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException"),
        "AWS refuses the request's time",
        "Set this machine's clock (NTP).",
        text=r"time.*too (large|skewed)|signature (has )?expired|not yet current|request has expired",
    ),
    Row(
        "bad_credentials",
        (
            *("InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException"),
            *("UnrecognizedClientException", "IncompleteSignature", "MissingAuthenticationToken", "AuthFailure"),
        ),
        "AWS does not accept the credentials of this machine",
        "Replace or rotate the access key until `aws sts get-caller-identity` works.",
    ),
    Row(
        "expired_credentials",
        ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"),
        "The AWS credentials of this machine have expired",
        "Renew them (`aws sso login`, or a role that refreshes itself), then run again.",
    ),
    # ── the role ──
    Row(
        "assume_role_ours",
        _DENIED,
        "{caller} may not assume {subject}: a policy on our side forbids it",
        "Allow sts:AssumeRole on that role in the policies (and boundary, service control policy) of {caller}.",
        operations=("AssumeRole",),
        text=r"(no|in an) identity-based policy|service control polic|permissions boundar|session polic",
    ),
    Row(
        "assume_role",
        _DENIED,
        "{caller} may not assume {subject}; AWS gives one answer for several causes",
        "Likeliest first: sts:ExternalId in the role's trust policy is not exactly the external id that"
        " `kyra integration policy` prints; Principal there does not name {caller}; the role has another name, path or"
        " account, or does not exist; it was made less than a minute ago.",
        operations=("AssumeRole",),
    ),
    Row(
        "role_duration",
        ("ValidationError",),
        "{subject} does not last the hour that is asked for",
        "Set the role's maximum session duration to one hour (3600 seconds).",
        operations=("AssumeRole",),
        text=r"MaxSessionDuration|DurationSeconds",
    ),
    Row(
        "region_disabled",
        ("RegionDisabledException", "OptInRequired"),
        "{subject}: the region is not enabled for the account",
        "Enable the region (STS too) in the account, or give the integration another --region.",
    ),
    Row(
        "bad_parameter",
        ("ParamValidationError", "ValidationError", "ValidationException", "InvalidRegionError", "NoRegionError"),
        "{subject}: AWS cannot take a value the integration gives: {text}",
        "Correct it with `kyra integration change`.",
        kind="collect",
    ),
    # ── passing trouble ──
    Row(
        "throttled",
        (
            *("SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "429"),
            *(
                "RequestThrottledException",
                "RequestLimitExceeded",
                "TooManyRequestsException",
                "BandwidthLimitExceeded",
            ),
        ),
        "{subject}: AWS asks us to slow down",
        "Nothing to do: the next run tries again.",
        kind="transient",
        of_object=True,
    ),
    Row(
        "server_error",
        (
            *("InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "RequestTimeout"),
            *("ServiceUnavailableException", "RequestTimeoutException", "500", "502", "503", "504"),
            "ResponseParserError",  # not AWS's format: some proxy's page
        ),
        "{subject}: AWS failed on its side",
        "Nothing to do: the next run tries again.",
        kind="transient",
        of_object=True,
    ),
    Row(
        "timeout",
        ("ReadTimeoutError",),
        "{subject}: no answer in time",
        "Nothing to do: the next run tries again.",
        kind="transient",
        of_object=True,
    ),
    Row(
        "interrupted",
        ("IncompleteReadError", "ResponseStreamingError", "ProtocolError", "FlexibleChecksumError", "ChecksumError"),
        "{subject}: the answer broke off",
        "Nothing to do: the next run tries again.",
        kind="transient",
        of_object=True,
    ),
    Row(
        "unreachable",
        (
            *("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ProxyConnectionError"),
            *("SSLError", "HTTPClientError", "ConnectionError", "OSError", "ConnectionResetError", "TimeoutError"),
            *("ConnectionRefusedError", "BrokenPipeError", "gaierror"),
        ),
        "{subject}: AWS cannot be reached ({text})",
        "Check this machine's network, proxy and DNS; the next run tries again.",
        kind="transient",
    ),
    # ── the bucket ──
    Row(
        "no_bucket",
        ("NoSuchBucket", "404"),
        "{subject}: there is no such bucket",
        "Compare --bucket with S3BucketName of `aws cloudtrail describe-trails`.",
        kind="collect",
        operations=LIST,
    ),
    Row(
        "no_bucket",
        ("NoSuchBucket",),
        "{subject}: there is no such bucket",
        "Compare --bucket with S3BucketName of `aws cloudtrail describe-trails`.",
        kind="collect",
        operations=("GetObject",),
    ),
    Row(
        "bad_request",
        ("400",),
        "{subject}: AWS refuses the request without saying why",
        "Make sure that the credentials are current, and give the integration the bucket's own --region.",
        kind="collect",
        operations=("HeadBucket",),
    ),
    Row(
        "wrong_region",
        (
            *("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
            *("TemporaryRedirect", "301", "307"),
        ),
        "{subject} lives in another region{region}",
        "Give the integration the bucket's own --region.",
        kind="collect",
        operations=_S3,
    ),
    Row(
        "account_problem",
        ("AllAccessDisabled", "AccountProblem", "InvalidPayer", "NotSignedUp", "SubscriptionRequiredException"),
        "{subject}: AWS has disabled access for the account",
        "The owner of the account has to settle it with AWS support.",
    ),
    # ── one object ──
    Row(
        "vanished",
        ("NoSuchKey", "404"),
        "{subject} no longer exists",
        "If logs must be kept longer, lengthen the bucket's lifecycle rule.",
        kind="gone",
        operations=("GetObject",),
    ),
    Row(
        "archived",
        ("InvalidObjectState",),
        "{subject} is archived",
        "Restore it from Glacier, then `kyra quarantine retry`.",
        operations=("GetObject",),
        of_object=True,
        permanent=True,
    ),
    Row(
        "kms_unusable",
        ("KMS.*",),
        "{subject}: its KMS key is disabled, deleted or gone ({text})",
        "Enable the key, or cancel its deletion, in the account that owns it; then `kyra quarantine retry`.",
        operations=_S3,
        of_object=True,
    ),
    Row(
        "kms_denied",
        _DENIED,
        "{subject}: the KMS key that encrypts it may not be used",
        "Allow kms:Decrypt on the trail's key both in the key's policy and in the role's policy; across accounts one"
        " alone is not enough.",
        operations=("GetObject",),
        text=r"\bkms:\w+|\bkms key\b|ciphertext refers to a customer master key",
        of_object=True,
    ),
    Row(
        "access_denied",
        _DENIED,
        "{subject}: a policy above the role denies {action} ({text})",
        "Make an exception for the role in that bucket policy, service or resource control policy, or VPC endpoint.",
        operations=_S3,
        text=r"explicit deny|service control polic|resource control polic|vpc endpoint|permissions boundar",
        of_object=True,
    ),
    Row(
        "access_denied",
        _DENIED,
        "{subject} may not be read",
        "Likeliest first: allow s3:GetObject on arn:aws:s3:::{bucket}/* in the role's policy; allow it in the bucket's"
        " policy, if another account owns the bucket; make the bucket's owner own the object (it may have been copied"
        f" there by another account). {_POLICY}",
        operations=("GetObject",),
        of_object=True,
    ),
    Row(
        "list_denied",
        _DENIED,
        "{subject} may not be listed",
        "Likeliest first: allow s3:ListBucket on arn:aws:s3:::{bucket} itself, without /*, in the role's policy; if"
        " there is an s3:prefix condition, let it cover the integration's --prefix; allow it in the bucket's policy, if"
        f" another account owns the bucket. {_POLICY}",
        operations=LIST,
    ),
    # ── the queue and its topic ──
    Row(
        "no_queue",
        ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"),
        "{subject} does not exist",
        "Compare --queue-url with `aws sqs get-queue-url`; a queue just made takes a minute.",
        kind="collect",
    ),
    Row(
        "no_topic",
        ("NotFound", "NotFoundException", "InvalidParameter", "InvalidParameterException"),
        "{subject} does not exist, or cannot have the queue as a subscriber",
        "Compare --sns-topic-arn with SnsTopicARN of `aws cloudtrail describe-trails`; a FIFO topic will not do.",
        kind="collect",
        operations=("Subscribe", "ConfirmSubscription"),
    ),
    Row(
        "subscribe_denied",
        (*_DENIED, "AuthorizationError", "AuthorizationErrorException"),
        "{subject} does not let the queue's owner subscribe",
        f"Allow sns:Subscribe to the queue's account in the topic's policy. {_POLICY}",
        operations=("Subscribe", "ConfirmSubscription"),
    ),
    # ── what CloudTrail itself met with, as a trail's status tells ──
    Row(
        "delivery_no_bucket",
        ("NoSuchBucket",),
        "{subject} cannot deliver: its bucket does not exist",
        "Make the bucket again, or give the trail another: `aws cloudtrail update-trail --s3-bucket-name`.",
        kind="collect",
        operations=("Delivery",),
    ),
    Row(
        "delivery_kms",
        ("KMS*", "Kms*"),
        "{subject} cannot deliver: it cannot use its KMS key",
        "Likeliest first: enable the key, or cancel its deletion; let cloudtrail.amazonaws.com use it"
        " (kms:GenerateDataKey* in the key's policy). CloudTrail tries for 30 days, then log files are lost.",
        kind="collect",
        operations=("Delivery",),
    ),
    Row(
        "delivery_denied",
        ("*",),
        "{subject} cannot deliver",
        "Likeliest first: let cloudtrail.amazonaws.com write to the bucket (s3:GetBucketAcl and s3:PutObject in the"
        " bucket's policy, with the trail's ARN as aws:SourceArn); let it use the trail's KMS key. CloudTrail tries for"
        " 30 days, then log files are lost.",
        kind="collect",
        operations=("Delivery",),
    ),
    Row(
        "notification_no_topic",
        ("NotFound", "NotFoundException", "TopicNotFound*"),
        "{subject} cannot notify: its topic does not exist",
        "Make the topic again, or give the trail another: `aws cloudtrail update-trail --sns-topic-name`.",
        kind="collect",
        operations=("Notification",),
    ),
    Row(
        "notification_denied",
        ("*",),
        "{subject} cannot notify its topic",
        "Likeliest first: allow sns:Publish to cloudtrail.amazonaws.com in the topic's policy; if a KMS key encrypts"
        f" the topic, let CloudTrail use it. {_POLICY}",
        kind="collect",
        operations=("Notification",),
    ),
    # ── the trails ──
    Row(
        "no_trail",
        ("TrailNotFoundException", "InvalidTrailNameException", "CloudTrailARNInvalidException"),
        "{subject}: there is no such trail",
        "It may have been deleted, or belong to the organization: ask in its home region, by ARN.",
        kind="collect",
    ),
    Row(
        "not_permitted",
        ("UnsupportedOperationException", "OperationNotPermittedException"),
        "{subject}: the account or region does not support {operation}",
        "Ask in another region, or in the trail's own account.",
        kind="collect",
    ),
    Row(
        "call_denied",
        _DENIED,
        "{subject}: {action} is denied",
        f"Allow {{action}} in the role's policy. {_POLICY}",
    ),
)

UNKNOWN = Row(
    "unexpected",
    ("*",),
    "{subject}: {operation} failed: {text}",
    "Try again; if it stays, look the code up in AWS's documentation of {operation}.",
    kind="collect",
    of_object=True,
)


def match(code: str, operation: str, text: str) -> Row:
    """The first row of the table that fits, or UNKNOWN."""
    return next((row for row in TABLE if row.fits(code, operation, text)), UNKNOWN)
