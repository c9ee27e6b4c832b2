"""What must hold when everything has come to rest."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import layout, open_lake
from kyra_etl.load import load
from kyra_etl.model import Integration, Limits
from kyra_etl.state import LOCAL, State
from kyra_etl.sync import sync
from tests.simulation import truth
from tests.simulation.bucket import Delivery, SimBucket
from tests.simulation.process import Fate, Process
from tests.simulation.timeline import Timeline
from tests.state.making import log_files


def objection(state: Path, lake: Path, source: str, target: str) -> str | None:
    """Why a file may not be put where readers look, asked of SQLite itself; None if it may.

    It has to be live, and of the attempt or the swap that was committed; what it takes the place of has to be away.
    """
    with sqlite3.connect(f"file:{state}?mode=ro", uri=True) as connection:
        row = connection.execute(
            "SELECT f.swap_id FROM data_files f LEFT JOIN batches b USING (batch_id) LEFT JOIN swaps s USING (swap_id) "
            "WHERE f.path = ? AND f.staged_path = ? AND f.live AND 'committed' IN (b.state, s.state)",
            (target, source),
        ).fetchone()
        replaced = connection.execute(
            "SELECT path FROM data_files WHERE replaced_by IS NOT NULL AND replaced_by = ?", (row[0] if row else None,)
        ).fetchall()
    connection.close()
    if row is None:
        return "which nobody committed"
    left = [path for (path,) in replaced if (lake / path).exists()]
    return f"while {left[0]} is still there" if left else None


@dataclass
class Scene:
    """What is judged: all that was delivered, and where it should have gone."""

    state: State
    lake: Path
    folder: Path
    """Room for a lake to compare with."""
    deliveries: Sequence[Delivery]
    integrations: Sequence[Integration]
    prefix: str
    now: datetime
    corpus: Corpus | None = None
    copies: Path | None = None
    """Files that were loaded from a folder."""
    etag: Callable[[Delivery], str] = attrgetter("etag")
    """How the bucket named an object's version."""


@dataclass
class Verdict:
    events: int = 0
    alerts: int = 0
    lost: int = 0
    doubled: int = 0
    complaints: list[str] = field(default_factory=list)


def judge(scene: Scene) -> Verdict:
    """Compare the lake, the ledger and the alerts with the truth."""
    judgement = _Judgement(scene)
    judgement.pass_()
    return judgement.verdict


