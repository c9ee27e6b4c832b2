"""The story of `data/fixtures/bucket` over the whole road: folder → sync → lake → detections → alerts.

What must come out is counted here from the files with plain `json`, never with our own decoder.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import resources
from kyra_etl.detection.rule import Corpus
from kyra_etl.folder import FolderBucket
from kyra_etl.lake import open_lake
from kyra_etl.model import SEVERITIES, Alert, Integration, Limits, LogFile, RunReport, Window
from kyra_etl.state import State
from kyra_etl.sync import sync

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
BUCKET = FIXTURES / "bucket"
README = FIXTURES / "story" / "README.md"
NOON = datetime(2026, 3, 12, 12, 0)

NORTHWICK, PRODUCTION, ISLE_HOPPER = "111122223333", "444455556666", "012345678901"
RUNNER, MAINTENANCE, SUPPORT = "user/backup-runner", "role/data-maintenance", "role/isle-hopper-support"
MANIFESTS = "northwick-passenger-manifests"


@dataclass(frozen=True)
class Step:
    """What one step of the intruder must set off; `actor` and `target` are how the alert's end."""

    detection: str
    minute: str
    account: str
    region: str
    actor: str
    target: str
    severity: str
    source_ip: str = "198.51.100.77"


STEPS = (
    Step("access_key_leaked", "20260310T1345Z", ISLE_HOPPER, "us-east-1", RUNNER, "AKIAIOSFODNN7EXAMPLE", "critical"),
    Step("cloudtrail_disabled", "20260310T2205Z", ISLE_HOPPER, "eu-west-1", MAINTENANCE, "isle-hopper-trail", "high"),
    Step("iam_user_created", "20260310T2215Z", ISLE_HOPPER, "us-east-1", MAINTENANCE, "svc-backup-sync", "critical"),
    Step("mfa_disabled", "20260310T2355Z", ISLE_HOPPER, "us-east-1", MAINTENANCE, "tomas.reyes", "critical"),
    Step("unusual_region", "20260311T0020Z", ISLE_HOPPER, "sa-east-1", MAINTENANCE, "sa-east-1", "high"),
    Step("security_group_open", "20260311T0130Z", PRODUCTION, "eu-west-1", SUPPORT, "sg-0db0db0db0db0db01", "high"),
    Step("s3_bucket_public", "20260311T0140Z", PRODUCTION, "eu-west-1", SUPPORT, MANIFESTS, "critical"),
    Step("root_account_usage", "20260312T0135Z", NORTHWICK, "us-east-1", ":root", "root", "critical", "198.51.100.23"),
)  # fmt: skip
EIGHT = {step.detection for step in STEPS}
by_detection = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.detection)


def key_of(step: Step) -> str:
    """The one log file that holds a step, as the story's README names it."""
    [key] = re.findall(
        rf"^\d\. `(AWSLogs/.*_CloudTrail_{step.region}_{step.minute}_\w+\.json\.gz)`$", README.read_text(), re.M
    )
    return str(key)


# ── the bucket, as plain json sees it ──


def text_of(data: bytes) -> bytes | None:
    """What a file says, or None where it is cut short."""
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error):
        return None


def log_files() -> Iterator[Path]:
    """The objects that are log files, by their folder and size alone."""
    yield from (path for path in BUCKET.glob("AWSLogs/**/CloudTrail/*/2026/*/*/*.json*") if path.stat().st_size)


@pytest.fixture(scope="module")
def truth() -> Counter[str]:
    """How many log files, records, events … the bucket holds."""
    seen: dict[tuple[str, str], str] = {}
    counts: Counter[str] = Counter(objects=sum(path.is_file() for path in BUCKET.rglob("*")))
    for path in log_files():
        text = text_of(path.read_bytes())
        counts["broken" if text is None else "whole"] += 1
        for record in json.loads(text)["Records"] if text is not None else ():
            said = json.dumps(record)
            name = (record["recipientAccountId"], record["eventID"])
            if "eventTime" not in record:
                counts["malformed"] += 1
            elif name in seen:
                counts["duplicates"] += 1
                counts["conflicts"] += seen[name] != said
            else:
                counts["events"] += 1
                seen[name] = said
            counts["records"] += 1
    return counts


def test_the_bucket_is_what_the_story_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FIXTURES / "write_bucket.py", tmp_path], check=True, timeout=300)
    written, committed = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path, BUCKET)
    )
    assert written.keys() == committed.keys()
    # Compressors differ from machine to machine, so only what they hold is compared.
    assert [key for key in written if text_of(written[key]) != text_of(committed[key])] == []


def test_the_bucket_is_small_and_has_all_a_real_one_has(truth: Counter[str]) -> None:
    assert sum(path.stat().st_size for path in BUCKET.rglob("*") if path.is_file()) < 1_000_000
    assert 150 <= truth["objects"] <= 250
    assert (truth["broken"], truth["malformed"], truth["conflicts"]) == (1, 1, 0)
    assert truth["duplicates"] >= 40
    layouts = {path.relative_to(BUCKET).parts[1] for path in log_files()}
    assert layouts == {ISLE_HOPPER, "o-northwick01"}
    kinds = {path.name.split("_")[1] for path in BUCKET.rglob("*.json*")}
    assert kinds == {"CloudTrail", "CloudTrail-Digest", "CloudTrail-Insight"}


