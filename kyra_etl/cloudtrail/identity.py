"""`userIdentity` and the caller's address → the columns detections ask for.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

import msgspec

_raw_dict = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | str)

_KINDS = {
    "Root": "root",
    "IAMUser": "iam_user",
    "AssumedRole": "role",
    "Role": "role",
    "FederatedUser": "federated",
    "IdentityCenterUser": "sso",
    "Directory": "federated",
    "AWSAccount": "cross_account",
    "AWSService": "aws_service",
    "SAMLUser": "saml",
    "WebIdentityUser": "web_identity",
}
_CONSOLE = "signin.amazonaws.com"
_ASSUMED_ROLE = re.compile(r":assumed-role/.+/([^/]+)$")
_DENIED = re.compile(
    r"^(Client\.)?(AccessDenied|Unauthorized|AuthorizationError|.*UnauthorizedOperation|.*NotAuthorized|VpceAccessDenied)"
)
_READ_NAME = re.compile(
    r"^(Get|List|Describe|Head|Lookup|Search|BatchGet|Select|Query|Scan|Check|Validate|Simulate|Test|Preview|Estimate|Filter|Can)"
)


class Identity(NamedTuple):
    """The identity columns, in schema order, then what only the derived ones need."""

    user_type: str | None = None
    user_arn: str | None = None
    user_principal_id: str | None = None
    user_account_id: str | None = None
    user_access_key_id: str | None = None
    user_name: str | None = None
    user_invoked_by: str | None = None
    issuer_type: str | None = None
    issuer_arn: str | None = None
    issuer_user_name: str | None = None
    issuer_account_id: str | None = None
    session_name: str | None = None
    source_identity: str | None = None
    mfa_authenticated: bool | None = None


@lru_cache(maxsize=16_384)
def identity_of(user_identity: bytes) -> Identity:
    """Read `userIdentity` as delivered; whatever is missing or of another type is None."""
    fields = _fields(user_identity)
    if not fields:
        return Identity()
    session = _fields(fields.get("sessionContext"))
    issuer = _fields(session.get("sessionIssuer"))
    attributes = _fields(session.get("attributes"))
    arn = _string(fields.get("arn"))
    assumed = _ASSUMED_ROLE.search(arn) if arn else None
    return Identity(
        user_type=_string(fields.get("type")),
        user_arn=arn,
        user_principal_id=_string(fields.get("principalId")),
        user_account_id=_string(fields.get("accountId")),
        user_access_key_id=_string(fields.get("accessKeyId")),
        user_name=_string(fields.get("userName")),
        user_invoked_by=_string(fields.get("invokedBy")),
        issuer_type=_string(issuer.get("type")),
        issuer_arn=_string(issuer.get("arn")),
        issuer_user_name=_string(issuer.get("userName")),
        issuer_account_id=_string(issuer.get("accountId")),
        session_name=assumed[1] if assumed else None,
        source_identity=_string(session.get("sourceIdentity")),
        mfa_authenticated=_boolean(attributes.get("mfaAuthenticated")),
    )


@lru_cache(maxsize=65_536)
def actor(
    identity: Identity, event_type: str | None, source_ip_address: str | None, from_console: str | None = None
) -> tuple[str, str | None, str | None, str | None, str | None]:
    """(actor_kind, principal, access_key_kind, source_kind, source_net): the derived columns about the caller."""
    return (
        actor_kind(identity, event_type, source_ip_address, from_console),
        principal(identity),
        access_key_kind(identity.user_access_key_id),
        *source(source_ip_address),
    )


def actor_kind(
    identity: Identity, event_type: str | None, source_ip_address: str | None, from_console: str | None = None
) -> str:
    """Which kind of actor called; a call a service makes, for itself or for a user, is the service's.

    The console is no such service, though records may give it as the address ("AWS Internal", with
    `sessionCredentialFromConsole`) or as the invoker (`signin.amazonaws.com`): a person clicked.
    """
    source = "" if from_console == "true" else source_ip_address or ""
    if (
        event_type == "AwsServiceEvent"
        or identity.user_type == "AWSService"
        or identity.user_invoked_by not in (None, "", _CONSOLE)
        or source.startswith("AWS Internal")
        or source.endswith(".amazonaws.com")
        or ":role/aws-service-role/" in (identity.issuer_arn or "")
    ):
        return "aws_service"
    if "AWSReservedSSO_" in (identity.user_arn or ""):
        return "sso"
    if identity.user_type == "FederatedUser" and identity.issuer_type == "Root":
        return "root"
    if identity.user_type == "AWSAccount" and identity.user_principal_id == "ANONYMOUS_PRINCIPAL":
        return "anonymous"
    if identity.user_type == "AWSAccount" and identity.user_account_id in (None, "ANONYMOUS_PRINCIPAL", "anonymous"):
        return "anonymous"
    return _KINDS.get(identity.user_type or "", "unknown")


def principal(identity: Identity) -> str | None:
    """One name for the same actor over time: sessions of a role are the role."""
    return (
        identity.issuer_arn
        or identity.user_arn
        or (identity.user_invoked_by if identity.user_type in ("AWSService", None) else None)
        or identity.user_name
        or identity.user_principal_id
        or identity.user_account_id
        or identity.user_invoked_by
    )


def access_key_kind(access_key_id: str | None) -> str | None:
    """AKIA, ASIA or ABIA, the kinds whose prefix says how long a key lives."""
    kind = (access_key_id or "")[:4]
    return kind if kind in ("AKIA", "ASIA", "ABIA") else None


@lru_cache(maxsize=65_536)
def source(source_ip_address: str | None) -> tuple[str | None, str | None]:
    """(source_kind, source_net) of a caller's address: ("public_v4", "198.51.100.0/24")."""
    if not source_ip_address:
        return None, None
    if source_ip_address.startswith("AWS Internal"):
        return "aws_internal", None
    if source_ip_address.endswith(".amazonaws.com"):
        return "aws_service", None
    try:
        address = ipaddress.ip_address(source_ip_address)
    except ValueError:
        return "hostname", None
    net = ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False)
    if _is_private(address):
        return "private", str(net)
    return f"public_v{address.version}", str(net)


