"""The questions that have a name: each answers for the people, keys and resources of the demo's story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from kyra_etl import config, resources, wiring
from kyra_etl.errors import QueryError
from kyra_etl.lake import views
from kyra_etl.lake.query import Analyst
from kyra_etl.load import load
from tests.detection.making import record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def story(folder: Path) -> Iterator[Analyst]:
    """Questions to the demo's lake."""
    with wiring.open(config.load({"KYRA_HOME": str(folder)})) as parts:
        load([resources.demo_bucket()], **{**parts.for_run(), "corpus": None})
        yield wiring.analyst(parts)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analyst]:
    """A call from each of these addresses, which it has its name of; one names a resource."""
    home = tmp_path_factory.mktemp("seen")
    calls = [record(address, "10:00:00", f"e{n}", sourceIPAddress=address) for n, address in enumerate(SEEN)]
    text = json.dumps({"Records": calls}).replace('"eventID": "e4"', r'"eventID": "e4", "resources": ["web\/a\u0026b"]')
    (home / "1.json").write_text(text)
    with wiring.open(config.load({"KYRA_HOME": str(home)})) as parts:
        load([home / "1.json"], **{**parts.for_run(), "corpus": None})
        yield wiring.analyst(parts)


def rows(analyst: Analyst, sql: str, **params: Any) -> list[dict[str, Any]]:
    return analyst.query(sql, params).as_dicts()


def scalar(analyst: Analyst, sql: str, **params: Any) -> Any:
    return analyst.query(sql, params).rows[0][0]


ATTACKER = "backup-runner"


def test_who_did_takes_wildcards_and_days(story: Analyst) -> None:
    created = rows(story, "FROM who_did('Create*')")

    assert {row["event_name"][:6] for row in created} == {"Create"}
    assert created == sorted(created, key=lambda row: row["event_time"], reverse=True)
    assert scalar(story, "SELECT count(*) FROM who_did('createuser')") == 0
    of_a_day = rows(story, "FROM who_did('*', since := '2026-03-11', until := '2026-03-11')")
    assert {row["event_time"].date().isoformat() for row in of_a_day} == {"2026-03-11"}
    assert len(of_a_day) == scalar(story, "SELECT count(*) FROM events WHERE date = '2026-03-11'")


def test_people_are_named_by_arn_or_its_last_part(story: Analyst) -> None:
    short = rows(story, "FROM timeline_of($who)", who=ATTACKER)
    whole = rows(story, "FROM timeline_of($who)", who=f"arn:aws:iam::012345678901:user/{ATTACKER}")

    assert short == whole != []
    assert short == sorted(short, key=lambda row: row["event_time"])
    assert rows(story, "FROM timeline_of('runner')") == []
    assert len(short) == scalar(story, "SELECT sum(calls) FROM habits_of($who)", who=ATTACKER)


def test_sessions_say_who_assumed_the_role(story: Analyst) -> None:
    sessions = rows(story, "FROM sessions_of('data-maintenance')")

    assert sum(row["calls"] for row in sessions) == scalar(
        story, "SELECT count(*) FROM events WHERE principal LIKE '%role/data-maintenance' AND session_name IS NOT NULL"
    )
    assert any(row["assumed_by"] for row in sessions)
    assert all(row["first_seen"] <= row["last_seen"] for row in sessions)


def test_keys_addresses_and_networks(story: Analyst) -> None:
    key, calls = story.query(
        "SELECT user_access_key_id, count(*) n FROM events WHERE access_key_kind = 'AKIA' GROUP BY 1 ORDER BY n LIMIT 1"
    ).rows[0]
    assert sum(row["calls"] for row in rows(story, "FROM calls_of_key($key)", key=key)) == calls

    address, calls = story.query(
        "SELECT source_ip_address, count(*) n FROM events WHERE source_kind = 'public_v4' GROUP BY 1 ORDER BY n LIMIT 1"
    ).rows[0]
    assert scalar(story, "SELECT sum(calls) FROM calls_from($a)", a=address) == calls
    net = address.rpartition(".")[0] + ".0/24"
    in_net = scalar(story, "SELECT count(*) FROM events WHERE source_net = $net", net=net)
    assert scalar(story, "SELECT sum(calls) FROM calls_from($net)", net=net) == in_net


SEEN = (
    "2001:db8:1:2::3",
    "2001:DB8:1::",
    "2001:db8:ffff::1",
    "2001:db9::1",
    "::1",
    "198.51.100.7",
    "ec2.amazonaws.com",
)


@pytest.mark.parametrize(
    ("asked", "from_"),
    [
        ("2001:db8::/32", SEEN[:3]),
        ("2001:db8:1::/48", SEEN[:2]),
        ("2001:db8:1:2::/64", SEEN[:1]),
        ("2001:db8::/31", SEEN[:4]),
        ("2001:db8:1:2::3/128", SEEN[:1]),
        ("2001:0db8:0001:0002:0000:0000:0000:0003", SEEN[:1]),
        ("::/0", SEEN[:5]),
        ("::1", SEEN[4:5]),
        ("198.51.0.0/16", SEEN[5:6]),
        ("198.51.100.7", SEEN[5:6]),
        ("ec2.amazonaws.com", SEEN[6:]),
    ],
)
def test_networks_of_every_width_hold_their_addresses(seen: Analyst, asked: str, from_: tuple[str, ...]) -> None:
    assert {row["event_name"] for row in rows(seen, "FROM calls_from($a)", a=asked)} == set(from_)


@pytest.mark.parametrize("asked", ["198.51.100.0/33", "2001:db8::/129", "2001:db8::/x", "web/1"])
def test_what_is_no_network_is_refused(seen: Analyst, asked: str) -> None:
    with pytest.raises(QueryError, match=f"That is no network: {asked}. Write it as"):
        seen.query("FROM calls_from($a)", {"a": asked})


def test_resources_are_found_however_json_spells_them(seen: Analyst) -> None:
    assert [row["event_name"] for row in rows(seen, "FROM who_touched('web/a&b')")] == ["::1"]


def test_denials_and_resources(story: Analyst) -> None:
    assert scalar(story, "SELECT sum(calls) FROM denials()") == scalar(
        story, "SELECT count(*) FROM events WHERE denied"
    )
    touched = rows(story, "FROM who_touched('data-maintenance')")
    assert touched
    assert all(isinstance(row["event_time"], datetime) for row in touched)
    assert rows(story, "FROM who_touched('no such thing')") == []


def test_days_let_other_folders_be_passed_over(story: Analyst, folder: Path) -> None:
    files = [str(path) for path in folder.rglob("events/**/*.parquet")]
    with duckdb.connect() as connection:
        views.load_macros(connection, resources.views_dir())
        views.register(connection, events=files)
        plan = "EXPLAIN ANALYZE FROM who_did('*', since := '2026-03-11', until := '2026-03-11')"
        ((_, shown),) = connection.execute(plan).fetchall()

    of_the_day = [file for file in files if "date=2026-03-11" in file]
    assert f"Scanning Files: {len(of_the_day)}/{len(files)} " in shown


def test_every_macro_is_told(story: Analyst) -> None:
    macros = story.macros()

    assert len(macros) >= 8
    assert [macro.name for macro in macros if not macro.about or macro.params[-2:] != ["since", "until"]] == []
