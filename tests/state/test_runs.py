"""The diary of runs, the detection queue and the checkpoints."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kyra_etl.errors import StateError
from kyra_etl.model import LOGS, DetectReport, Folder, RunReport
from kyra_etl.state import QueueEntry, State
from tests.state.making import DAY, NOW, committing, file, observed, planned, sync

LATER = NOW + timedelta(minutes=5)


def test_run_ids_sort_by_time(state: State) -> None:
    ids = [state.runs.start("sync", "acme", NOW + timedelta(seconds=n)) for n in range(3)]

    assert ids == sorted(ids)
    assert re.fullmatch(r"20260304T120000-[0-9a-f]{8}", ids[0])


def test_a_finished_run_carries_its_report(state: State) -> None:
    run_id = state.runs.start("sync", "acme", NOW)
    (begun,) = state.runs.recent()
    report = RunReport(
        run_id,
        "sync",
        "acme",
        NOW,
        LATER,
        listed=3,
        ignored=3,
        ignored_by_kind={"digest": 3},
        lag_p50=60.5,
        detect=DetectReport(alerts_new=1, seconds={"root_login": 0.25}),
    )

    state.runs.finish(run_id, report, state="succeeded", error=None, now=LATER)

    (ended,) = state.runs.recent()
    assert (begun["state"], begun["report"], begun["finished_at"]) == ("running", None, None)
    assert (ended["state"], ended["started_at"], ended["finished_at"]) == ("succeeded", NOW, LATER)
    assert ended["report"]["started_at"] == "2026-03-04T12:00:00"
    assert (ended["report"]["listed"], ended["report"]["ignored_by_kind"]) == (3, {"digest": 3})
    assert ended["report"]["detect"]["seconds"] == {"root_login": 0.25}


def test_finishing_a_run_that_never_began_is_refused(state: State) -> None:
    with pytest.raises(StateError, match="is not in the state database"):
        state.runs.finish("20260304T120000-deadbeef", None, state="failed", error="no", now=NOW)


def test_recent_and_last_choose_by_integration_verb_and_state(state: State) -> None:
    ids = {}
    for n, (verb, integration, end) in enumerate(
        [
            ("sync", "acme", "succeeded"),
            ("sync", "acme", "failed"),
            ("backfill", "acme", "succeeded"),
            ("sync", "other", "skipped"),
        ]
    ):
        ids[n] = state.runs.start(verb, integration, NOW + timedelta(minutes=n))
        error = "it rained" if end == "failed" else None
        state.runs.finish(ids[n], None, state=end, error=error, now=LATER)  # type: ignore[arg-type]

    def recent(*chosen: object) -> list[str]:
        return [run["run_id"] for run in state.runs.recent(*chosen)]  # type: ignore[arg-type]

    def last(*chosen: object) -> str | None:
        run = state.runs.last(*chosen)  # type: ignore[arg-type]
        return None if run is None else run["run_id"]

    assert recent() == [ids[3], ids[2], ids[1], ids[0]]
    assert recent("acme", None, 2) == [ids[2], ids[1]]
    assert recent("acme", "sync") == [ids[1], ids[0]]
    assert (last("acme"), last("acme", "succeeded", "sync")) == (ids[2], ids[0])
    assert (last("acme", "failed"), last("other"), last("other", None)) == (ids[1], None, ids[3])
    assert state.runs.recent("acme", "sync")[0]["error"] == "it rained"


def test_a_commit_queues_its_detections_oldest_batch_first(state: State) -> None:
    old = planned(state, observed(state, [file(1)]), historical=True)
    state.ledger.commit(committing(state, old, detections=["root", "iam", "root"]), NOW)
    new = sync(state, [file(2)], LATER)

    assert state.queue.pending() == [
        QueueEntry(old.batch_id, "iam", 0, None, True, NOW),
        QueueEntry(old.batch_id, "root", 0, None, True, NOW),
        QueueEntry(new.batch_id, "d", 0, None, False, LATER),
    ]
    assert state.queue.depth() == 3


def test_a_failing_detection_stays_queued_and_is_told_of(state: State) -> None:
    first, second = sync(state, [file(1)]), sync(state, [file(2)], LATER)
    state.queue.fail([(first.batch_id, "d")], "no such column", NOW)
    state.queue.fail([(first.batch_id, "d")], "still no such column", LATER)
    state.queue.fail([(second.batch_id, "d")], "x" * 5_000, NOW)

    assert state.queue.failing() == [
        {"detection": "d", "batches": 2, "attempts": 2, "last_error": "still no such column", "failed_at": LATER}
    ]
    assert [(e.attempts, len(e.last_error or "")) for e in state.queue.pending()] == [(2, 20), (1, 2_000)]
    state.queue.clear([(first.batch_id, "d")])
    state.queue.clear([(first.batch_id, "d")])
    assert [entry.batch_id for entry in state.queue.pending()] == [second.batch_id]


def region(account: str, name: str, layout: str = "", **more: Any) -> Folder:
    return Folder(f"AWSLogs/{layout}{account}/CloudTrail/{name}/", account, name, LOGS, **more)


def test_folders_are_kept_and_what_a_listing_does_not_say_stays(state: State) -> None:
    ireland, virginia = region("222222222222", "eu-west-1"), region("111111111111", "us-east-1")
    account = Folder("AWSLogs/222222222222/", "222222222222", found_at=NOW)
    listed = replace(ireland, found_at=NOW, listed_at=NOW, swept_at=NOW, day=DAY, last_key="k1", day_folders=3)
    state.ledger.save_listing("acme", [account, listed, virginia], requests=7, day=DAY)
    state.ledger.save_listing("other", [virginia], requests=1, day=DAY)

    again = replace(ireland, found_at=LATER, listed_at=LATER, last_key="k2", day_folders=4)
    state.ledger.save_listing("acme", [again], requests=0, day=DAY)

    assert sorted(state.ledger.folders("acme"), key=lambda one: one.folder) == [
        virginia,
        account,
        replace(listed, listed_at=LATER, last_key="k2", day_folders=4),
    ]


def test_a_checkpoint_speaks_for_all_folders_of_an_account_s_region(state: State) -> None:
    own = region("1", "eu-west-1", listed_at=LATER, day=DAY, last_key="a", last_delivered_at=NOW, day_folders=3)
    organization = region("1", "eu-west-1", "o-x/", listed_at=NOW, day_folders=2, last_delivered_at=LATER)
    digests = replace(own, folder="AWSLogs/1/CloudTrail-Digest/eu-west-1/", kind="CloudTrail-Digest")
    state.ledger.save_listing("acme", [own, organization, digests, region("0", "us-east-1")], requests=0, day=DAY)

    empty, both = state.ledger.checkpoints("acme")

    assert (empty["account"], empty["region"], empty["listed_at"], empty["day_folders"]) == ("0", "us-east-1", None, 0)
    assert both == {
        "account": "1",
        "region": "eu-west-1",
        "day": DAY,
        "last_key": "a",
        "last_delivered_at": LATER,
        "listed_at": NOW,
        "day_folders": 5,
        "swept_at": None,
        "usual_pause": None,
    }


def test_list_requests_add_up_by_day_and_integration(state: State) -> None:
    tomorrow = DAY + timedelta(days=1)
    for integration, day, requests in [("acme", DAY, 3), ("acme", DAY, 4), ("acme", tomorrow, 1), ("other", DAY, 9)]:
        state.ledger.save_listing(integration, [], requests=requests, day=day)

    assert state.ledger.list_requests("acme", DAY) == {DAY: 7, tomorrow: 1}
    assert state.ledger.list_requests("acme", tomorrow) == {tomorrow: 1}


def test_deleting_every_checkpoint_loses_and_doubles_nothing(state: State) -> None:
    files = [file(1), file(2)]
    sync(state, files)
    state.ledger.save_listing("acme", [region("1", "eu-west-1", day=DAY, listed_at=NOW)], requests=0, day=DAY)
    before = state.ledger.counts("acme")

    assert state.ledger.delete_checkpoints("acme") == 1

    assert state.ledger.checkpoints("acme") == []
    run_id = state.runs.start("sync", "acme", LATER)
    seen = state.ledger.observe(run_id, "acme", "logs", [*files, file(3)], "listed", LATER)
    assert (seen.already_loaded, seen.new) == (2, 1)
    assert state.ledger.counts("acme") == before | {"pending": 1}
