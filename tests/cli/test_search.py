"""The search language: what finds what, and that no value ever becomes SQL."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.cloudtrail.schema import EVENT_COLUMNS, EVENTS
from kyra_etl.errors import KyraError, QueryError
from kyra_etl.search import Place
from kyra_etl.terms import moment, terms

NOW = datetime(2026, 1, 31, 12)

ROWS: list[dict[str, Any]] = [
    {
        "event_id": "create",
        "event_time": datetime(2026, 1, 30, 9),
        "event_name": "CreateSecurityGroup",
        "account": "012345678901",
        "aws_region": "eu-west-1",
        "principal": "arn:aws:iam::012345678901:role/deploy",
        "session_name": "alex",
        "request_parameters": '{"groupName": "web_1", "items": [{"port": 22}, {"port": 443}], "note": "caf\\u00e9"}',
        "source_ip_address": "2001:db8::1",
        "success": True,
        "mfa_authenticated": False,
    },
    {
        "event_id": "delete",
        "event_time": datetime(2026, 1, 31, 11, 30),
        "event_name": "DeleteSecurityGroup",
        "account": "111122223333",
        "aws_region": "us-east-1",
        "user_name": "100%_real",
        "request_parameters": '{"groupName": "webx1", "quote": "say \\"hi\\""}',
        "resources": '[{"ARN": "arn:aws:s3:::logs"}, {"ARN": "arn:aws:s3:::data"}]',
        "error_code": "AccessDenied",
        "success": False,
        "user_agent": "aws-cli/2.15 curl",
    },
    {
        "event_id": "null",
        "event_time": datetime(2025, 12, 31),
        "event_name": "ConsoleLogin",
        "account": "111122223333",
        "request_parameters": '{"x-amz-acl": "public-read"}',
        "response_elements": r'{"key": "\u003csensitiveDataRemoved\u003E", "at": "a\/b", "to": "x\u003d1\u0026y\u003dit\u0027s"}',  # noqa: E501
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Callable[..., set[str]]:
    """Ids of the rows above that a query finds."""
    connection = duckdb.connect()
    full = [{"date": row["event_time"].date(), "source_type": "aws-cloudtrail", **row} for row in ROWS]
    connection.register("events", pa.Table.from_pylist(full, schema=EVENTS))

    def ids(query: str) -> set[str]:
        asked = terms(query, now=NOW)
        rows = connection.execute(f"SELECT event_id, date, account FROM events WHERE {asked.where}", dict(asked.params))
        found = rows.fetchall()
        within = asked.within
        assert [day for _, day, _ in found if not (within.first or day) <= day <= (within.last or day)] == []
        assert within.accounts is None or {account for *_, account in found} <= set(within.accounts)
        return {row[0] for row in found}

    return ids


BOTH, ALL = {"create", "delete"}, {"create", "delete", "null"}


@pytest.mark.parametrize(
    "query",
    [
        '"<sensitiveDataRemoved>"',
        "<sensitivedata*>",
        '"a/b"',
        '"x=1&y=it\'s"',
        'response_elements:"a/b"',
        '"at\\": \\"a/b\\""',
    ],
)
def test_text_is_found_however_json_spells_it(found: Callable[..., set[str]], query: str) -> None:
    assert found(query) == {"null"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ALL),
        ("source_type:aws-cloudtrail event_name:CreateSecurityGroup", {"create"}),
        ("eventName:createsecuritygroup", {"create"}),
        ("EVENT_NAME:*SecurityGroup", BOTH),
        ('event_name:"*SecurityGroup"', set()),
        ("name:Create* OR name:console*", {"create", "null"}),
        ("(name:Create* OR name:Delete*) account:111122223333", {"delete"}),
        ("name:Create* OR name:Delete* account:111122223333", BOTH),
        ("-name:Create*", {"delete", "null"}),
        ("NOT name:Create* NOT name:ConsoleLogin", {"delete"}),
        ("NOT (name:Create* OR name:ConsoleLogin)", {"delete"}),
        ("-error_code:AccessDenied", {"create", "null"}),
        ("error_code:*", {"delete"}),
        ("-error_code:*", {"create", "null"}),
        ("success:false", {"delete"}),
        ("-success:false", {"create", "null"}),
        ("mfa_authenticated:no", {"create"}),
        ("account:012345678901", {"create"}),
        ("account:12345678901", set()),
        ("account:0123*", {"create"}),
        ("region:us-*", {"delete"}),
        ("awsRegion:EU-WEST-1", {"create"}),
        ("user:alex", {"create"}),
        ("user:*deploy", {"create"}),
        ("-user:alex", {"delete", "null"}),
        ("ip:2001:db8::1", {"create"}),
        ("2001:db8::1", {"create"}),
        ("user_name:100%_real", {"delete"}),
        ("user_name:100%_*", {"delete"}),
        ("user_name:1%", set()),
        ("request_parameters.groupName:web_1", {"create"}),
        ("requestParameters.groupName:WEB?1", set()),
        ("request_parameters.groupName:web*", BOTH),
        ("request_parameters.groupName:web.1", set()),
        ("request_parameters.port:443", {"create"}),
        ("request_parameters.items.port:22", {"create"}),
        ("resources.ARN:*data", {"delete"}),
        ("resources.ARN:arn:aws:s3:::logs", {"delete"}),
        ("-resources.ARN:*", {"create", "null"}),
        ("request_parameters.x-amz-acl:public-read", {"null"}),
        ("request_parameters:groupname", BOTH),
        ("request_parameters:web_1", {"create"}),
        ('request_parameters:"web_1"', {"create"}),
        ("web_1", {"create"}),
        ("café", {"create"}),
        ('"say \\"hi\\""', {"delete"}),
        ("accessdenied", {"delete"}),
        ('"2.15 curl"', {"delete"}),
        ("2.15 curl", {"delete"}),
        ("2.15*curl", {"delete"}),
        ("arn:aws:iam::012345678901:role/deploy", {"create"}),
        ("from:2026-01-31", {"delete"}),
        ("to:2026-01-30", {"create", "null"}),
        ("from:2026-01-30 to:2026-01-30", {"create"}),
        ("from:2026-01-30T09:00 to:2026-01-30T09:01", {"create"}),
        ("to:2026-01-30T09:00", {"null"}),
        ("from:2026-01-30T10:00+01:00 to:2026-01-30T09:30:00Z", {"create"}),
        ("from:1h", {"delete"}),
        ("from:30m", {"delete"}),
        ("from:29m", set()),
        ("from:2d", BOTH),
        ("from:yesterday to:yesterday", {"create"}),
        ("from:today", {"delete"}),
        ("-from:2026-01-01", {"null"}),
        ("date:2026-01-30", {"create"}),
        ("date:>2026-01-30", {"delete"}),
        ("date:<=2026-01-30", {"create", "null"}),
        ("date:2026-01-01..2026-01-30", {"create"}),
        ("event_time:2026-01-30", {"create"}),
        ("event_time:2026-01-30T09:00", {"create"}),
        ("event_time:2026-01-30T09:01", set()),
        ("event_time:2026-01-30T09:00:01", set()),
        ("event_time:>=2026-01-31T11:30", {"delete"}),
        ("event_time:>2026-01-31T11:30", set()),
        ("event_time:<2026-01-30T09:00", {"null"}),
        ("event_time:<=2026-01-30T09:00", {"create", "null"}),
        ("eventTime:>2h", {"delete"}),
        ("event_time:<2h", {"create", "null"}),
        ("event_time:2026-01-30..2026-01-31", BOTH),
        ("event_time:2026-01-30..2h", {"create"}),
        ("-event_time:>=2026-01-01", {"null"}),
        ("event_time:*", ALL),
        ("delivered_at:*", set()),
        ("delivered_at:>=2026-01-01", set()),
        ("event_time:>=2026-01-31 OR account:012345678901", BOTH),
        ("account:012345678901 account:111122223333", set()),
        ("request_parameters.port:>100", {"create"}),
        ("request_parameters.port:>443", set()),
        ("request_parameters.port:<=22", {"create"}),
        ("request_parameters.port:20..30", {"create"}),
        ("request_parameters.port:23..442", set()),
        ("request_parameters.groupName:>5", set()),
        ('request_parameters.groupName:">5"', set()),
        ("request_parameters.groupName:a..b", set()),
        ("date:2026-01-*", BOTH),
        ("name:Create* AND region:eu-west-1", {"create"}),
        ("event_id:create OR event_id:null", {"create", "null"}),
    ],
)  # fmt: skip
def test_query_finds(found: Callable[..., set[str]], query: str, expected: set[str]) -> None:
    assert found(query) == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("evnt_name:x", "There is no field 'evnt_name'. Did you mean event_name?"),
        ("eventname_:x", "There is no field 'eventname_'."),
        ("account.id:x", "account has no parts."),
        ("request_parameters.:x", "is not a path."),
        ("event_time:2h", "Write event_time:>=2h"),
        ("event_time:>=soon", "'soon' is not a time."),
        ("event_time:2026-01-01..", "'2026-01-01..' is not a time."),
        ("event_name:>=Create", "event_name is a text, it has no order."),
        ("user_agent:<script>", "Quote it if the value begins so"),
        ("event_name:", "event_name: has no value."),
        ("success:maybe", "success is true or false, not 'maybe'."),
        ("date:01.02.2026", "is not a time."),
        ("from:2026-13-01", "'2026-13-01' is not a time."),
        ("from:999999w", "is not a time."),
        ("(a", "A ( is not closed."),
        ("a)", "There is a ) without its (."),
        ("a OR", "A term is missing"),
        ("NOT", "A term is missing"),
        ('name:"x', "A quotation mark is not closed"),
        ('"', "A quotation mark is not closed"),
    ],
)
def test_wrong_query_is_told_with_the_next_step(query: str, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        terms(query, now=NOW)

    assert said in str(caught.value)
    assert caught.value.remedy


@given(st.text(max_size=60))
def test_any_text_is_answered_or_refused_in_our_words(found: Callable[..., set[str]], text: str) -> None:
    with suppress(KyraError):
        assert found(text) <= ALL


FIELDS = sorted({*EVENTS.names, "ip", "user", "requestParameters.x.y", "from", "to", "resources.ARN"} - {"event_time"})


JSON_PARTS = {column.name for column in EVENT_COLUMNS if column.role == "json"}
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


@given(st.sampled_from(FIELDS), VALUES)
def test_no_value_becomes_sql(field: str, value: str) -> None:
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    with suppress(QueryError):  # no time, no flag
        asked = terms(f"{field}:{quoted}", now=NOW)
        # In JSON some characters have several spellings, each looked for: how many follows from which there are.
        alike = re.sub(r"""[^"\\/<>&='\x7f-\U0010ffff]""", "x", quoted[1:-1]) if field in JSON_PARTS else "x"
        plain = terms(f'{field}:"{alike}"', now=NOW)
        assert asked.where == plain.where
        assert len(asked.params) == len(plain.params)


