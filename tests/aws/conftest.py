"""A customer's account in small: a bucket with log files, a trail, and a role, in an account that is not ours."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from kyra_etl import cli
from kyra_etl.aws.policies import POLICY_NAME, permission_policy
from kyra_etl.integrations import make_integration
from kyra_etl.model import Integration
from tests.planted import EXTERNAL_ID

CUSTOMER = "111122223333"
BUCKET = "example-cloudtrail-logs"
ROLE = f"arn:aws:iam::{CUSTOMER}:role/kyra-etl"
FOLDER = f"AWSLogs/{CUSTOMER}/CloudTrail/eu-west-1"


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def key_of(number: int, day: str = "2026/03/04") -> str:
    stamp = day.replace("/", "")
    return f"{FOLDER}/{day}/{CUSTOMER}_CloudTrail_eu-west-1_{stamp}T{number:04d}Z_{number:016d}.json.gz"


def log_file(events: int = 1, *, account: str = CUSTOMER, number: int = 0, at: str = "2026-03-04T10:00:00Z") -> bytes:
    """A log file of so many events, as CloudTrail delivers it; files of different numbers have different events."""
    records = [
        {
            "eventVersion": "1.11",
            "eventTime": at,
            "eventID": f"00000000-0000-4000-8000-{number:06d}{one:06d}",
            "eventName": "DescribeInstances",
            "eventSource": "ec2.amazonaws.com",
            "awsRegion": "eu-west-1",
            "userIdentity": {"type": "Root", "accountId": account},
            "recipientAccountId": account,
        }
        for one in range(events)
    ]
    return gzip.compress(json.dumps({"Records": records}).encode(), mtime=0)


@dataclass
class Customer:
    """The customer's side of the AWS look-alike, with the customer's own rights."""

    url: str
    keys: dict[str, str]

    def client(self, service: str, region: str = "us-east-1") -> Any:
        return boto3.client(service, region_name=region, **self.keys)

    def put(self, *keys: str, body: bytes | None = None) -> None:
        s3 = self.client("s3")
        for key in keys:
            s3.put_object(Bucket=BUCKET, Key=key, Body=log_file() if body is None else body)

    def trail(
        self,
        *,
        prefix: str | None = None,
        multi_region: bool = True,
        logging: bool = True,
        validation: bool = True,
        topic: str | None = None,
    ) -> str:
        """A trail that delivers to the bucket; its ARN."""
        cloudtrail = self.client("cloudtrail", "eu-west-1")
        more = {"S3KeyPrefix": prefix} if prefix else {}
        more |= {"SnsTopicName": topic} if topic else {}
        arn: str = cloudtrail.create_trail(
            Name="everything",
            S3BucketName=BUCKET,
            IsMultiRegionTrail=multi_region,
            EnableLogFileValidation=validation,
            **more,
        )["TrailARN"]
        if logging:
            cloudtrail.start_logging(Name=arn)
        return arn

    def let_role(self, integration: Integration, *, without: str = "") -> None:
        """Make the role, with the published permissions but one action."""
        iam = self.client("iam")
        anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        iam.create_role(RoleName="kyra-etl", AssumeRolePolicyDocument=json.dumps({"Statement": [anybody]}))
        document = json.loads(json.dumps(permission_policy(integration)))
        for statement in document["Statement"]:
            statement["Action"] = [action for action in statement["Action"] if action != without] or ["s3:GetBucketAcl"]
        iam.put_role_policy(RoleName="kyra-etl", PolicyName=POLICY_NAME, PolicyDocument=json.dumps(document))


@pytest.fixture
def customer(s3_server: str) -> Customer:
    """An account with an empty bucket in eu-west-1."""
    answer = boto3.client("sts").assume_role(RoleArn=f"arn:aws:iam::{CUSTOMER}:role/admin", RoleSessionName="admin")
    found = answer["Credentials"]
    keys = {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }
    customer = Customer(s3_server, keys)
    customer.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return customer


@pytest.fixture
def integration() -> Integration:
    """The integration that reads the customer's bucket through a role."""
    return make_integration(
        "production", bucket=BUCKET, role_arn=ROLE, external_id=EXTERNAL_ID, now=datetime(2026, 3, 4)
    )


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles insist on the external id: the look-alike would let anybody in."""
    from moto.core.exceptions import AccessDeniedError
    from moto.sts.models import STSBackend

    original = STSBackend.assume_role

    def assume_role(self: Any, **request: Any) -> Any:
        if request["role_arn"] == ROLE and request["external_id"] != EXTERNAL_ID:
            raise AccessDeniedError("arn:aws:sts::123456789012:user/moto", "sts:AssumeRole")
        return original(self, **request)

    monkeypatch.setattr(STSBackend, "assume_role", assume_role)


@dataclass
class Answer:
    """One scripted answer of the `scripted` server; `cut` breaks the body off after so many bytes."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


@pytest.fixture
def scripted() -> Iterator[Callable[[Callable[[str, str], Answer]], str]]:
    """Starts an S3 that answers as a function of (method, path) says: for what the look-alike cannot do."""
    servers = []

    def start(answer: Callable[[str, str], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                said = answer(self.command, self.path)
                self.send_response_only(said.status)
                for name, value in ({"Date": self.date_time_string()} | said.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said.body if said.cut is None else said.body[: said.cut])
                if said.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


# ── the command line ──


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def failed(self) -> list[str]:
        return [probe["name"] for probe in self.json["probes"] if probe["passed"] is False]

    def remedy(self, name: str) -> str:
        return next(str(probe["remedy"]) for probe in self.json["probes"] if probe["name"] == name)


Kyra = Callable[..., Ran]


@pytest.fixture
def kyra(kyra_home: Path, capsys: pytest.CaptureFixture[str]) -> Kyra:
    """Runs a command over a home with no detections in force, which are not asked for here."""
    from kyra_etl import resources

    names = sorted(path.stem for path in resources.detections_dir().rglob("*.sql"))
    (kyra_home / "kyra.toml").write_text(f"[detections]\ndisable = {json.dumps(names)}\n")

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = cli.run([*arguments, "--json"])
        streams = capsys.readouterr()
        return Ran(code, streams.out, streams.err)

    return run


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles insist on their own trust policy, and those that do not exist let nobody in: moto asks for neither."""
    from moto.core.exceptions import AccessDeniedError
    from moto.iam.models import iam_backends
    from moto.sts.models import STSBackend

    original = STSBackend.assume_role

    def assume_role(self: Any, **request: Any) -> Any:
        account, name = request["role_arn"].split(":")[4], request["role_arn"].rpartition("/")[2]
        roles = {role.name: role for role in iam_backends[account]["aws"].roles.values()}
        if account == CUSTOMER and name != "admin":
            (statement,) = json.loads(roles[name].assume_role_policy_document)["Statement"] if name in roles else [{}]
            wanted = statement.get("Condition", {}).get("StringEquals", {}).get("sts:ExternalId")
            if not statement or (wanted is not None and request["external_id"] != wanted):
                raise AccessDeniedError("arn:aws:sts::123456789012:user/moto", "sts:AssumeRole")
        return original(self, **request)

    monkeypatch.setattr(STSBackend, "assume_role", assume_role)