_PRIVATE = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
                "fc00::/7", "fe80::/10", "::1/128")
)  # fmt: skip


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # Not `address.is_private`: it also holds for the documentation ranges, which examples are written with.
    return any(address.version == net.version and address in net for net in _PRIVATE)


@lru_cache(maxsize=16_384)
def is_denied(error_code: str | None) -> bool:
    """Whether an error code means "not allowed"."""
    return bool(error_code and _DENIED.match(error_code))


@lru_cache(maxsize=16_384)
def is_write(read_only: bool | None, event_name: str | None) -> bool:
    """By `readOnly`, and by the call's name where older or odd records lack it."""
    if read_only is not None:
        return not read_only
    return not _READ_NAME.match(event_name or "")


def is_success(
    event_name: str | None,
    event_source: str | None,
    error_code: str | None,
    error_message: str | None,
    response: bytes | msgspec.Raw,
) -> bool:
    """No error code; and for sign-ins, which carry none when they fail, no failure either."""
    if error_code:
        return False
    if event_source == "signin.amazonaws.com":
        if (error_message or "").startswith("Failed authentication"):
            return False
        return _string(_fields(response).get(event_name or "")) != "Failure"
    return True


def _fields(raw: bytes | msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    if not raw:
        return {}
    try:
        return _raw_dict.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _string(raw: msgspec.Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return _text.decode(raw) or None
    except msgspec.DecodeError:
        text = bytes(raw)
        return text.decode() if text[:1].isdigit() else None


def _boolean(raw: msgspec.Raw | None) -> bool | None:
    if raw is None:
        return None
    try:
        value = _flag.decode(raw)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(value.lower())
