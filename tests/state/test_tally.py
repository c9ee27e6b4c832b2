"""Numbers that reconcile, whatever happens in whatever order."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyra_etl.errors import CommitRefused, VersionMismatch
from kyra_etl.model import Batch, Commit, FileOutcome, Folder, Window
from kyra_etl.state import State
from tests.state.making import DAY, NOW, committing, file, loaded, log_files, observed, planned, sync

LATER = NOW + timedelta(minutes=5)


def test_what_status_and_costs_ask_is_counted(state: State) -> None:
    batch = planned(state, observed(state, [file(n) for n in range(5)]), n=4)
    ids = [entry.id for entry in batch.entries]
    outcomes = [
        loaded(ids[0], records=10, events=6, duplicates=4, malformed=0),
        loaded(ids[1], first_event_at=NOW - timedelta(days=9), last_event_at=NOW - timedelta(days=8)),
        FileOutcome(ids[2], "quarantined", reason="kms_denied", detail="the key"),
        FileOutcome(ids[3], "quarantined", reason="truncated", detail="cut"),
    ]
    commit = committing(state, batch, outcomes)
    seen = replace(commit.data_files[0], kind="activity", path="a", staged_path="b")
    state.ledger.commit(replace(commit, data_files=(*commit.data_files, seen)), NOW)
    ledger = state.ledger

    states = {"pending": 1, "planned": 0, "loaded": 2, "quarantined": 2, "gone": 0}
    assert ledger.states("acme", "logs") == states
    assert ledger.states("acme", "hours") == dict.fromkeys(states, 0)
    today = Window(NOW - timedelta(days=1), NOW + timedelta(days=1))
    assert ledger.volume("acme", "logs", today) == {"files": 1, "bytes": 100, "records": 10, "duplicates": 4}
    assert ledger.volume("acme", "hours", today) == {"files": 0, "bytes": 0, "records": 0, "duplicates": 0}
    assert ledger.quarantine("acme", NOW) == [
        {"reason": "kms_denied", "files": 1, "recent": 1, "detail": "the key"},
        {"reason": "truncated", "files": 1, "recent": 1, "detail": "cut"},
    ]
    assert [row["recent"] for row in ledger.quarantine("acme", LATER)] == [0, 0]
    ledger.save_listing("acme", [Folder("f/", "111111111111"), Folder("g/", "222222222222")], requests=0, day=DAY)
    assert (ledger.first_days("acme"), ledger.first_days("other")) == ({"111111111111": DAY}, {})
    (day,) = ledger.by_day(batch.run_id)
    assert (day["day"], day["loaded"], day["pending"], day["records"], day["events"]) == (DAY, 2, 1, 15, 9)


def test_every_term_is_counted(state: State) -> None:
    sync(state, [file(1)])
    run_id = state.runs.start("sync", "acme", NOW)
    raced = observed(state, [file(2)])
    observed(state, [file(8)])
    ledger = state.ledger
    ledger.observe(run_id, "acme", "logs", [file(3)], "hinted", NOW)
    seen = ledger.observe(run_id, "acme", "logs", [file(n) for n in (1, 2, 4, 5, 6, 7)], "listed", NOW)
    ledger.carry(run_id, "acme", NOW)
    entry = {e.file.key: e for e in ledger.workable(run_id)}
    other = ledger.plan(
        raced, "acme", "logs", [entry[file(2).key]], owner="b", lease_seconds=9, historical=False, now=NOW
    )
    assert other is not None
    ledger.commit(committing(state, other), NOW)
    batch = planned(state, run_id, n=4)  # 3, 4, 5, 6; then 7 and 8 stay pending
    ids = [e.id for e in batch.entries]
    outcomes = [
        loaded(ids[0], records=10, events=4, duplicates=3, malformed=2, expired=1, conflicts=1),
        loaded(ids[1], last_event_at=NOW - timedelta(seconds=300)),
        FileOutcome(ids[2], "quarantined", reason="truncated"),
        FileOutcome(ids[3], "gone", reason="vanished"),
    ]
    ledger.commit(committing(state, batch, outcomes), NOW)

    tally = ledger.tally(run_id)

    assert (seen.already_loaded, seen.linked, seen.new) == (1, 5, 4)
    assert tally == {
        "hinted": 1,
        "carried": 1,
        "linked_listed": 5,
        "loaded": 2,
        "already_loaded": 1,
        "quarantined": 1,
        "gone": 1,
        "pending": 2,
        "records": 15,
        "events": 7,
        "duplicates": 4,
        "conflicts": 1,
        "malformed": 3,
        "expired": 1,
        "batches": 1,
        "quarantined_by_reason": {"truncated": 1},
        "lag_p50": 60.0,
        "lag_p95": 300.0,
        "lag_max": 300.0,
    }


def test_a_run_that_did_nothing_counts_zeros(state: State) -> None:
    tally = state.ledger.tally(state.runs.start("sync", "acme", NOW))

    assert {name: value for name, value in tally.items() if value} == {}
    assert (tally["records"], tally["lag_p50"], tally["quarantined_by_reason"]) == (0, None, {})


def test_an_integration_s_counts_are_what_its_rows_add_up_to(state: State) -> None:
    for n in range(3):
        sync(state, [file(10 * n + i) for i in range(3)], NOW + timedelta(minutes=n))
    observed(state, [file(90), file(91)])
    planned(state, observed(state, [file(92)]))
    sync_other = observed(state, [file(1)], integration="other")

    counts = state.ledger.counts("acme")
    rows = [row for row in log_files(state) if row["integration"] == "acme" and row["state"] == "loaded"]
    sums = {name: sum(row[name] for row in rows) for name in ("records", "events", "duplicates", "malformed")}

    assert counts == sums | {
        "pending": 2,
        "planned": 1,
        "loaded": 9,
        "quarantined": 0,
        "gone": 0,
        "bytes": sum(row["size"] for row in rows),
        "first_event_at": NOW - timedelta(seconds=90),
        "last_event_at": NOW - timedelta(seconds=60),
        "last_loaded_at": NOW + timedelta(minutes=2),
    }
    assert state.ledger.counts("other")["pending"] == state.ledger.tally(sync_other)["pending"] == 1
    assert state.ledger.counts("nobody")["loaded"] == 0


STEPS = st.one_of(
    st.tuples(st.just("list"), st.lists(st.integers(0, 9), max_size=6)),
    st.tuples(st.just("hint"), st.lists(st.integers(0, 9), max_size=3)),
    st.tuples(st.sampled_from(["start", "carry", "plan", "dying plan", "commit", "stale", "abandon", "take over"])),
    st.tuples(st.just("fail"), st.sampled_from(["quarantined", "gone", "pending"])),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=3, max_size=30))
def test_the_numbers_of_every_run_reconcile_after_any_story(state: State, steps: list[tuple[object, ...]]) -> None:
    story = _Story(state)
    for step in steps:
        story.take(str(step[0]), *step[1:])
    story.holds()


class _Story:
    """Runs over one integration, interleaved as no two real ones would be."""

    def __init__(self, state: State) -> None:
        self.state, self.ledger, self.name = state, state.ledger, uuid.uuid4().hex
        self.now = NOW
        self.runs: list[str] = []
        self.already: dict[str, int] = {}
        self.listed: dict[str, int] = {}
        self.batches: list[tuple[Batch, Commit]] = []
        self.run("start")

    def run(self, _: str) -> None:
        self.runs.append(self.state.runs.start("sync", self.name, self.now))
        self.already[self.runs[-1]] = self.listed[self.runs[-1]] = 0

    def take(self, what: str, *more: object) -> None:
        self.now += timedelta(minutes=3)
        steps: dict[str, Callable[..., None]] = {
            "start": lambda: self.run(""),
            "list": lambda numbers: self.observe(numbers, "listed"),
            "hint": lambda numbers: self.observe(numbers, "hinted"),
            "carry": lambda: (self.ledger.carry(self.runs[-1], self.name, self.now), None)[1],
            "plan": lambda: self.plan(60),
            "dying plan": lambda: self.plan(-1),
            "commit": lambda: self.commit("loaded"),
            "fail": self.commit,
            "stale": self.stale,
            "abandon": self.abandon,
            "take over": self.take_over,
        }
        steps[what](*more)

    def observe(self, numbers: Sequence[int], how: str) -> None:
        run_id, files = self.runs[-1], [file(n) for n in numbers]
        seen = self.ledger.observe(run_id, self.name, "logs", files, how, self.now)  # type: ignore[arg-type]
        assert seen.already_loaded + seen.linked + seen.repeated == len(files)
        self.already[run_id] += seen.already_loaded
        if how == "listed":
            self.listed[run_id] += seen.already_loaded + seen.linked
        else:
            self.listed[run_id] += seen.already_loaded

    def plan(self, lease: int) -> None:
        run_id = self.runs[-1]
        entries = self.ledger.workable(run_id, self.now)[:4]
        options = {"owner": "me", "lease_seconds": lease, "historical": False, "now": self.now}
        batch = self.ledger.plan(run_id, self.name, "logs", entries, **options)  # type: ignore[arg-type]
        if batch is not None:
            self.batches.append((batch, committing(self.state, batch)))

    def commit(self, outcome: str) -> None:
        """The latest batch, the first of its files ending as told."""
        if self.batches:
            batch, _ = self.batches[-1]
            first, *rest = batch.entries
            told = loaded(first.id) if outcome == "loaded" else FileOutcome(first.id, outcome, reason="timeout")  # type: ignore[arg-type]
            self.settle(committing(self.state, batch, [told, *(loaded(e.id) for e in rest)]))

    def stale(self) -> None:
        """The oldest batch, with what deduplication read back then, by whoever owned it back then."""
        if self.batches:
            self.settle(self.batches[0][1])

    def settle(self, commit: Commit) -> None:
        try:
            self.ledger.commit(commit, self.now)
        except (CommitRefused, VersionMismatch):
            return

    def abandon(self) -> None:
        if self.batches:
            self.ledger.abandon(self.batches[-1][0], "interrupted", self.now)

    def take_over(self) -> None:
        taken = self.ledger.take_over(self.runs[-1], self.name, owner="me", lease_seconds=60)
        self.batches += [(batch, committing(self.state, batch)) for batch in taken]

    def holds(self) -> None:
        tallies = [self.ledger.tally(run_id) for run_id in self.runs]
        for run_id, t in zip(self.runs, tallies, strict=True):
            ends = t["loaded"] + t["already_loaded"] + t["quarantined"] + t["gone"] + t["pending"]
            assert t["linked_listed"] + t["hinted"] + t["carried"] == ends
            assert self.listed[run_id] + t["hinted"] + t["carried"] == ends + self.already[run_id]
            assert t["records"] == t["events"] + t["duplicates"] + t["malformed"] + t["expired"]
        counts = self.ledger.counts(self.name)
        assert sum(t["loaded"] for t in tallies) == counts["loaded"]
        assert sum(t["events"] for t in tallies) == counts["events"] == 3 * counts["loaded"]
        rows = [row for row in log_files(self.state) if row["integration"] == self.name]
        assert len({(row["key"], row["etag"]) for row in rows}) == len(rows)
        live = {batch_id for batch_id, _ in self.ledger.live_batches()}
        assert all((row["state"] == "planned") == (row["batch_id"] in live) for row in rows)
