"""Every verb: the keys of its JSON, what it shows, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import backfill, cli
from kyra_etl.errors import AccessError
from kyra_etl.folder import FolderBucket
from kyra_etl.model import LogFile
from kyra_etl.state import State
from tests import planted
from tests.cli.conftest import ACCOUNT, Kyra, put, record
from tests.refused import close_folder

SYNC_KEYS = {
    *("listed", "hinted", "carried", "loaded", "already_loaded", "ignored", "quarantined", "gone", "pending"),
    *("records", "events", "duplicates", "malformed", "expired", "alerts"),
}
LOAD_KEYS = {
    *("files", "loaded", "already_loaded", "ignored", "quarantined"),
    *("records", "events", "duplicates", "malformed", "alerts"),
}
BUILT_IN = {
    *("access_key_leaked", "cloudtrail_disabled", "iam_user_created", "mfa_disabled"),
    *("root_account_usage", "s3_bucket_public", "security_group_open", "unusual_region"),
}
ALERT_KEYS = {
    *("alert_id", "detection", "title", "severity", "attack", "attack_legacy", "account", "region", "actor"),
    *("source_ip", "target", "summary", "first_seen", "last_seen", "event_count", "event_ids", "status", "historical"),
}


@pytest.fixture
def synced(kyra: Kyra, bucket: Path) -> Kyra:
    assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
    assert kyra("sync", "prod").code == 0
    return kyra


# ── log files into the lake ──


def test_load_counts_and_loads_once(kyra: Kyra, bucket: Path) -> None:
    first = kyra("load", bucket, "--json")
    assert first.code == 0
    assert first.json.keys() >= LOAD_KEYS
    counts = {key: first.json[key] for key in LOAD_KEYS}
    assert counts == {
        "files": 2, "loaded": 2, "already_loaded": 0, "ignored": 0, "quarantined": 0,
        "records": 4, "events": 3, "duplicates": 1, "malformed": 0, "alerts": 1,
    }  # fmt: skip

    again = kyra("load", bucket, "--json").json
    assert (again["loaded"], again["already_loaded"], again["events"], again["alerts"]) == (0, 2, 0, 0)


def test_load_without_detections_leaves_no_alert(kyra: Kyra, bucket: Path) -> None:
    assert kyra("load", bucket, "--no-detect", "--json").json["alerts"] == 0
    assert kyra("alerts", "list", "--json").json == []


def test_load_tells_a_person_what_came_of_it(kyra: Kyra, bucket: Path) -> None:
    assert kyra("load", bucket).out.splitlines() == [
        "2 files loaded: 4 records, 3 new events, 1 duplicate.",
        "1 new alert: `kyra alerts list` shows them.",
    ]


def test_sync_reports_every_term(synced: Kyra, bucket: Path) -> None:
    report = synced("sync", "prod", "--json").json
    assert report.keys() >= SYNC_KEYS
    assert (report["listed"], report["already_loaded"], report["loaded"]) == (2, 2, 0)

    put(bucket, "0-older-by-name", record("e7"), day="2026/01/09")
    report = synced("sync", "--json").json
    assert (report["loaded"], report["events"]) == (1, 1)
    assert [run["integration"] for run in report["runs"]] == ["prod"]


def test_sync_of_all_sums_up(synced: Kyra, tmp_path: Path) -> None:
    put(tmp_path / "second", "x", record("s1"), record("s2"))
    synced("integration", "add", "second", "--bucket", (tmp_path / "second").as_uri())
    report = synced("sync", "--json").json

    assert (report["events"], report["already_loaded"]) == (2, 2)
    assert [run["integration"] for run in report["runs"]] == ["prod", "second"]


def test_paused_integration_is_left_out(synced: Kyra) -> None:
    assert synced("integration", "pause", "prod").code == 0
    ran = synced("sync", "prod")
    assert (ran.code, ran.out) == (0, "Nothing was done: the integration is paused.\n")
    assert synced("sync", "--json").json["runs"][0]["skipped"] == "the integration is paused"

    assert synced("integration", "resume", "prod", "--json").json == {"name": "prod", "paused": False}
    assert synced("sync", "prod", "--json").json["listed"] == 2


def test_backfill_says_beforehand_what_it_takes(synced: Kyra, bucket: Path) -> None:
    put(bucket, "old", record("e9"), day="2025/11/30")
    told = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30", "--plan", "--json").json
    said = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30", "--plan").out

    assert (told["files"], told["get_requests"], [day["files"] for day in told["days"]]) == (1, 1, [0, 1])
    assert said.splitlines()[0].split("  ")[0] == "day"
    assert "1 log file to load" in said
    assert synced("status", "--json").json["integrations"][0]["ledger"]["pending"] == 0


def test_backfill_of_days_without_log_files_says_so(synced: Kyra) -> None:
    ran = synced("backfill", "prod", "--from", "2024-01-01", "--to", "2024-01-02", "--account", ACCOUNT)

    assert ran.code == 0
    assert ran.out.count("0 log files loaded") == 2
    assert "There is no log file of these days and accounts in the bucket." in ran.err


def test_backfill_of_a_paused_integration_names_the_way_on(synced: Kyra) -> None:
    synced("integration", "pause", "prod")
    ran = synced("backfill", "prod", "--from", "2025-11-29")

    assert ran.code == 2
    assert "kyra integration resume prod" in ran.error


def test_backfill_that_is_paused_on_the_way_says_how_far_it_came(
    synced: Kyra, kyra_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_day = backfill._load_day

    def then_pause(*given: Any) -> Any:
        report = load_day(*given)
        with State.open(str(kyra_home / "state.db")) as state:
            state.integrations.pause("prod", True)
        return report

    monkeypatch.setattr(backfill, "_load_day", then_pause)
    ran = synced("backfill", "prod", "--from", "2026-01-10", "--to", "2026-01-12", "--json")

    assert (ran.code, [day["day"] for day in ran.json["days"]]) == (1, ["2026-01-10"])
    assert ran.err.splitlines()[-1] == (
        "prod was paused after 2026-01-10, 1 of 3 days."
        " Go on with: kyra integration resume prod, then the same backfill again."
    )


def test_backfill_reports_day_by_day(synced: Kyra, bucket: Path) -> None:
    put(bucket, "old", record("b1", eventTime="2025-11-30T10:00:00Z"), day="2025/11/30")
    report = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30", "--json").json

    assert report.keys() >= SYNC_KEYS
    assert [(day["day"], day["events"]) for day in report["days"]] == [("2025-11-29", 0), ("2025-11-30", 1)]
    assert report["events"] == 1
    again = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30")
    assert again.out.splitlines()[1] == "2025-11-30  0 log files loaded, 1 already loaded: 0 records, 0 new events."


def test_load_says_what_it_loaded_and_which_folder_it_could_not_look_into(
    kyra: Kyra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs" / "closed").mkdir(parents=True)
    (tmp_path / "logs" / "a.json").write_text(json.dumps({"Records": [record("a1")]}))
    close_folder("closed", monkeypatch)
    ran = kyra("load", tmp_path / "logs")

    assert ran.code == 1
    assert ran.out.startswith("1 file loaded")
    assert "closed cannot be listed: Permission denied. Check its permissions" in ran.err


def test_backfill_goes_on_past_a_refused_folder_and_ends_with_what_was_refused(
    synced: Kyra, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "refused", record("r1"), day="2025/11/29", region="eu-south-1")
    put(bucket, "old", record("b1", eventTime="2025-11-30T10:00:00Z"), day="2025/11/30")
    listing = FolderBucket.files

    def files(self: FolderBucket, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        if "eu-south-1" in prefix:
            raise AccessError(f"{prefix} may not be listed.", "Give yourself read permission.")
        yield from listing(self, prefix, start_after)

    monkeypatch.setattr(FolderBucket, "files", files)
    ran = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30")
    again = synced("backfill", "prod", "--from", "2025-11-29", "--to", "2025-11-30", "--json")

    assert (ran.code, again.code) == (1, 1)
    assert [line.partition("  ")[2].partition(":")[0] for line in ran.out.splitlines()] == [
        "0 log files loaded",
        "1 log file loaded",
    ]
    assert "eu-south-1/2025/11/29/ may not be listed." in ran.err
    assert again.json["already_loaded"] == 1


def test_detect_looks_back(synced: Kyra) -> None:
    dry = synced("detect", "--from", "2026-01-10", "--to", "2026-01-10", "--dry-run", "--json").json
    assert (dry["findings"], dry["alerts_new"], dry["alerts_updated"]) == (1, 0, 1)
    assert dry["days"]["2026-01-10"] == {"cloudtrail_disabled": {"findings": 1, "alerts": 1}}
    cost = dry["costs"]["cloudtrail_disabled"]
    assert (cost["alerts"], cost["alerts_a_day"]) == (1, 1.0)
    assert cost["rows"] >= 1
    assert cost["seconds"] > 0
    assert "alerts a day" in synced("detect", "--from", "2026-01-10", "--to", "2026-01-10", "--dry-run").out
    assert synced("detections", "show", "cloudtrail_disabled", "--json").json["seconds"] > 0

    assert synced("detect", "--json").json["findings"] == 0, "nothing waits"
    assert synced("detect", "--detection", "cloudtrail_disabled", "--json").json["findings"] == 1
    assert synced("detect", "--detection", "mfa_disabled").out.startswith("0 findings in 3 events: 0 new alerts")
    assert synced("detect", "--detection", "nonsense").code == 2


# ── alerts ──


def test_alerts_are_triaged(synced: Kyra) -> None:
    (alert,) = synced("alerts", "list", "--json").json
    assert alert.keys() >= ALERT_KEYS
    assert alert["event_ids"] == ["e2"]
    assert (alert["account"], alert["status"], alert["historical"]) == (ACCOUNT, "open", True)
    assert all(isinstance(technique, str) for technique in alert["attack"])
    short = alert["alert_id"][:6]

    shown = synced("alerts", "show", short)
    assert "Runbook" in shown.out
    assert "kyra search event_id:e2 --json" in shown.out
    assert synced("alerts", "show", short, "--json").json["events"][0]["event_id"] == "e2"

    assert synced("alerts", "ack", short, "--note", "Alex looks", "--json").json["status"] == "acknowledged"
    assert synced("alerts", "close", short, "--reason", "drill").out.endswith("is closed.\n")
    assert "status: acknowledged → closed (drill)" in synced("alerts", "show", short).out
    assert synced("alerts", "list", "--status", "open", "--json").json == []
    assert synced("alerts", "list", "--status", "closed", "--severity", alert["severity"], "--json").json[0] == {
        **alert, "status": "closed", "closed_reason": "drill",
    }  # fmt: skip
    assert "closed" in synced("alerts", "list").out
    assert synced("alerts", "ack", short).code == 2


def test_command_an_alert_suggests_finds_its_event(synced: Kyra) -> None:
    (alert,) = synced("alerts", "list", "--json").json

    assert [row["event_id"] for row in synced("search", f"event_id:{alert['event_ids'][0]}", "--json").json] == ["e2"]


# ── integrations ──

SECRETS = (planted.EXTERNAL_ID, planted.QUEUE_URL)
ROLE = "arn:aws:iam::111122223333:role/reader"


@pytest.mark.usefixtures("impatient")
def test_external_id_is_shown_by_policy_alone(kyra: Kyra) -> None:
    added = kyra(
        "integration", "add", "prod", "--bucket", "example-logs", "--role-arn", ROLE, "--external-id", SECRETS[0],
        "--queue-url", SECRETS[1], "--sns-topic-arn", "arn:aws:sns:eu-west-1:111122223333:topic", "--json",
    )  # fmt: skip
    assert added.json["account_id"] == "111122223333"
    asked = (("integration", "list"), ("integration", "show", "prod"), ("status",))
    others = [added, *(kyra(*command, *more) for command in asked for more in ((), ("--json",)))]
    others += [kyra("sql", f"SELECT * FROM {name}", "--json") for name in ("status", "accounts", "trails", "sync_runs")]
    for ran in others:
        assert not any(secret in ran.out + ran.err for secret in SECRETS)

    policy = kyra("integration", "policy", "prod", "--trusted", "444455556666", "--json").json
    condition = policy["documents"]["trust"]["Statement"][0]["Condition"]
    assert condition == {"StringEquals": {"sts:ExternalId": SECRETS[0]}}
    shown = kyra("integration", "policy", "prod", "--trusted", "444455556666", "--kms-key-arn", "arn:aws:kms:x:1:key/2")
    assert "aws iam create-role" in shown.out
    assert "arn:aws:kms:x:1:key/2" in shown.out


def test_check_of_a_folder(synced: Kyra) -> None:
    ran = synced("check", "prod", "--json")
    assert ran.code == 0
    assert {*ran.json["probes"][0]} == {"name", "passed", "detail", "remedy", "permission", "warning"}
    assert synced("integration", "show", "prod", "--json").json["last_check"]["probes"] == ran.json["probes"]


def test_check_that_fails_exits_1(kyra: Kyra, tmp_path: Path) -> None:
    kyra("integration", "add", "prod", "--bucket", (tmp_path / "gone").as_uri())
    ran = kyra("check", "prod")

    assert ran.code == 1
    assert "FAILED" in ran.out
    assert kyra("status", "--json").json["integrations"][0]["state"] == "Failed"


def test_removed_integration_leaves_its_events(synced: Kyra) -> None:
    assert synced("integration", "remove", "prod", "--json").json == {"removed": "prod"}
    assert synced("integration", "list", "--json").json == []
    assert synced("sql", "SELECT count(*) AS n FROM events", "--json").json == [{"n": 3}]


# ── detections ──


def test_detections_are_listed_and_shown(kyra: Kyra, kyra_home: Path) -> None:
    (kyra_home / "kyra.toml").write_text('[detections]\ndisable = ["unusual_region"]\n')
    corpus = {one["id"]: one for one in kyra("detections", "list", "--json").json}
    assert corpus.keys() >= BUILT_IN
    assert {*corpus["mfa_disabled"]} >= {"id", "title", "severity", "attack"}
    assert not corpus["unusual_region"]["enabled"]
    shown = kyra("detections", "show", "mfa_disabled").out
    assert corpus["mfa_disabled"]["title"] in shown
    assert "SELECT" in shown
    assert kyra("detections", "lint", "mfa_disabled").out == "1 detection: nothing to say.\n"


def test_new_detection_works_as_it_is_written(kyra: Kyra, kyra_home: Path) -> None:
    made = kyra("detections", "new", 'Flow "Logs" Deleted', "--group", "network", "--json").json
    assert made["id"] == "flow_logs_deleted"
    assert [Path(path).relative_to(kyra_home).as_posix() for path in made["files"]] == [
        "detections/network/flow_logs_deleted.sql",
        "detections/network/flow_logs_deleted.yaml",
    ]
    assert kyra("detections", "lint", "flow_logs_deleted").code == 0
    tested = kyra("detections", "test", "flow_logs_deleted", "--json")
    assert tested.code == 0
    assert [case["passed"] for case in tested.json["cases"]] == [True] * 3

    sql = Path(made["files"][0])
    sql.write_text(sql.read_text().replace("AND success", "AND NOT success"))
    broken = kyra("detections", "test", "flow_logs_deleted")
    assert broken.code == 1
    assert "flow_logs_deleted: it fires when it was done: expected 1 alerts, got 0" in broken.err
    assert kyra("detections", "new", "Flow Logs Deleted").code == 2


def test_detection_without_cases_fails_its_test(kyra: Kyra, kyra_home: Path) -> None:
    made = kyra("detections", "new", "Flow Logs Deleted", "--json").json
    Path(made["files"][1]).unlink()
    ran = kyra("detections", "test", "flow_logs_deleted")

    assert ran.code == 1
    assert "flow_logs_deleted has no cases." in ran.err


# ── quarantine ──


def test_quarantined_file_is_tried_again(synced: Kyra, bucket: Path) -> None:
    broken = put(bucket, "broken")
    broken.write_bytes(b"nonsense")
    assert synced("sync", "prod").code == 3
    (entry,) = synced("quarantine", "list", "--json").json
    assert entry.keys() >= {"integration", "bucket", "key", "reason", "detail", "attempts", "next_retry_at"}

    assert synced("quarantine", "retry", "broken.json.gz", "--json").json == {"retried": 1}
    assert synced("sync", "prod").code == 3
    assert "broken" in synced("quarantine", "list").out
    assert synced("quarantine", "list", "--integration", "local", "--json").json == []


# ── demo ──


def test_demo_shows_every_detection_and_leaves_the_home_alone(kyra: Kyra, kyra_home: Path) -> None:
    ran = kyra("demo", "--json")
    assert ran.code == 0
    assert {alert["detection"] for alert in ran.json["alerts"]} >= BUILT_IN
    assert ran.json["status"]["integrations"][0]["name"] == "demo"
    assert kyra("status", "--json").json["integrations"] == []
    assert (kyra_home / "demo" / "lake" / "events").is_dir()


def test_demo_begins_anew_but_never_in_a_folder_of_somebody_else(
    kyra: Kyra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "my tour"
    shown = kyra("demo", "--home", place)
    assert shown.code == 0
    assert max(map(len, shown.out.split("Try next")[0].splitlines())) <= 100
    (place / "stray").touch()
    assert kyra("demo", "--home", place).out.count("\n") == shown.out.count("\n")
    assert not (place / "stray").exists()

    # what it says to try next works, pasted
    import shlex

    commands = [shlex.split(line) for line in shown.out.split("Try next:")[1].splitlines() if line.strip()]
    for command in commands:
        variable, _, home = command[0].partition("=")
        monkeypatch.setenv(variable, home)
        assert cli.run(command[2:]) == 0, command

    strangers = tmp_path / "strangers"
    strangers.mkdir()
    (strangers / "precious").touch()
    ran = kyra("demo", "--home", strangers)
    assert ran.code == 2
    assert "is not empty, and no demo made it." in ran.error
    assert (strangers / "precious").exists()


# ── help ──


def test_help_names_the_verbs_there_are_and_no_others(kyra: Kyra) -> None:
    shown = kyra("--help")
    verbs = [line.split()[0] for line in shown.out.split("Commands:\n")[1].split("\n\n")[0].splitlines()]

    assert shown.code == 0
    assert verbs == [
        *("demo", "integration", "check", "load", "sync", "backfill", "detect", "alerts", "detections"),
        *("status", "costs", "search", "sql", "shell", "explain", "quarantine", "maintain", "metrics", "serve"),
    ]
    assert max(map(len, shown.out.splitlines())) <= 100


def test_every_verb_that_ends_takes_json(kyra: Kyra) -> None:
    import typer.main

    def leaves(group: object, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
        found = []
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            found += leaves(command, (*path, name)) if hasattr(command, "commands") else [((*path, name), command)]
        return found

    for path, command in leaves(typer.main.get_command(cli.app)):
        options = {option for one in command.params for option in one.opts}  # type: ignore[attr-defined]
        assert ("--json" in options) == (path not in {("shell",), ("serve",)}), path
        assert kyra(*path, "--help").code == 0


def test_version(kyra: Kyra) -> None:
    assert kyra("--version").out.startswith("kyra-etl ")


def test_json_is_one_document_even_when_there_is_talk(kyra: Kyra, bucket: Path) -> None:
    ran = kyra("load", bucket, bucket / "AWSLogs", "--json")

    assert json.loads(ran.out)["files"] == 2
    assert "loaded" in ran.err