@given(VALUES)
def test_names_of_accounts_and_integrations_are_found_as_they_are(value: str) -> None:
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    asked = terms(f"account:{quoted} integration:{quoted}", now=NOW)

    assert list(asked.params.values()) == [value, value]
    assert asked.within.accounts == {value}


@given(st.text(max_size=40))
def test_a_place_is_read_or_refused(text: str) -> None:
    with suppress(QueryError):
        assert Place.parse(str(Place.parse(text))) == Place.parse(text)


def test_quotes_in_values_stay_values(found: Callable[..., set[str]]) -> None:
    for attack in ("x' OR 1=1 --", "'; DROP VIEW events; --", "$p0", "?"):
        assert found(f'event_name:"{attack}"') == set()
        assert found(f'"{attack}"') == set()


def test_moment_reads_what_people_write() -> None:
    assert moment("2026-01-31", now=NOW) == datetime(2026, 1, 31)
    assert moment("2026-01-31", now=NOW, end=True) == datetime(2026, 2, 1)
    assert moment("3d", now=NOW) == NOW - timedelta(days=3)
    assert moment("2W", now=NOW, end=True) == NOW - timedelta(weeks=2)
    assert moment("now", now=NOW) == NOW
    assert moment("today", now=NOW, end=True) == datetime(2026, 2, 1)