class _Judgement:
    def __init__(self, scene: Scene) -> None:
        self.scene, self.state = scene, scene.state
        self.verdict = Verdict()
        self.bodies = {(each.key, scene.etag(each)): each.body for each in scene.deliveries}
        self.rows = [row for row in log_files(self.state) if row["integration"] != LOCAL]
        self.loaded = [row for row in self.rows if row["state"] == "loaded"]

    def pass_(self) -> None:
        self.ledger_knows_every_object()
        self.lake_holds_the_truth()
        self.numbers_agree()
        self.nothing_is_left_behind()
        self.lake_tells_of_every_run()
        if self.scene.corpus is not None:
            self.alerts_are_those_of_one_pass()

    def expect(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.verdict.complaints.append(complaint)

    def ledger_knows_every_object(self) -> None:
        """Every good object that is in the bucket is loaded, every bad one quarantined."""
        end = self.scene.now
        known = {(row["integration"], row["key"], row["etag"]): row for row in self.rows}
        standing: dict[str, Delivery] = {}
        for each in sorted(self.scene.deliveries, key=lambda each: each.at):
            standing[each.key] = each
        for each in standing.values():
            if (each.gone is not None and each.gone <= end) or not _is_log(each, self.scene.prefix):
                continue
            for integration in self.scene.integrations:
                row = known.get((integration.name, each.key, self.scene.etag(each)))
                wanted = "quarantined" if truth.records_of(each.body) is None else "loaded"
                found = row["state"] if row is not None else "unknown"
                if found != wanted:
                    self.verdict.lost += 1
                    self.verdict.complaints.append(f"{integration.name}: {each.key} is {found}, not {wanted}")
        for row in self.rows:
            self.expect(row["state"] in ("loaded", "quarantined", "gone"), f"{row['key']} is still {row['state']}")

    def lake_holds_the_truth(self) -> None:
        verdict = self.verdict
        held = truth.events_in(self.scene.lake)
        told = truth.events_of((row["key"], self.bodies[row["key"], row["etag"]]) for row in self.loaded)
        lost, strange = told - held.keys(), held.keys() - told - self.copied()
        doubled = {event: times for event, times in held.items() if times > 1}
        verdict.events += len(held)
        verdict.lost += len(lost)
        verdict.doubled += sum(times - 1 for times in doubled.values())
        self.expect(not lost, f"{len(lost)} events are lost, such as {min(lost, default='')}")
        self.expect(not doubled, f"{len(doubled)} events are doubled, such as {min(doubled, default='')}")
        self.expect(not strange, f"{len(strange)} events come from nowhere, such as {min(strange, default='')}")
        malformed = truth.malformed_in(self.scene.lake)
        counted = sum(row["malformed"] for row in log_files(self.state))
        self.expect(malformed.total() == counted, f"{malformed.total()} malformed records are kept, {counted} counted")
        # An object overwritten between its listing and its reading is read as it is then.
        latest = {each.key: self.scene.etag(each) for each in sorted(self.scene.deliveries, key=lambda each: each.at)}
        loaded = [(row["key"], row["etag"]) for row in self.loaded]
        wanted = truth.malformed_of((key, self.bodies[key, etag]) for key, etag in loaded if latest[key] == etag)
        missing = wanted.keys() - malformed.keys()
        self.expect(not missing, f"malformed records are lost: {sorted(missing)}")

    def copied(self) -> set[truth.Event]:
        """What `load` brought in: copies of delivered files, under names that tell no account."""
        folder = self.scene.copies or Path("/nonexistent")
        return truth.events_of((file.name, file.read_bytes()) for file in folder.glob("*"))

    def numbers_agree(self) -> None:
        files = self.state.ledger.data_files("events")
        on_disk = sorted(str(path.relative_to(self.scene.lake)) for path in _parquet(self.scene.lake, "events"))
        self.expect(on_disk == [file.path for file in files], "the files of events/ are not those of the ledger")
        self.expect(all(file.published for file in files), "some committed files were never published")
        rows = sum(file.rows for file in files)
        counted = sum(row["events"] for row in log_files(self.state))
        self.expect(rows == counted, f"{rows} events are in the lake, {counted} were counted")
        rolled = truth.counted_in_activity(self.scene.lake)
        self.expect(rolled == rows, f"the roll-up speaks of {rolled} events, the lake holds {rows}")
        for row in self.loaded:
            parts = row["events"] + row["duplicates"] + row["malformed"] + row["expired"]
            self.expect(row["records"] == parts, f"{row['key']}: {row['records']} records, but {parts} accounted for")

    def nothing_is_left_behind(self) -> None:
        root = self.scene.lake
        staged = [path for path in _parquet(root, layout.STAGING_DIR) if layout.TABLES_STAGING not in path.parts]
        self.expect(not staged, f"staging holds {[str(path.relative_to(root)) for path in staged]}")
        self.expect(not self.state.ledger.unpublished(), "files wait for publishing")
        self.expect(not self.state.ledger.live_batches(), "batches are still planned")
        self.expect(self.state.queue.depth() == 0, f"{self.state.queue.failing() or 'detections'} still queued")

    def lake_tells_of_every_run(self) -> None:
        """Runs that ended, and what they loaded, are among the records of our own, whoever had to publish them."""
        ended = [run for run in self.state.runs.recent(limit=None) if run["state"] in ("succeeded", "failed")]
        missing = {run["run_id"] for run in ended} - _told(self.scene.lake, "sync_runs", "run_id")
        self.expect(not missing, f"runs are not published: {sorted(missing)}")
        missing = {row["key"] for row in self.loaded} - _told(self.scene.lake, "log_files", "key")
        self.expect(not missing, f"log files are not published: {sorted(missing)}")

    def alerts_are_those_of_one_pass(self) -> None:
        """Sync what was loaded once more, undisturbed, into a lake of its own, and compare the alerts."""
        scene = self.scene
        assert scene.corpus is not None
        folder = scene.folder / "undisturbed"
        folder.mkdir()
        bodies = {
            row["key"].replace(".json", f"-{row['etag']}.json"): self.bodies[row["key"], row["etag"]]
            for row in self.loaded
        }
        with State.open(f"sqlite:///{folder}/state.db") as state:
            made: dict[str, Any] = {
                "lake": open_lake(str(folder / "lake")),
                "state": state,
                "corpus": scene.corpus,
                "limits": Limits(),
                "clock": lambda: scene.now,
            }
            sync(replace(scene.integrations[0], name="undisturbed"), bucket=_standing(bodies, scene.now), **made)
            if scene.copies is not None and scene.copies.is_dir():
                load([scene.copies], **made)
            wanted = _alerts(state)
        found = _alerts(self.state)
        self.verdict.alerts = len(found)
        first_seen = {each.id for each in scene.corpus.detections if each.baseline}
        contradicted = self.contradicted()
        for key in sorted(wanted.keys() | found.keys()):
            _, _, event_ids, _ = (wanted.get(key) or found.get(key)) or ("", "", [], None)
            if not contradicted.isdisjoint(event_ids):
                continue  # of two contents under one id, a finding speaks of whichever came last
            if key[0] in first_seen:
                kept = key in found or self.was_judged_without_its_past(wanted[key])
                self.expect(kept, f"the alert {key} is lost")
            else:
                self.expect(wanted.get(key) == found.get(key), f"alert {key}: {found.get(key)}, not {wanted.get(key)}")

    def contradicted(self) -> set[str]:
        """Ids under which there is more than one content."""
        events = truth.events_of((row["key"], self.bodies[row["key"], row["etag"]]) for row in self.loaded)
        times = Counter(json.loads(event[2]).get("eventID", "") for event in events)
        return {event_id for event_id, count in times.items() if count > 1}

    def was_judged_without_its_past(self, alert: Alert) -> bool:
        """Whether older events of its account were committed after those it rests on.

        A detection that compares with the past is silent while there is none: it learns. A past that comes late does
        not make it look again.
        """
        _, account, event_ids, _ = alert
        with self.state._database.read() as connection:
            order = dict(
                connection.exec_driver_sql("SELECT batch_id, min(rowid) FROM data_files GROUP BY batch_id").all()
            )
        committed: dict[str, tuple[int, str]] = {}
        for row in self.loaded:
            for record in truth.records_of(self.bodies[row["key"], row["etag"]]) or ():
                if truth.is_event(record) and truth.event_of(record, row["key"])[0] == account:
                    event_id = record.get("eventID", "")
                    at = min(order.get(row["batch_id"], NEVER), committed.get(event_id, (NEVER, ""))[0])
                    committed[event_id] = (at, record["eventTime"])
        judged = min(committed[event_id][0] for event_id in event_ids)
        last = max(committed[event_id][1] for event_id in event_ids)
        return any(at > judged and time < last for at, time in committed.values())


NEVER = 2**63
Alert = tuple[str, str, list[str], str | None]


def _standing(bodies: dict[str, bytes], now: datetime) -> SimBucket:
    """A bucket that holds these objects, all of them there from the start."""
    rng = random.Random(0)
    process = Process("undisturbed", Fate(Timeline(now, rng), rng, (), {}, (), now))
    past = now - timedelta(days=365)
    return SimBucket("trail", [Delivery(key, body, past) for key, body in bodies.items()], process, 1000)


def _alerts(state: State) -> dict[tuple[str, str], Alert]:
    """What must not depend on order: everything but what an alert's history is."""
    return {
        (alert.detection, alert.alert_id): (alert.severity, alert.account, sorted(alert.event_ids), alert.summary)
        for alert in state.alerts.list()
    }


def _is_log(each: Delivery, prefix: str) -> bool:
    """A log file of this integration's trail, by its folder and name."""
    root = f"{prefix}/AWSLogs/" if prefix else "AWSLogs/"
    return (
        each.key.startswith(root)
        and "/CloudTrail/" in each.key
        and each.key.endswith((".json", ".json.gz"))
        and len(each.body) > 0
    )


def _told(root: Path, table: str, column: str) -> set[str]:
    paths = _parquet(root, table)
    return set(ds.dataset(paths).to_table([column])[column].to_pylist()) if paths else set()


def _parquet(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.parquet"))
