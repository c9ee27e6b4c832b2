"""What was taken off the ledger is as loaded as before: no listing brings it back."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyra_etl.errors import StateError
from kyra_etl.model import LogFile
from kyra_etl.state import State, pruning
from tests.state.making import DAY, NOW, committing, file, loaded, log_files, observed, planned, sync

ACCOUNT = "111111111111"
LATER = NOW + timedelta(days=60)
EVERYTHING = {ACCOUNT: DAY + timedelta(days=1)}


def listed(state: State, files: list[LogFile], now: datetime = LATER) -> tuple[int, int]:
    """A later run lists these files: how many it takes for loaded, and how many for its business."""
    run_id = state.runs.start("sync", "acme", now)
    seen = state.ledger.observe(run_id, "acme", "logs", files, "listed", now)
    assert seen.already_loaded + seen.linked + seen.repeated == len(files)
    assert len(state.ledger.workable(run_id, now)) == seen.linked
    return seen.already_loaded, seen.linked


def test_files_taken_off_are_known_when_they_are_listed_again(state: State) -> None:
    files = [file(n) for n in range(5)]
    sync(state, files)
    before = state.ledger.counts("acme")

    assert state.ledger.prunable(EVERYTHING) == 5
    assert state.ledger.prune(EVERYTHING) == 5
    assert state.ledger.prune(EVERYTHING) == state.ledger.prunable(EVERYTHING) == 0

    assert log_files(state) == []
    assert state.ledger.counts("acme") == before
    assert listed(state, [*files, file(6)]) == (5, 1)
    assert state.ledger.loaded("acme", "logs", [*files, file(7)]) == {(one.key, one.etag) for one in files}


def test_another_etag_bucket_or_integration_is_another_file(state: State) -> None:
    sync(state, [file(1)])
    state.ledger.prune(EVERYTHING)

    assert listed(state, [file(1, etag="overwritten")]) == (0, 1)
    run_id = state.runs.start("sync", "acme", LATER)
    assert state.ledger.observe(run_id, "acme", "elsewhere", [file(1)], "listed", LATER).linked == 1
    assert state.ledger.observe(run_id, "other", "logs", [file(1)], "listed", LATER).linked == 1


def test_only_what_is_loaded_and_old_enough_goes(state: State) -> None:
    sync(state, [file(1), file(2, day=DAY + timedelta(days=1)), file(3, account="222222222222"), file(4, day=None)])
    observed(state, [file(5)])
    planned(state, observed(state, [file(6)]), n=1)

    assert state.ledger.prune(EVERYTHING) == 1
    assert state.ledger.prune({}) == 0
    assert len(log_files(state)) == 5
    assert state.ledger.prune({ACCOUNT: DAY + timedelta(days=2), "222222222222": date(2026, 1, 1)}) == 1


def test_every_account_of_a_large_organization_has_a_day_of_its_own(state: State) -> None:
    accounts = [f"{n:012}" for n in range(1_500)]
    sync(state, [file(n, account=accounts[n * 100]) for n in range(15)])
    before = {account: DAY + timedelta(days=n % 3 - 1) for n, account in enumerate(accounts)}

    assert state.ledger.prunable(before) == 5
    assert state.ledger.prune(before) == 5
    assert {int(row["account"]) % 3 for row in log_files(state)} == {0, 1}


def test_what_a_run_under_way_deals_with_stays_until_it_has_ended(state: State) -> None:
    run_id = observed(state, [file(1)])
    batch = planned(state, run_id)
    state.ledger.commit(committing(state, batch), NOW)
    sync(state, [file(2)])

    assert state.ledger.prunable(EVERYTHING) == 1
    assert state.ledger.prune(EVERYTHING) == 1
    assert state.ledger.tally(run_id)["loaded"] == 1

    state.runs.finish(run_id, None, state="succeeded", error=None, now=NOW)
    assert state.ledger.prune(EVERYTHING) == 1


def test_pages_add_up_and_each_is_whole_or_not_at_all(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PAGE", 3)
    files = [file(n) for n in range(8)]
    sync(state, files)

    def killed() -> None:
        raise StateError("killed", "")

    with pytest.raises(StateError):
        state.ledger.prune(EVERYTHING, killed)
    assert len(log_files(state)) == 5
    assert listed(state, files) == (8, 0)

    assert state.ledger.prune(EVERYTHING) == 5
    assert listed(state, files) == (8, 0)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.tuples(st.sets(st.integers(0, 30), max_size=8), st.integers(0, 4)), max_size=6))
def test_no_file_is_loaded_twice_whatever_is_pruned_when(state: State, rounds: list[tuple[set[int], int]]) -> None:
    bucket = f"logs-{state.now().timestamp()}"
    loads: list[str] = []
    for numbers, days in rounds:
        files = [file(n, day=DAY - timedelta(days=n % 4)) for n in sorted(numbers)]
        run_id = state.runs.start("sync", bucket, LATER)
        state.ledger.observe(run_id, bucket, "logs", files, "listed", LATER)
        if state.ledger.workable(run_id):
            batch = planned(state, run_id)
            loads += [entry.file.key for entry in batch.entries]
            state.ledger.commit(committing(state, batch, [loaded(entry.id) for entry in batch.entries]), LATER)
        state.runs.finish(run_id, None, state="succeeded", error=None, now=LATER)
        state.ledger.prune({ACCOUNT: DAY - timedelta(days=days - 1)})
    assert len(loads) == len(set(loads)) == len(set().union(*(numbers for numbers, _ in rounds)))
