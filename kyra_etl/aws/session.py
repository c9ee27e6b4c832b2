"""Clients for one integration: with ambient credentials, or with its role, assumed anew before it expires."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    ReadOnlyCredentials,
    RefreshableCredentials,
)
from botocore.exceptions import NoCredentialsError
from botocore.loaders import create_loader

import kyra_etl
from kyra_etl.aws.mapping import translated
from kyra_etl.errors import AccessError
from kyra_etl.model import Integration

ROLE_SECONDS = 3600
"""How long an assumed role lasts: the most that a role assumed from another role may ask for."""

_DEFAULT_REGIONS = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a set of credentials belongs to."""

    account: str
    arn: str


class Session:
    """Makes clients for one integration; opening it talks to nobody.

    `endpoint_url` sends every service to one address (tests, S3 look-alikes). `connections` bounds the connections of
    each client: give it the number of fetching threads. A request that AWS throttles or fails is made so many
    `attempts` at most. Safe to share between threads.
    """

    def __init__(
        self, integration: Integration, *, endpoint_url: str | None = None, connections: int = 8, attempts: int = 5
    ) -> None:
        self.integration = integration
        self.attempts = attempts
        self.secrets = tuple(secret for secret in (integration.external_id, integration.queue_url) if secret)
        self.connections = connections
        self.endpoint_url = endpoint_url
        self._lock = threading.RLock()  # making the first client of a role assumes it, with a client of ours
        self._clients: dict[tuple[str, str, bool], Any] = {}

    def __repr__(self) -> str:
        return f"Session({self.integration.name!r})"

    @cached_property
    def region(self) -> str:
        """Where to ask when nothing says otherwise: the integration's region, or its partition's default."""
        return self.integration.region or self._default_region()

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client on the customer's side, kept for the session's life."""
        return self._client(service, region or self.region, ours=False)

    def own_client(self, service: str, region: str) -> Any:
        """A boto3 client with our own credentials, whatever role the integration has."""
        return self._client(service, region, ours=True)

    def credentials(self) -> ReadOnlyCredentials:
        """The credentials that read the bucket, as of now: renewed when they are about to end. Raises CollectError."""
        with translated("find credentials", "AWS configuration", self.secrets):
            with self._lock:
                found = self._theirs.get_credentials()
            if found is None:
                raise NoCredentialsError
            return found.get_frozen_credentials()

    @cached_property
    def ca_bundle(self) -> str | None:
        """The file of certificates that the AWS configuration trusts instead of the system's, if it names one."""
        with translated("find credentials", "AWS configuration", self.secrets):
            found: str | None = botocore.session.Session().get_config_variable("ca_bundle")
        return found

    def identity(self) -> Identity:
        """Our own identity, before any role is assumed. Raises CollectError."""
        return self._who(ours=True)

    def role_identity(self) -> Identity:
        """The identity that reads the bucket: the assumed role's, or our own without one. Raises CollectError."""
        return self._who(ours=False)

    def lets_in_without_external_id(self) -> bool:
        """Whether the role can be assumed by callers that leave the external id out. Raises CollectError."""
        return self._lets_in(None)

    def lets_in_with_wrong_external_id(self) -> bool:
        """Whether the role can be assumed with an external id that nobody gave it. Raises CollectError."""
        return self._lets_in(f"kyra-wrong-{secrets.token_hex(12)}")

    def _lets_in(self, external_id: str | None) -> bool:
        try:
            self._assume(external_id)
        except AccessError:
            return False
        return True

    def _who(self, *, ours: bool) -> Identity:
        with translated("GetCallerIdentity", "our AWS credentials", self.secrets):
            answer = self._client("sts", self.region, ours=ours).get_caller_identity()
        return Identity(answer["Account"], answer["Arn"])

    @cached_property
    def _ours(self) -> Any:
        with translated("find credentials", "AWS configuration", self.secrets):
            return boto3.Session(botocore_session=_inner())

    @cached_property
    def _theirs(self) -> Any:
        if self.integration.role_arn is None:
            return self._ours
        inner = _inner()
        # Assumed here and not lazily inside botocore, which would log a refusal with its traceback.
        credentials = RefreshableCredentials.create_from_metadata(
            self._fresh_credentials(), refresh_using=self._fresh_credentials, method="assume-role"
        )
        inner.register_component("credential_provider", CredentialResolver([_Provider(credentials)]))
        return boto3.Session(botocore_session=inner)

    def _fresh_credentials(self) -> dict[str, str]:
        answer = self._assume(self.integration.external_id)["Credentials"]
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["SessionToken"],
            "expiry_time": answer["Expiration"].isoformat(),
        }

    def _assume(self, external_id: str | None) -> Mapping[str, Any]:
        """One AssumeRole call with our own credentials."""
        role = self.integration.role_arn or ""
        request = {
            "RoleArn": role,
            "RoleSessionName": re.sub(r"[^\w+=,.@-]", "-", f"kyra-etl-{self.integration.name}", flags=re.ASCII)[:64],
            "DurationSeconds": ROLE_SECONDS,
        } | ({"ExternalId": external_id} if external_id else {})
        with translated("AssumeRole", f"role {role}", self.secrets):
            answer: Mapping[str, Any] = self._client("sts", self.region, ours=True).assume_role(**request)
        return answer

    def _client(self, service: str, region: str, *, ours: bool) -> Any:
        known = (service, region, ours)
        with self._lock:
            if known not in self._clients:
                with translated("open a client", f"{service} in {region}", self.secrets):
                    source = self._ours if ours else self._theirs
                    self._clients[known] = source.client(
                        service, region_name=region, endpoint_url=self.endpoint_url, config=self._config()
                    )
            return self._clients[known]

    def _config(self) -> Config:
        return Config(
            retries={"mode": "standard", "max_attempts": self.attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=max(self.connections, 1),
            user_agent_extra=f"kyra-etl/{kyra_etl.__version__}",
            s3={"addressing_style": "path"} if self.endpoint_url else None,
        )

    def _default_region(self) -> str:
        partition = (self.integration.role_arn or "").split(":")[1:2]
        default = _DEFAULT_REGIONS.get(partition[0] if partition else "aws", "us-east-1")
        with translated("find credentials", "AWS configuration", self.secrets):
            ambient = self._ours.region_name
        # An ambient region of another partition would send the role's calls to the wrong AWS.
        return ambient if ambient and _partition(ambient) == _partition(default) else default


class _Provider(CredentialProvider):  # type: ignore[misc]
    """Hands botocore the credentials of the assumed role, instead of those it would find by itself."""

    METHOD = "kyra-etl-assume-role"

    def __init__(self, credentials: RefreshableCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> RefreshableCredentials:
        return self._credentials


def _inner() -> Any:
    """A botocore session that shares what all of them read alike: to read it anew is most of what a client costs."""
    made = botocore.session.Session()
    made.register_component("data_loader", _loader(made.get_config_variable("data_path")))
    return made


@cache
def _loader(data_path: str | None) -> Any:
    """botocore's descriptions of AWS's services."""
    return create_loader(data_path)


def _partition(region: str) -> str:
    if region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws-cn" if region.startswith("cn-") else "aws"
