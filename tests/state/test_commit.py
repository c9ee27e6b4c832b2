"""The commit: everything at once, or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from kyra_etl.errors import StateError, VersionMismatch
from kyra_etl.model import Commit, DataFile, FileOutcome
from kyra_etl.state import State
from kyra_etl.state.backoff import next_retry
from tests.state.conftest import Statements
from tests.state.making import DAY, NOW, committing, file, loaded, log_files, observed, planned, sync

LATER = NOW + timedelta(minutes=5)
HERE = ("111111111111", DAY)


def data(path: str, account: str | None = "111111111111", day: date | None = DAY, kind: str = "events") -> DataFile:
    return DataFile(kind, path, f"_staging/{path}", 7, 70, account, day, NOW, LATER)  # type: ignore[arg-type]


def test_every_outcome_lands_in_its_row(state: State) -> None:
    batch = planned(state, observed(state, [file(n) for n in range(4)]))
    ids = [e.id for e in batch.entries]
    outcomes = [
        loaded(ids[0], conflicts=1, expired=2, records=7),
        FileOutcome(ids[1], "quarantined", reason="truncated", detail="gzip ends early", permanent=True),
        FileOutcome(ids[2], "gone", reason="vanished", detail="deleted"),
        FileOutcome(ids[3], "pending"),
    ]

    state.ledger.commit(committing(state, batch, outcomes), LATER)

    rows = {row["id"]: row for row in log_files(state)}
    first = rows[ids[0]]
    assert (first["state"], first["run_id"], first["loaded_at"]) == ("loaded", batch.run_id, LATER)
    assert (first["batch_id"], first["sha256"], first["uncompressed"]) == (batch.batch_id, "s", 50)
    counts = [first[name] for name in ("records", "events", "duplicates", "conflicts", "malformed", "expired")]
    assert counts == [7, 3, 1, 1, 1, 2]
    (bad,) = state.ledger.quarantined()
    assert (bad.id, bad.reason, bad.detail, bad.attempts) == (ids[1], "truncated", "gzip ends early", 1)
    assert bad.next_retry_at == LATER + timedelta(days=1)
    assert (rows[ids[2]]["state"], rows[ids[2]]["reason"]) == ("gone", "vanished")
    assert (rows[ids[3]]["state"], rows[ids[3]]["batch_id"]) == ("pending", None)


def test_a_file_without_an_outcome_is_given_back_not_lost(state: State) -> None:
    batch = planned(state, observed(state, [file(1), file(2)]))

    state.ledger.commit(committing(state, batch, [loaded(batch.entries[0].id)]), NOW)

    assert [e.file for e in state.ledger.workable(batch.run_id)] == [file(2)]


def test_a_version_that_moved_commits_nothing_at_all(state: State) -> None:
    first = planned(state, observed(state, [file(1)]))
    second = planned(state, observed(state, [file(2)]))
    stale = committing(state, second)
    state.ledger.commit(committing(state, first), NOW)
    before = log_files(state)

    with pytest.raises(VersionMismatch, match=r"111111111111/2026-03-04 meanwhile.*deduplicate again"):
        state.ledger.commit(stale, NOW)

    assert log_files(state) == before
    assert state.ledger.versions([HERE]) == {HERE: 1}
    assert [f.path for f in state.ledger.data_files("events")] == [f"events/{stale_path(first.batch_id)}"]
    assert state.queue.depth() == 1
    assert (second.batch_id, 1) in state.ledger.live_batches()
    state.ledger.commit(committing(state, second), NOW)
    assert state.ledger.versions([HERE]) == {HERE: 2}


def stale_path(batch_id: str) -> str:
    return f"account=111111111111/date=2026-03-04/{batch_id}.parquet"


def test_one_moved_partition_among_many_is_enough(state: State) -> None:
    days = [DAY - timedelta(days=n) for n in range(600)]
    partitions = [("111111111111", day) for day in days]
    first = planned(state, observed(state, [file(1)]))
    state.ledger.commit(Commit(first, (loaded(first.entries[0].id),), (), dict.fromkeys(partitions, 0)), NOW)
    assert state.ledger.versions(partitions) == dict.fromkeys(partitions, 1)

    second = planned(state, observed(state, [file(2)]))
    wrong = dict.fromkeys(partitions, 1) | {("111111111111", days[300]): 0, ("222222222222", DAY): 0}
    with pytest.raises(VersionMismatch):
        state.ledger.commit(Commit(second, (loaded(second.entries[0].id),), (), wrong), NOW)

    assert state.ledger.versions([*partitions, ("222222222222", DAY)]) == (
        dict.fromkeys(partitions, 1) | {("222222222222", DAY): 0}
    )


def test_an_outcome_of_a_file_outside_the_batch_commits_nothing(state: State) -> None:
    other = planned(state, observed(state, [file(1)]))
    batch = planned(state, observed(state, [file(2)]))

    with pytest.raises(StateError, match="is not planned in batch"):
        state.ledger.commit(committing(state, batch, [loaded(other.entries[0].id)]), NOW)

    assert state.ledger.versions([HERE]) == {HERE: 0}


def test_counts_that_do_not_add_up_commit_nothing(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]))

    with pytest.raises(StateError, match="records"):
        state.ledger.commit(committing(state, batch, [loaded(batch.entries[0].id, records=99)]), NOW)

    assert state.ledger.counts("acme")["planned"] == 1


def test_a_large_commit_is_a_handful_of_statements(state: State, statements: Statements) -> None:
    batch = planned(state, observed(state, [file(n) for n in range(2_000)]))
    commit = committing(state, batch)
    statements()

    state.ledger.commit(commit, NOW)

    assert len(statements()) <= 12


def test_data_files_are_chosen_by_kind_account_date_and_batch(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]))
    files = (
        data("b", "111111111111", DAY),
        data("a", "222222222222", DAY),
        data("c", "111111111111", DAY - timedelta(days=1)),
        data("d", "111111111111", DAY, kind="activity"),
        data("e", None, None, kind="malformed"),
    )
    state.ledger.commit(Commit(batch, (loaded(batch.entries[0].id),), files, {}), NOW)
    second = sync(state, [file(2)])

    def paths(kind: str, **chosen: object) -> list[str]:
        return [f.path[:8] for f in state.ledger.data_files(kind, **chosen)]  # type: ignore[arg-type]

    assert paths("events") == ["a", "b", "c", "events/a"]
    assert paths("events", accounts=["222222222222"]) == ["a"]
    assert paths("events", accounts=[]) == []
    assert paths("events", first=DAY, accounts={"111111111111"}) == ["b", "events/a"]
    assert paths("events", last=DAY - timedelta(days=1)) == ["c"]
    assert paths("events", batch_ids=[second.batch_id]) == ["events/a"]
    assert paths("events", batch_ids=[f"no {n}" for n in range(900)] + [batch.batch_id]) == ["a", "b", "c"]
    assert paths("activity") == ["d"]
    (malformed,) = state.ledger.data_files("malformed")
    assert malformed == files[4]


def test_a_data_file_is_unpublished_until_it_is_said_to_be(state: State) -> None:
    sync(state, [file(1)])
    sync(state, [file(2)])
    one, two = state.ledger.unpublished()

    state.ledger.mark_published([one.path])
    state.ledger.mark_published([one.path, "no such path"])

    assert state.ledger.unpublished() == [two]
    assert replace(one, published=True) in state.ledger.data_files("events")


def test_a_planned_batch_has_no_data_files_and_no_versions(state: State) -> None:
    planned(state, observed(state, [file(1)]))

    assert state.ledger.data_files("events") == state.ledger.unpublished() == []
    assert state.ledger.versions([]) == {}


@pytest.mark.parametrize(
    ("reason", "permanent", "hours"),
    [
        ("timeout", False, [1 / 12, 1 / 6, 1 / 3, 2 / 3, 4 / 3, 8 / 3, 16 / 3, 32 / 3, 64 / 3, 24, 24]),
        ("not_json", True, [24, 48, 96, 168, 168]),
        ("access_denied", False, [0.25, 0.5, 1, 2, 4, 6, 6]),
        ("kms_denied", True, [0.25, 0.5, 1, 2, 4, 6, 6]),
        ("access", False, [0.25, 0.5]),
    ],
)
def test_the_next_try_comes_ever_later_and_is_never_given_up(reason: str, permanent: bool, hours: list[float]) -> None:
    waits = [next_retry(NOW, reason, n, permanent=permanent) - NOW for n in range(1, len(hours) + 1)]

    assert waits == [timedelta(hours=h) for h in hours]
    assert next_retry(NOW, reason, 10**6, permanent=permanent) <= NOW + timedelta(days=7)


def test_each_failed_attempt_counts_and_success_clears_the_reason(state: State) -> None:
    at, waited = NOW, []
    for attempt in range(1, 4):
        run_id = observed(state, [file(1)], at)
        batch = planned(state, run_id, at)
        bad = FileOutcome(batch.entries[0].id, "quarantined", reason="timeout", detail="x" * 5_000)
        state.ledger.commit(committing(state, batch, [bad]), at)
        (entry,) = state.ledger.quarantined()
        assert entry.attempts == attempt
        assert len(entry.detail or "") == 2_000
        assert entry.next_retry_at is not None
        waited.append((entry.next_retry_at - at).total_seconds() / 60)
        at = entry.next_retry_at
    assert waited == [5, 10, 20]

    sync(state, [file(1)], at)
    (row,) = log_files(state)
    assert (row["state"], row["reason"], row["next_retry_at"], row["attempts"]) == ("loaded", None, None, 3)
