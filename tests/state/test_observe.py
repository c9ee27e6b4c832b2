"""Taking in listings: exact, once, cheap, and by many at once."""

from __future__ import annotations

from datetime import timedelta

from kyra_etl.model import FileOutcome
from kyra_etl.state import Observed, State
from tests.state import racing
from tests.state.conftest import Statements
from tests.state.making import NOW, committing, file, loaded, observed, planned, sync

LATER = NOW + timedelta(minutes=5)


def test_unknown_files_become_pending_with_everything_known_of_them(state: State) -> None:
    run_id = state.runs.start("sync", "acme", NOW)

    seen = state.ledger.observe(run_id, "acme", "logs", [file(2), file(1)], "listed", NOW)

    assert seen == Observed(already_loaded=0, linked=2, new=2)
    entries = state.ledger.workable(run_id)
    assert [entry.file for entry in entries] == [file(1), file(2)]
    assert {(e.integration, e.bucket, e.state, e.attempts) for e in entries} == {("acme", "logs", "pending", 0)}


def test_a_page_of_loaded_files_costs_two_queries_and_no_write(state: State, statements: Statements) -> None:
    files = [file(n) for n in range(1_000)]
    sync(state, files)
    run_id = state.runs.start("sync", "acme", LATER)
    statements()

    seen = state.ledger.observe(run_id, "acme", "logs", files, "listed", LATER)

    assert seen == Observed(already_loaded=1_000, linked=0, new=0)
    assert [statement.split()[0] for statement in statements() if statement != "BEGIN"] == ["SELECT", "SELECT"]


def test_a_page_of_new_files_costs_a_handful_of_statements(state: State, statements: Statements) -> None:
    run_id = state.runs.start("sync", "acme", LATER)
    statements()

    state.ledger.observe(run_id, "acme", "logs", [file(n) for n in range(1_000)], "listed", LATER)

    assert len(statements()) <= 10


def test_known_means_the_exact_integration_bucket_key_and_etag(state: State) -> None:
    sync(state, [file(1)])
    run_id = state.runs.start("sync", "other", LATER)
    observe = state.ledger.observe

    assert observe(run_id, "acme", "logs", [file(1)], "listed", LATER).already_loaded == 1
    assert observe(run_id, "acme", "logs", [file(1, etag="E")], "listed", LATER).new == 1
    assert observe(run_id, "acme", "logs", [file(1, key=file(1).key.upper())], "listed", LATER).new == 1
    assert observe(run_id, "acme", "logs2", [file(1)], "listed", LATER).new == 1
    assert observe(run_id, "other", "logs", [file(1)], "listed", LATER).new == 1


def test_an_overwritten_object_is_loaded_again_and_its_old_self_is_left_alone(state: State) -> None:
    old = sync(state, [file(1, etag="old")])
    run_id = observed(state, [file(1, etag="new")], LATER)

    (entry,) = state.ledger.workable(run_id)
    assert entry.file.etag == "new"
    assert state.ledger.counts("acme")["loaded"] == 1
    assert state.ledger.tally(old.run_id)["loaded"] == 1


def test_an_old_etag_that_is_still_pending_is_not_linked_with_the_new_one(state: State) -> None:
    observed(state, [file(1, etag="old")])
    run_id = observed(state, [file(1, etag="new")], LATER)

    assert [entry.file.etag for entry in state.ledger.workable(run_id)] == ["new"]


def test_a_file_counts_once_in_a_run_however_it_was_found(state: State) -> None:
    run_id = state.runs.start("sync", "acme", NOW)
    observe = state.ledger.observe

    assert observe(run_id, "acme", "logs", [file(1)], "hinted", NOW) == Observed(0, linked=1, new=1)
    page = [file(1), file(2), file(2)]
    assert observe(run_id, "acme", "logs", page, "listed", NOW) == Observed(0, linked=1, new=1, repeated=2)

    tally = state.ledger.tally(run_id)
    assert (tally["hinted"], tally["linked_listed"], tally["carried"], tally["pending"]) == (1, 1, 0, 2)


def test_a_file_this_run_loaded_is_not_counted_again_when_listed_again(state: State) -> None:
    batch = sync(state, [file(1)])

    seen = state.ledger.observe(batch.run_id, "acme", "logs", [file(1)], "listed", NOW)

    assert seen == Observed(already_loaded=0, linked=0, new=0, repeated=1)


def test_what_others_have_planned_is_linked_but_not_workable(state: State) -> None:
    planned(state, observed(state, [file(1)]))

    run_id = observed(state, [file(1)], LATER)

    assert state.ledger.workable(run_id) == []
    assert state.ledger.tally(run_id)["pending"] == 1


def test_a_file_found_gone_and_listed_again_is_pending_again(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]))
    gone = FileOutcome(batch.entries[0].id, "gone", reason="vanished", detail="deleted meanwhile")
    state.ledger.commit(committing(state, batch, [gone]), NOW)
    assert state.ledger.tally(batch.run_id)["gone"] == 1

    run_id = observed(state, [file(1)], LATER)

    (entry,) = state.ledger.workable(run_id)
    assert (entry.state, entry.reason) == ("pending", None)


