"""Planning and owning a batch: once, under a lease, never by two."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kyra_etl.errors import CommitRefused
from kyra_etl.state import State
from tests.state import racing
from tests.state.making import NOW, committing, file, observed, planned

LATER = NOW + timedelta(minutes=5)


def plan(state: State, run_id: str, entries: object, **more: object) -> object:
    options = {"owner": "me", "lease_seconds": 60, "historical": False, "now": NOW} | more
    return state.ledger.plan(run_id, "acme", "logs", entries, **options)  # type: ignore[arg-type]


def test_a_batch_has_exactly_the_files_planned_and_a_name_made_of_them(state: State) -> None:
    run_id = observed(state, [file(1), file(2), file(3)])

    batch = planned(state, run_id, n=2)

    assert batch.batch_id.startswith("20260304T120000-")
    assert len(batch.batch_id) == 28
    assert [(e.file, e.state) for e in batch.entries] == [(file(1), "planned"), (file(2), "planned")]
    assert (batch.attempt, batch.run_id, batch.historical) == (1, run_id, False)
    assert [e.file for e in state.ledger.workable(run_id)] == [file(3)]
    assert state.ledger.live_batches() == {(batch.batch_id, 1)}


def test_planning_twice_is_impossible(state: State) -> None:
    first, second = observed(state, [file(1), file(2)]), observed(state, [file(1), file(2), file(3)])
    ours, theirs = state.ledger.workable(first), state.ledger.workable(second)

    assert plan(state, first, ours) is not None
    batch = planned(state, second)
    assert [e.file for e in batch.entries] == [file(3)]
    assert plan(state, second, theirs) is None
    assert plan(state, first, ours) is None
    assert plan(state, first, []) is None


def test_files_of_another_integration_or_bucket_are_not_won(state: State) -> None:
    other = state.ledger.workable(observed(state, [file(1)], integration="other"))

    assert plan(state, observed(state, []), other) is None


def test_what_was_planned_and_loaded_cannot_be_planned_again(state: State) -> None:
    run_id = observed(state, [file(1)])
    entries = state.ledger.workable(run_id)
    state.ledger.commit(committing(state, planned(state, run_id)), NOW)

    assert plan(state, run_id, entries) is None


def test_an_abandoned_batch_gives_its_files_back_and_can_be_planned_in_the_same_second(state: State) -> None:
    run_id = observed(state, [file(1)])
    names = []
    for _ in range(3):
        batch = planned(state, run_id)
        names.append(batch.batch_id)
        state.ledger.abandon(batch, "interrupted", NOW)
        assert state.ledger.live_batches() == set()

    assert len(set(names)) == 3
    assert len(state.ledger.workable(run_id)) == 1
    with pytest.raises(CommitRefused):
        state.ledger.commit(committing(state, batch), NOW)


def test_take_over_waits_for_the_lease_then_voids_the_old_attempt(state: State) -> None:
    alive = planned(state, observed(state, [file(1)]), lease=60)
    dead = planned(state, observed(state, [file(2), file(3)]), lease=-1, historical=True)
    run_id = state.runs.start("sync", "acme", LATER)

    (taken,) = state.ledger.take_over(run_id, "acme", owner="me", lease_seconds=60)

    assert (taken.batch_id, taken.attempt, taken.run_id, taken.historical) == (dead.batch_id, 2, run_id, True)
    assert [e.id for e in taken.entries] == [e.id for e in dead.entries]
    assert state.ledger.live_batches() == {(alive.batch_id, 1), (dead.batch_id, 2)}
    assert state.ledger.tally(run_id)["carried"] == 2
    assert state.ledger.take_over(run_id, "acme", owner="me", lease_seconds=60) == []


def test_a_zombie_s_commit_heartbeat_and_abandon_do_nothing(state: State) -> None:
    zombie = planned(state, observed(state, [file(1)]), lease=-1)
    run_id = state.runs.start("sync", "acme", LATER)
    (taken,) = state.ledger.take_over(run_id, "acme", owner="me", lease_seconds=60)

    with pytest.raises(CommitRefused, match=f"Attempt 1 of batch {zombie.batch_id} no longer owns it"):
        state.ledger.commit(committing(state, zombie), NOW)
    assert not state.ledger.heartbeat(zombie, 60)
    state.ledger.abandon(zombie, "woke up", NOW)

    assert state.ledger.heartbeat(taken, 60)
    assert state.ledger.data_files("events") == []
    state.ledger.commit(committing(state, taken), NOW)
    with pytest.raises(CommitRefused):
        state.ledger.commit(committing(state, taken), NOW)
    assert not state.ledger.heartbeat(taken, 60)
    assert len(state.ledger.data_files("events")) == 1


def test_a_heartbeat_keeps_the_batch(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]), lease=-1)
    assert state.ledger.heartbeat(batch, 60)

    run_id = state.runs.start("sync", "acme", LATER)
    assert state.ledger.take_over(run_id, "acme", owner="me", lease_seconds=60) == []


def test_an_ended_lease_alone_does_not_refuse_the_commit(state: State) -> None:
    batch = planned(state, observed(state, [file(1)]), lease=-1)

    state.ledger.commit(committing(state, batch), NOW)

    assert state.ledger.counts("acme")["loaded"] == 1


def test_only_one_of_several_processes_takes_a_batch_over(state: State, url: str) -> None:
    for n in range(5):
        planned(state, observed(state, [file(n)]), lease=-1)

    with racing.processes(3) as pool:
        attempts = pool.map(racing.take_over, [(url, number) for number in range(6)], chunksize=1)

    assert sorted(attempt for some in attempts for attempt in some) == [2, 2, 2, 2, 2]


def test_history_is_told_apart(state: State) -> None:
    live = planned(state, observed(state, [file(1)]))
    old = planned(state, observed(state, [file(2)]), historical=True)

    assert state.ledger.historical_batches([live.batch_id, old.batch_id, "no such batch"]) == {old.batch_id}
    assert state.ledger.historical_batches([]) == set()


def test_a_batch_is_claimed_for_the_run_that_planned_it_and_the_one_before_is_void(state: State) -> None:
    run_id = observed(state, [file(1), file(2)])
    batch = planned(state, run_id, historical=True)

    claimed = state.ledger.claim(batch.batch_id, owner="worker", lease_seconds=60)

    assert claimed is not None
    assert (claimed.attempt, claimed.run_id, claimed.historical, claimed.entries) == (2, run_id, True, batch.entries)
    with pytest.raises(CommitRefused):
        state.ledger.commit(committing(state, batch), NOW)
    state.ledger.commit(committing(state, claimed), NOW)
    assert state.ledger.claim(batch.batch_id, owner="late", lease_seconds=60) is None
    assert state.ledger.tally(run_id)["loaded"] == 2


def test_only_what_nobody_claimed_is_kept_and_given_up(state: State) -> None:
    run_id = observed(state, [file(1), file(2)])
    first, second = planned(state, run_id, n=1, lease=0), planned(state, run_id, n=1, lease=0)
    state.ledger.claim(first.batch_id, owner="worker", lease_seconds=60)
    both = [first.batch_id, second.batch_id]

    state.ledger.keep(both, owner="me", lease_seconds=60)
    assert state.ledger.take_over(run_id, "acme", owner="you", lease_seconds=60) == []
    state.ledger.give_up(both, owner="me", reason="not handed out", now=NOW)

    assert state.ledger.live_batches() == {(first.batch_id, 2)}
    assert [entry.id for entry in state.ledger.workable(run_id)] == [second.entries[0].id]


def test_batches_of_a_running_backfill_are_not_taken_over_by_a_sync(state: State) -> None:
    backfill = state.runs.start("backfill", "acme", NOW)
    state.ledger.observe(backfill, "acme", "logs", [file(1)], "listed", NOW)
    batch = planned(state, backfill, lease=0)
    lease = state.leases.take("backfill:acme", "somebody", 60)
    assert lease is not None
    sync, again = state.runs.start("sync", "acme", NOW), state.runs.start("backfill", "acme", NOW)

    assert state.ledger.carry(sync, "acme", NOW) == 0
    assert state.ledger.take_over(sync, "acme", owner="you", lease_seconds=0) == []
    assert [one.batch_id for one in state.ledger.take_over(again, "acme", owner="you", lease_seconds=0)] == [
        batch.batch_id
    ]
    lease.release()
    assert state.ledger.carry(sync, "acme", NOW) == 1
    assert len(state.ledger.take_over(sync, "acme", owner="you", lease_seconds=0)) == 1
