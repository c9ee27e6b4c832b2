"""Who is said to have called."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from typing import Any

import pytest

from kyra_etl.cloudtrail.decode import Source, decode

NOW = datetime(2026, 1, 11)
ADMIN = {
    "type": "AssumedRole",
    "principalId": "AROAEXAMPLE:jo",
    "arn": "arn:aws:sts::111111111111:assumed-role/Admin/jo",
    "accountId": "111111111111",
    "accessKeyId": "ASIAEXAMPLE",
    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111111111111:role/Admin"}},
}


def kind(**said: Any) -> str:
    """`actor_kind` of a record as decoded."""
    record = {
        "eventTime": "2026-01-10T10:00:00Z",
        "eventSource": "rds.amazonaws.com",
        "eventName": "ModifyDBInstance",
        "eventType": "AwsApiCall",
        "eventID": "one",
        "recipientAccountId": "111111111111",
        "sourceIPAddress": "198.51.100.7",
        "userIdentity": ADMIN,
        **said,
    }
    source = Source("test", "key", "batch", NOW)
    document = gzip.compress(json.dumps({"Records": [record]}).encode())
    _, events = decode(document, source, now=NOW, max_bytes=2**20)
    return str(events["actor_kind"].to_pylist()[0])


@pytest.mark.parametrize("said", [True, "true"])
def test_a_person_at_the_console_is_no_service_though_the_address_says_so(said: object) -> None:
    assert kind(sourceIPAddress="AWS Internal", sessionCredentialFromConsole=said) == "role"


def test_the_sign_in_page_invokes_for_a_person() -> None:
    root = {"type": "Root", "arn": "arn:aws:iam::111111111111:root", "accountId": "111111111111"}

    assert kind(userIdentity={**root, "invokedBy": "signin.amazonaws.com"}) == "root"


@pytest.mark.parametrize(
    "said",
    [
        {"sourceIPAddress": "AWS Internal"},
        {"sourceIPAddress": "config.amazonaws.com", "sessionCredentialFromConsole": "false"},
        {
            "userIdentity": {**ADMIN, "invokedBy": "cloudformation.amazonaws.com"},
            "sessionCredentialFromConsole": "true",
        },
        {"userIdentity": {**ADMIN, "invokedBy": "AWS Internal"}, "sessionCredentialFromConsole": "true"},
        {"eventType": "AwsServiceEvent", "sessionCredentialFromConsole": "true"},
    ],
    ids=["address", "service's address", "on behalf", "on behalf, unnamed", "service event"],
)
def test_what_a_service_does_is_the_services(said: dict[str, Any]) -> None:
    assert kind(**said) == "aws_service"
