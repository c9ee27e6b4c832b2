"""Whatever is put in, what comes out is one line that names the thing and the next step, and the right exit code."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.cli.conftest import Kyra, put, record


def test_path_that_does_not_exist(kyra: Kyra, tmp_path: Path) -> None:
    ran = kyra("load", tmp_path / "nowhere")

    assert ran.code == 2
    assert "nowhere does not exist." in ran.error


def test_empty_folder(kyra: Kyra, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = kyra("load", tmp_path / "empty")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Nothing was loaded: there is no file in ")
    assert ran.out.count("\n") == 1


def test_folder_without_cloudtrail_files(kyra: Kyra, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    ran = kyra("load", tmp_path / "other", "--json")

    assert ran.code == 0
    assert (ran.json["files"], ran.json["ignored"], ran.json["loaded"]) == (1, 1, 0)
    assert "holds no CloudTrail log file (ignored: 1 other)." in ran.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.json.gz", gzip.compress(b'{"Records": []}' * 99, mtime=0)[:40], "truncated"),
        ("text.txt", b"hello", "not JSON"),
        ("renamed.json", b'{"awsAccountId": "012345678901", "digestStartTime": "x", "logFiles": []}', "digest"),
    ],
)
def test_file_that_is_no_log_file_is_quarantined(
    kyra: Kyra, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    ran = kyra("load", path)

    assert ran.code == 3
    assert ran.err.count("\n") == 1
    assert str(path) in ran.err
    assert said in ran.err
    assert "kyra quarantine list" in ran.out
    assert kyra("quarantine", "list", "--json").json[0]["key"] == str(path)


def test_empty_file_and_digest_are_ignored_and_named(kyra: Kyra, tmp_path: Path) -> None:
    (tmp_path / "zero.json.gz").touch()
    assert "(ignored: 1 empty)" in kyra("load", tmp_path / "zero.json.gz").out

    (tmp_path / "1_CloudTrail-Digest_x.json").write_text('{"digestS3Bucket": "b"}')
    assert "(ignored: 1 digest)" in kyra("load", tmp_path / "1_CloudTrail-Digest_x.json").out


def test_malformed_date_in_a_record_is_counted(kyra: Kyra, tmp_path: Path) -> None:
    path = put(tmp_path, "a", record("e1", eventTime="yesterday, about noon"), record("e2"))
    ran = kyra("load", path, "--json")

    assert ran.code == 0
    assert (ran.json["records"], ran.json["events"], ran.json["malformed"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("backfill", "prod", "--from", "2026-02-30"), "'2026-02-30' is not a time."),
        (("backfill", "prod", "--from", "2026-02-03", "--to", "2026-02-01"), "The range from 2026-02-03 to 2026-02-01"),
        (("backfill", "prod", "--from", "2999-01-01", "--to", "2999-02-01"), "The range lies in the future."),
        (("backfill", "prod"), "backfill needs --from (or --from-history)."),
        (("detect", "--from", "soon"), "'soon' is not a time."),
        (("detect", "--dry-run"), "--dry-run needs a range of days."),
        (("search", "from:31.1.2026"), "'31.1.2026' is not a time."),
        (("sync", "prdo"), "There is no integration 'prdo'. Did you mean 'prod'?"),
        (("status", "nope"), "There is no integration 'nope'."),
        (("check", "nope"), "There is no integration 'nope'."),
        (("integration", "policy", "nope"), "There is no integration 'nope'."),
        (("integration", "add", "prod", "--bucket", "example-logs"), "The integration name 'prod' is taken."),
        (("integration", "add", "new", "--bucket", "s3://example-logs/x"), "Write --bucket example-logs --prefix x."),
        (("alerts", "show", "ffff"), "There is no alert 'ffff'."),
        (("alerts", "close", "ffff"), "Missing option '--reason'."),
        (("detections", "show", "cloudtrail_disable"), "Did you mean cloudtrail_disabled?"),
        (("detections", "new", "!!"), "makes no file name."),
        (("detections", "new", "Unusual Region"), "There is a detection unusual_region already."),
        (("quarantine", "retry", "nope"), "nope is not in quarantine."),
        (("sql", "SELEC 1"), 'syntax error at or near "SELEC".'),
        (("sql", "SELECT nonsense FROM events"), 'Referenced column "nonsense" not found'),
        (("sql", "SELECT * FROM evnts"), 'Did you mean "events"?'),
        (("search", "evnt_name:CreateUser"), "There is no field 'evnt_name'. Did you mean event_name?"),
        (("nonsense",), "No such command 'nonsense'."),
        (("status", "--nonsense"), "No such option: --nonsense."),
        (("alerts", "list", "--severity", "awful"), "'awful' is not one of"),
        (("load",), "Missing argument 'PATH'."),
    ],
)  # fmt: skip
def test_wrong_command_is_told_in_one_line(kyra: Kyra, bucket: Path, command: tuple[str, ...], said: str) -> None:
    assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
    ran = kyra(*command)

    assert ran.code == 2
    assert said in ran.error


def test_backfill_of_days_without_log_files_says_so(kyra: Kyra, bucket: Path) -> None:
    assert kyra("integration", "add", "prod", "--bucket", bucket.as_uri()).code == 0
    ran = kyra("backfill", "prod", "--from", "2020-01-01", "--to", "2020-01-03")
    planned = kyra("backfill", "prod", "--from", "2020-01-01", "--to", "2020-01-03", "--plan")

    assert ran.code == 0
    assert "no log file of these days" in ran.out + ran.err
    assert planned.out.startswith("0 log files to load")


def test_error_with_json_is_still_one_line_and_no_document(kyra: Kyra) -> None:
    ran = kyra("status", "nope", "--json")

    assert (ran.code, ran.out) == (2, "")
    assert "There is no integration 'nope'." in ran.error


def test_sync_without_integration_names_the_next_step(kyra: Kyra) -> None:
    assert "kyra integration add" in kyra("sync").error


def test_bucket_that_is_gone_fails_the_sync_and_shows_in_status(kyra: Kyra, tmp_path: Path) -> None:
    kyra("integration", "add", "prod", "--bucket", (tmp_path / "gone").as_uri())
    ran = kyra("sync", "prod")
    (status,) = kyra("status", "--json").json["integrations"]

    assert ran.code == 1
    assert "gone does not exist." in ran.error
    assert status["state"] == "Failed"
    assert "gone does not exist." in status["reason"]
    assert status["next_step"] == "kyra check prod"


def test_one_integration_that_fails_does_not_stop_the_others(kyra: Kyra, bucket: Path, tmp_path: Path) -> None:
    kyra("integration", "add", "bad", "--bucket", (tmp_path / "gone").as_uri())
    kyra("integration", "add", "good", "--bucket", bucket.as_uri())
    ran = kyra("sync", "--json")

    assert ran.code == 1
    assert ran.json["events"] == 3
    assert list(ran.json["failed"]) == ["bad"]
    assert "bad: " in ran.err


@pytest.mark.parametrize("text", ["nonsense", "-- ---\n-- title = \n-- ---\nSELECT 1", ""])
def test_broken_detection_is_named_and_the_others_run(kyra: Kyra, kyra_home: Path, bucket: Path, text: str) -> None:
    (kyra_home / "detections").mkdir()
    (kyra_home / "detections" / "broken.sql").write_text(text)

    for command, code in ((("detections", "lint", "broken"), 1), (("detections", "list"), 0), (("load", bucket), 0)):
        ran = kyra(*command)
        assert ran.code == code
        assert ran.err.count("\n") == 1
        assert "detections/broken.sql:" in ran.err
        assert "Traceback" not in ran.err
    assert kyra("detections", "show", "broken").code == 1
    assert kyra("alerts", "list", "--json").json[0]["detection"] == "cloudtrail_disabled"


def test_detection_whose_sql_fails_keeps_its_queue_and_shows_in_status(
    kyra: Kyra, kyra_home: Path, bucket: Path
) -> None:
    assert kyra("detections", "new", "Odd Call").code == 0
    path = kyra_home / "detections" / "own" / "odd_call.sql"
    path.write_text(
        path.read_text().replace("event_source =", "no_such_column =").replace("DeleteFlowLogs", "StopLogging")
    )
    ran = kyra("load", bucket)

    assert ran.code == 0
    assert "Detection odd_call failed: " in ran.err
    assert "no_such_column" in ran.err
    assert kyra("status", "--json").json["queue"]["failing"][0]["detection"] == "odd_call"
    assert kyra("detect").code == 1


def test_setting_nobody_knows(kyra: Kyra, kyra_home: Path) -> None:
    (kyra_home / "kyra.toml").write_text("sync_second = 5\n")

    assert "There is no setting sync_second" in (ran := kyra("status")).error
    assert "Did you mean sync_seconds?" in ran.err
    assert ran.code == 2


def test_unexpected_failure_is_one_line_without_traceback(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("boom\nsecond line")

    monkeypatch.setattr("kyra_etl.status.status", explode)
    ran = kyra("status")

    assert ran.code == 1
    assert "RuntimeError: boom" in ran.error
    assert "KYRA_DEBUG=1" in ran.err


def test_debug_adds_the_traceback(kyra: Kyra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KYRA_DEBUG", "1")

    assert "Traceback" in kyra("status", "nope").err


def test_lake_of_another_state_is_refused(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    assert kyra("load", bucket).code == 0
    for path in kyra_home.glob("state.db*"):
        path.unlink()
    ran = kyra("load", bucket)

    assert ran.code == 1
    assert "belongs to another state database" in ran.error


def test_broken_file_of_the_lake_is_an_error_of_the_lake(kyra: Kyra, kyra_home: Path, bucket: Path) -> None:
    kyra("load", bucket)
    for path in kyra_home.glob("lake/events/**/*.parquet"):
        path.write_bytes(b"nonsense")
    ran = kyra("sql", "SELECT * FROM events")
    assert ran.code == 1
    assert "The lake cannot be read" in ran.error

    for path in kyra_home.glob("lake/events/**/*.parquet"):
        path.unlink()
    ran = kyra("sql", "SELECT * FROM events")
    assert ran.code == 1
    assert "The lake cannot be read" in ran.error