def test_carry_links_what_was_left_and_only_that(state: State) -> None:
    observed(state, [file(1), file(2), file(3), file(4)])
    first = state.runs.start("sync", "acme", NOW)
    state.ledger.carry(first, "acme", NOW)
    loading, quarantining, orphan = (planned(state, first, n=1, lease=s) for s in (60, 60, -1))
    bad = FileOutcome(quarantining.entries[0].id, "quarantined", reason="truncated")
    state.ledger.commit(committing(state, loading, [loaded(loading.entries[0].id)]), NOW)
    state.ledger.commit(committing(state, quarantining, [bad]), NOW)
    other = observed(state, [file(9)], integration="other")

    early = state.runs.start("sync", "acme", LATER - timedelta(seconds=1))
    assert state.ledger.carry(early, "acme", LATER - timedelta(seconds=1)) == 2  # pending, and the orphan
    due = state.runs.start("sync", "acme", LATER)
    assert state.ledger.carry(due, "acme", LATER) == 3
    assert state.ledger.carry(due, "acme", LATER) == 0
    assert [e.state for e in state.ledger.workable(due)] == ["quarantined", "pending"]
    assert [b.batch_id for b in state.ledger.take_over(due, "acme", owner="me", lease_seconds=60)] == [orphan.batch_id]
    assert state.ledger.carry(state.runs.start("sync", "acme", LATER), "acme", LATER) == 2
    assert state.ledger.tally(other)["pending"] == 1


def test_a_run_takes_over_what_lies_in_its_own_bucket_alone(state: State) -> None:
    """Hours of LookupEvents are the same integration's, and no sync can read them."""
    observed(state, [file(1), file(2)])
    fetching = state.runs.start("backfill", "acme", NOW)
    state.ledger.observe(fetching, "acme", "hours", [file(3), file(4)], "listed", NOW)
    entries = state.ledger.workable(fetching)[:1]
    orphan = state.ledger.plan(
        fetching, "acme", "hours", entries, owner="me", lease_seconds=-1, historical=True, now=NOW
    )
    assert orphan is not None

    syncing = state.runs.start("sync", "acme", LATER)
    assert state.ledger.take_over(syncing, "acme", bucket="logs", owner="me", lease_seconds=60) == []
    assert state.ledger.carry(syncing, "acme", LATER, bucket="logs") == 2
    assert {e.bucket for e in state.ledger.workable(syncing)} == {"logs"}
    (taken,) = state.ledger.take_over(fetching, "acme", bucket="hours", owner="me", lease_seconds=60)
    assert taken.batch_id == orphan.batch_id


def test_a_run_never_retries_what_it_quarantined_itself(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]))
    bad = FileOutcome(batch.entries[0].id, "quarantined", reason="timeout")
    state.ledger.commit(committing(state, batch, [bad]), NOW)

    assert state.ledger.workable(batch.run_id) == []
    assert len(state.ledger.workable(batch.run_id, NOW + timedelta(minutes=5))) == 1


def test_work_comes_by_day_then_key(state: State) -> None:
    days = [None, NOW.date(), NOW.date() - timedelta(days=1)]
    run_id = observed(state, [file(n, day=day, key=f"{name}{n}") for n, day in enumerate(days) for name in "aB_"])

    assert [entry.file.key for entry in state.ledger.workable(run_id)] == (
        ["B0", "_0", "a0", "B2", "_2", "a2", "B1", "_1", "a1"]
    )


def test_quarantine_is_listed_and_retried_by_integration_and_key(state: State) -> None:
    for integration in ("acme", "other"):
        batch = planned(state, observed(state, [file(1), file(2)], integration=integration))
        bad = [FileOutcome(e.id, "quarantined", reason="not_json", permanent=True) for e in batch.entries]
        state.ledger.commit(committing(state, batch, bad), NOW)
    ledger = state.ledger

    assert [(e.file.key, e.reason, e.attempts) for e in ledger.quarantined("acme")] == (
        [(file(1).key, "not_json", 1), (file(2).key, "not_json", 1)]
    )
    assert ledger.retry("acme", [file(1).key, "no such key"], now=LATER) == 1
    assert [e.file.key for e in ledger.quarantined("acme")] == [file(2).key]
    assert ledger.retry(now=LATER) == 3
    assert ledger.quarantined() == []
    run_id = state.runs.start("sync", "acme", LATER)
    assert ledger.carry(run_id, "acme", LATER) == 2


def test_processes_that_sync_the_same_files_at_once_load_each_exactly_once(url: str) -> None:
    count = 600
    with racing.processes(4) as pool:
        outcomes = pool.map(racing.sync_everything, [(url, number, count) for number in range(4)], chunksize=1)

    assert sum(new for new, _, _ in outcomes) == count
    assert sum(committed for _, committed, _ in outcomes) == count
    with State.open(url) as state:
        counts = state.ledger.counts("acme")
        assert (counts["loaded"], counts["pending"], counts["planned"]) == (count, 0, 0)
        partition = ("111111111111", NOW.date())
        batches = len(state.ledger.data_files("events"))
        assert state.ledger.versions([partition]) == {partition: batches}