def test_three_accounts_work_in_two_regions_and_the_intruder_in_a_third() -> None:
    places = {(path.name[:12], path.name.split("_")[2]) for path in log_files()}
    assert {account for account, _ in places} == {NORTHWICK, PRODUCTION, ISLE_HOPPER}
    assert {region for _, region in places} == {"eu-west-1", "us-east-1", "sa-east-1"}
    [abroad] = [path for path in log_files() if "_sa-east-1_" in path.name]
    assert abroad.relative_to(BUCKET).as_posix() == key_of(STEPS[4])


def test_everyday_life_comes_close_to_each_detection() -> None:
    """Silence is worth something only among calls of the same names."""
    everyday = set()
    for path in log_files():
        for record in json.loads(text_of(path.read_bytes()) or '{"Records": []}')["Records"]:
            if record["sourceIPAddress"] not in {step.source_ip for step in STEPS}:
                everyday.add(record["eventName"])
    assert everyday >= {
        "AuthorizeSecurityGroupIngress",
        "ConsoleLogin",
        "EnableMFADevice",
        "GetCallerIdentity",
        "PutBucketPolicy",
        "PutBucketPublicAccessBlock",
        "RunInstances",
        "StartLogging",
        "UpdateTrail",
    }


# ── the road ──


class Without(FolderBucket):
    """The bucket as if some of its files had never been written.

    `brief` also leaves out what happens every day in the quiet weeks: the rest is history enough, and quicker.
    """

    def __init__(self, missing: Collection[str] = (), *, brief: bool = False) -> None:
        super().__init__(BUCKET, clock=lambda: NOON)
        self._missing = missing
        self._quiet = Window(datetime(2026, 2, 21), datetime(2026, 3, 8)).days() if brief else []

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        for file in super().files(prefix, start_after):
            daily = file.day in self._quiet and file.region == "eu-west-1" and file.account != NORTHWICK
            if file.key not in self._missing and not daily:
                yield file


def played(home: Path, *missing: str, runs: int = 1) -> tuple[list[Alert], list[RunReport]]:
    """Sync the bucket into an empty home; the alerts, and the runs' reports."""
    bucket = Without(missing, brief=bool(missing))
    with State.open(f"sqlite:///{home / 'state.db'}") as state:
        lake = open_lake(str(home / "lake"))
        lake.claim(state.id)
        integration = Integration("northwick", bucket.name)
        state.integrations.add(integration, NOON)
        corpus = Corpus.load([resources.detections_dir()])
        parts: dict[str, Any] = {"bucket": bucket, "lake": lake, "state": state, "corpus": corpus}
        reports = [sync(integration, **parts, limits=Limits(), clock=lambda: NOON) for _ in range(runs)]
        return state.alerts.list(), reports


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Alert], list[RunReport]]:
    return played(tmp_path_factory.mktemp("whole"), runs=2)


def test_the_run_counts_what_json_counts(whole: tuple[list[Alert], list[RunReport]], truth: Counter[str]) -> None:
    run = whole[1][0]
    assert (run.listed, run.loaded, run.quarantined) == (truth["objects"], truth["whole"], truth["broken"])
    assert run.ignored_by_kind == {"digest": 1, "insight": 1, "marker": 1}
    assert {name: getattr(run, name) for name in ("records", "events", "duplicates", "malformed", "conflicts")} == {
        name: truth[name] for name in ("records", "events", "duplicates", "malformed", "conflicts")
    }
    assert (run.detect.failed, run.imbalance()) == ((), None)


def test_a_second_run_finds_nothing_new(whole: tuple[list[Alert], list[RunReport]]) -> None:
    second = whole[1][1]
    assert second.already_loaded > 0
    assert (second.loaded, second.pending, second.records, second.alerts) == (0, 0, 0, 0)


@by_detection
def test_each_step_sets_off_its_detection(whole: tuple[list[Alert], list[RunReport]], step: Step) -> None:
    raised = [alert for alert in whole[0] if alert.detection == step.detection]
    assert {(alert.account, alert.region, alert.source_ip) for alert in raised} == {
        (step.account, step.region, step.source_ip)
    }
    worst = max(raised, key=lambda alert: SEVERITIES.index(alert.severity))
    assert worst.severity == step.severity
    assert (worst.actor or "").endswith(step.actor)
    assert (worst.target or "").endswith(step.target)
    records = json.loads(gzip.decompress((BUCKET / key_of(step)).read_bytes()))["Records"]
    assert set(worst.event_ids) & {record["eventID"] for record in records}


def test_everyday_life_stays_quiet(whole: tuple[list[Alert], list[RunReport]]) -> None:
    """Of the eight no alert, of all others none at medium or above, is about anybody but the intruder."""
    steps = {(step.detection, step.source_ip) for step in STEPS}
    alerts = {(alert.detection, alert.source_ip) for alert in whole[0]}
    assert {(detection, source) for detection, source in alerts if detection in EIGHT} == steps
    loud = [alert for alert in whole[0] if SEVERITIES.index(alert.severity) >= SEVERITIES.index("medium")]
    assert {alert.source_ip for alert in loud} == {source for _, source in steps}


@by_detection
def test_without_its_file_a_step_sets_off_nothing(tmp_path: Path, step: Step) -> None:
    alerts, _ = played(tmp_path, key_of(step))
    assert {alert.detection for alert in alerts} & EIGHT == EIGHT - {step.detection}
