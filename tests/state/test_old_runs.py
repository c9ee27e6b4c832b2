"""Old runs leave the state; what status, metrics, lineage and the next runs need of them does not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from kyra_etl.errors import StateError
from kyra_etl.metrics import collect
from kyra_etl.model import FileOutcome, Integration, RunReport
from kyra_etl.state import State, runs, tables
from kyra_etl.status import status
from tests.state.making import NOW, committing, file, observed, planned, sync

LATER = NOW + timedelta(days=60)
BEFORE = LATER - timedelta(days=35)


def ended(state: State, run_id: str, at: Any, how: Any = "succeeded", **counts: int) -> str:
    """The run ends a minute after it began."""
    at += timedelta(minutes=1)
    report = RunReport(run_id, "sync", "acme", at, at, lag_p50=60.0, **counts) if how == "succeeded" else None
    state.runs.finish(run_id, report, state=how, now=at)
    return run_id


def quiet(state: State, minutes: int, how: Any = "succeeded") -> str:
    """A run that found nothing."""
    at = NOW + timedelta(minutes=minutes)
    return ended(state, state.runs.start("sync", "acme", at), at, how)


def told(state: State) -> Sequence[object]:
    """What status and metrics say."""
    return [status(state, LATER), *collect(state, LATER)]


@pytest.fixture
def acme(state: State, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(runs, "KEPT", 3)
    monkeypatch.setattr("kyra_etl.status.KEPT", 3)
    monkeypatch.setattr("kyra_etl.metrics.RECENT_RUNS", 3)
    state.integrations.add(Integration("acme", "logs"), NOW)
    return state


def test_status_metrics_and_lineage_tell_the_same_without_old_runs(acme: State) -> None:
    batch = sync(acme, [file(1), file(2)])
    ended(acme, batch.run_id, NOW, loaded=2)
    quiet(acme, 5, "failed")
    for n in range(2, 9):
        quiet(acme, 5 * n)
    before, origin = told(acme), acme.ledger.origin(batch.batch_id)

    assert acme.runs.prune(BEFORE) == 5

    assert (told(acme), acme.ledger.origin(batch.batch_id)) == (before, origin)
    left = acme.runs.recent(limit=None)
    assert [run["state"] for run in left] == ["succeeded"] * 3 + ["failed", "succeeded"]
    assert (left[-1]["run_id"], left[-1]["report"]) == (batch.run_id, None)
    with acme._database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.run_files)) == 0
    assert acme.runs.prune(BEFORE) == 0


def test_runs_are_counted_once_for_ever_however_they_ended(acme: State) -> None:
    def counted() -> dict[str, int]:
        return {row["state"]: row["runs"] for row in acme.figures.runs()}

    for n in range(4):
        quiet(acme, n)
    quiet(acme, 5, "skipped")
    dead = acme.runs.start("sync", "acme", NOW)
    assert counted() == {"succeeded": 4, "skipped": 1}
    acme.runs.lost([dead], "killed", NOW)
    acme.runs.lost([dead], "killed", NOW)
    assert counted() == {"succeeded": 4, "skipped": 1, "failed": 1}

    acme.runs.prune(LATER)
    assert counted() == {"succeeded": 4, "skipped": 1, "failed": 1}


def test_runs_that_go_on_or_left_something_undone_stay_whole(acme: State) -> None:
    backfill = acme.runs.start("backfill", "acme", NOW)
    acme.ledger.observe(backfill, "acme", "logs", [file(1), file(2)], "listed", NOW)
    batch = planned(acme, backfill)
    bad, good = (entry.id for entry in batch.entries)
    acme.ledger.commit(committing(acme, batch, [FileOutcome(bad, "quarantined", reason="timeout")]), NOW)
    ended(acme, backfill, NOW)
    going_on = observed(acme, [file(3)])
    for n in range(1, 9):
        quiet(acme, n)

    acme.runs.prune(BEFORE)

    assert {backfill, going_on} <= {run["run_id"] for run in acme.runs.recent(limit=None)}
    run_id = acme.runs.start("sync", "acme", LATER)
    assert acme.ledger.carry(run_id, "acme", LATER) == 3
    waiting = acme.ledger.waiting(run_id)
    assert sorted(waiting.historical) == sorted([bad, good])  # what a backfill found is no news, however late
    assert len(waiting.ids) == 1


def test_a_pruning_that_is_killed_goes_on_where_it_stopped(acme: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    batches = []
    for n in range(4):
        at = NOW + timedelta(minutes=n)
        batches.append(sync(acme, [file(10 * n + m) for m in range(5)], at))
        ended(acme, batches[-1].run_id, at, loaded=5)
    for n in range(5, 9):
        quiet(acme, n)
    before, origins = told(acme), [acme.ledger.origin(batch.batch_id) for batch in batches]
    steps = iter(range(3))

    def dying() -> None:
        if next(steps, None) is None:
            raise StateError("killed", "")

    with pytest.raises(StateError):
        acme.runs.prune(BEFORE, dying)
    assert told(acme) == before

    assert acme.runs.prune(BEFORE) == 5
    assert told(acme) == before
    assert [acme.ledger.origin(batch.batch_id) for batch in batches] == origins
