"""What arrives at the AWS look-alike, on the other side of everything of ours: which action, on what, as whom.

One recorder stands before the server and sees every request, whichever client sent it (boto3, obstore, s3fs, a process
of its own). After each test the actions of the customer's role are held against the published policy.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

SESSION = "kyra-etl-"
"""How the sessions begin that kyra makes of a customer's role."""

ALWAYS = frozenset({"sts:GetCallerIdentity"})
"""What AWS lets everybody do."""


@dataclass(frozen=True)
class Call:
    """A request as IAM sees it. `role` is the customer's role that signed it, None for anybody else."""

    action: str
    resource: str
    role: str | None
    head: bool = False
    key: str | None = None
    """The access key that signed it."""


Rule = Callable[[Call], Response | None]


def refuse(
    action: str, code: str, message: str, status: int = 403, *, headers: Mapping[str, str] | None = None
) -> Rule:
    """The rule that answers an action as AWS does when it refuses: in JSON for CloudTrail and SQS, else in XML."""
    service = action.partition(":")[0]

    def rule(call: Call) -> Response | None:
        if call.action != action or (service == "sts" and call.role):
            return None
        if service in ("cloudtrail", "sqs"):
            body = json.dumps({"__type": code, "message": message})
            return Response(body, status, content_type="application/x-amz-json-1.1")
        inner = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
        error = f"<Error>{inner}</Error>"
        body = error if service == "s3" else f"<ErrorResponse>{error}<RequestId>r-1</RequestId></ErrorResponse>"
        return Response(body, status, content_type="application/xml")

    return rule


def tell(action: str, document: Mapping[str, Any]) -> Rule:
    """The rule that answers an action of CloudTrail with a document."""
    answer = Response(json.dumps(document), 200, content_type="application/x-amz-json-1.1")
    return lambda call: answer if call.action == action else None


@dataclass
class Wire:
    """The recorder: a WSGI application around the server's."""

    calls: list[Call] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    """What is answered in the server's place, where it cannot do what AWS does: the first that has an answer."""
    _roles: dict[str, str] = field(default_factory=dict)
    _app: Callable[..., Iterable[bytes]] | None = None

    @property
    def actions(self) -> list[str]:
        """The IAM actions of every request, in order, whoever made it."""
        return [call.action for call in self.calls]

    def by_the_role(self) -> set[str]:
        """The actions that the customer's role was used for."""
        return {call.action for call in self.calls if call.role} - ALWAYS

    def beyond(self, allowed: Iterable[str]) -> list[str]:
        """What the customer's role was used for beyond these actions, or on objects that are no logs."""
        good = {*allowed, *ALWAYS}
        return sorted(
            {
                f"{call.action} on {call.resource}"
                for call in self.calls
                if call.role and (call.action not in good or (call.action == "s3:GetObject" and not _is_log(call)))
            }
        )

    def around(self, app: Callable[..., Iterable[bytes]]) -> Wire:
        self._app = app
        return self

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert self._app is not None
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = b""
        if length and environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
        request = Request({**environ, "wsgi.input": io.BytesIO(body)})
        if request.path.startswith("/moto-api/"):
            return self._app(environ, start_response)
        call = self._call(request, body.decode(errors="replace"))
        self.calls.append(call)
        for rule in self.rules:
            if (instead := rule(call)) is not None:
                return instead(environ, start_response)
        answer = self._app(environ, start_response)
        if call.action != "sts:AssumeRole":
            return answer
        text = b"".join(answer)
        key = re.search(rb"<AccessKeyId>([^<]+)</AccessKeyId>", text)
        asked = parse_qs(body.decode(errors="replace"))
        if key and asked["RoleSessionName"][0].startswith(SESSION):
            self._roles[key[1].decode()] = asked["RoleArn"][0]
        return [text]

    def _call(self, request: Request, body: str) -> Call:
        scope = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", request.headers.get("Authorization", ""))
        role = self._roles.get(scope[1]) if scope else None
        target = request.headers.get("X-Amz-Target", "")
        if target:
            service, _, operation = target.rpartition(".")
            # IAM knows no batches.
            name = f"{'sqs' if 'SQS' in service else 'cloudtrail'}:{operation.removesuffix('Batch')}"
            return Call(scope[2] + name[name.index(":") :] if scope and scope[2] != "s3" else name, "*", role)
        if request.method == "POST" and "Action=" in body:
            asked = parse_qs(body)
            service = scope[2] if scope else "sns" if "TopicArn" in asked else "sts"
            return Call(f"{service}:{asked['Action'][0]}", "*", role)
        return Call(*_s3(request), role, request.method == "HEAD", scope[1] if scope else None)


def _s3(request: Request) -> tuple[str, str]:
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    strange = f"s3:? {request.method} {request.url}"
    if not key:
        listing = request.method == "HEAD" or (request.method == "GET" and "list-type" in request.args)
        return ("s3:ListBucket" if listing else strange), f"arn:aws:s3:::{bucket}"
    reading = request.method in ("GET", "HEAD") and not set(request.args) - {"x-id"}
    return ("s3:GetObject" if reading else strange), f"arn:aws:s3:::{bucket}/{key}"


def _is_log(call: Call) -> bool:
    return "/AWSLogs/" in call.resource


WIRE = Wire()
"""The recorder of this process; the server is one for the session, too."""
