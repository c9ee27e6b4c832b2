"""Retention: what is older goes, stays away when it comes again, and nothing else is touched."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from kyra_etl.config import load as load_config
from kyra_etl.errors import ConfigError
from kyra_etl.load import load
from kyra_etl.maintain.retain import RetainReport, retain
from kyra_etl.maintain.swap import LEFT_BEHIND
from kyra_etl.model import Limits, RunReport
from kyra_etl.retention import horizon
from kyra_etl.state import State
from tests.detection.making import NOW, record
from tests.maintain.making import ACCOUNT, Upkeep
from tests.maintain.test_meanwhile import once_before
from tests.state.making import committing, file, log_files, observed, planned

OTHER = "999900001111"
TODAY = NOW.date()


def _event(day: int, account: str = ACCOUNT) -> dict[str, Any]:
    at = f"2026-01-{day:02}T10:00:00Z"
    return record("Call", "", f"{account[:1]}-{day:02}", eventTime=at, recipientAccountId=account)


def _filled(house: Upkeep, **limits: Any) -> None:
    house.limits = replace(house.limits, **limits)
    for day in (1, 5, 10):
        house.load(_event(day), _event(day, OTHER), detect=False)


def _killed() -> None:
    raise KeyboardInterrupt


def _retain(house: Upkeep, **options: Any) -> RetainReport:
    return retain(house.kit, **options)


def test_days_beyond_the_horizon_go(house: Upkeep) -> None:
    _filled(house, retain_days=15)  # kept from January 5 on

    told = _retain(house, dry_run=True)
    assert house.ids() == ["1-01", "1-05", "1-10", "9-01", "9-05", "9-10"], "nothing yet"
    assert house.state.swaps.horizons() == {}
    done = _retain(house)

    assert (told.partitions, told.files, told.events) == (2, 4, 2)
    assert (done.accounts, done.partitions, done.bytes) == (told.accounts, told.partitions, told.bytes)
    assert [(one.account, one.horizon, one.events) for one in done.accounts] == [
        (ACCOUNT, date(2026, 1, 5), 1),
        (OTHER, date(2026, 1, 5), 1),
    ]
    assert house.ids() == house.globbed() == ["1-05", "1-10", "9-05", "9-10"]
    assert sum(row[-1] for row in house.activity()) == 4
    assert house.places()["_replaced"] == 4
    assert _retain(house).partitions == 0


def test_without_a_number_of_days_everything_stays(folder: Upkeep) -> None:
    _filled(folder)

    assert _retain(folder).horizons == {}
    assert len(folder.ids()) == 6


def test_accounts_have_their_own_days(folder: Upkeep) -> None:
    _filled(folder, retain_days=12, retain={OTHER: 0})
    assert _retain(folder).horizons == {ACCOUNT: date(2026, 1, 8)}
    assert folder.ids() == ["1-10", "9-01", "9-05", "9-10"]

    folder.limits = Limits(retain={OTHER: 12})
    assert _retain(folder, accounts=[ACCOUNT]).horizons == {}
    assert _retain(folder, accounts=[OTHER]).partitions == 2
    assert folder.ids() == ["1-10", "9-10"]


@pytest.mark.parametrize(("kept", "left"), [(15, 36), (100, 103)])
def test_log_files_leave_the_ledger_when_no_listing_and_no_event_needs_them(
    folder: Upkeep, kept: int, left: int
) -> None:
    """What can still be swept (35 days) stays, and so does what may have brought an event that is kept."""
    _filled(folder, retain_days=kept)
    files = [file(n, account=ACCOUNT, day=TODAY - timedelta(days=n)) for n in range(120)]
    strange = [file(200, account=None, day=None), file(201, account="222222222222", day=TODAY - timedelta(days=119))]
    batch = planned(folder.state, observed(folder.state, [*files, *strange]))
    folder.state.ledger.commit(replace(committing(folder.state, batch), data_files=()), NOW)
    folder.state.runs.finish(batch.run_id, None, state="succeeded", error=None, now=NOW)

    told = _retain(folder, dry_run=True)
    assert folder.state.ledger.prunable({ACCOUNT: TODAY}) == 119, "nothing yet"
    done = _retain(folder)

    rows = [row for row in log_files(folder.state) if row["integration"] == "acme"]
    assert sorted({row["day"] for row in rows if row["account"] == ACCOUNT})[0] == TODAY - timedelta(days=left)
    assert len(rows) == left + 1 + len(strange)
    assert told.log_files == done.log_files == 120 - left - 1
    assert _retain(folder).log_files == 0
    run_id = folder.state.runs.start("sync", "acme", folder.now)
    seen = folder.state.ledger.observe(run_id, "acme", "logs", files, "listed", folder.now)
    assert (seen.already_loaded, seen.linked) == (120, 0)


def test_what_comes_later_and_is_older_has_expired(folder: Upkeep) -> None:
    _filled(folder, retain_days=12)
    _retain(folder)

    def loaded() -> RunReport:
        return folder.load(_event(2), _event(1), _event(9), _event(2, "555566667777"), detect=False)

    report = loaded()  # by then nothing is set: it is the lake's horizon that counts
    assert (report.records, report.events, report.expired) == (4, 2, 2)
    assert folder.ids() == ["1-09", "1-10", "5-02", "9-10"]


def test_a_horizon_never_moves_back(folder: Upkeep) -> None:
    state: State = folder.state
    state.swaps.set_horizons({ACCOUNT: date(2026, 1, 5), OTHER: date(2026, 1, 1)}, NOW)
    state.swaps.set_horizons({ACCOUNT: date(2026, 1, 3), OTHER: date(2026, 1, 2)}, NOW)

    assert state.swaps.horizons() == {ACCOUNT: date(2026, 1, 5), OTHER: date(2026, 1, 2)}


def test_what_expires_goes_for_good_when_its_grace_is_over(folder: Upkeep) -> None:
    _filled(folder, retain_days=15, replaced_hours=1)
    _retain(folder)
    folder.now = NOW + timedelta(hours=2)

    assert _retain(folder).removed == 4
    assert folder.places()["_replaced"] == 0


@pytest.mark.parametrize("before", ["versions", "stage"])
def test_what_was_read_before_its_day_was_taken_away_does_not_come_back(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    _filled(folder, retain_days=15)
    owner = folder.state.ledger if before == "versions" else folder.lake

    with once_before(owner, before, lambda: _retain(folder), monkeypatch):
        report = folder.load(_event(1), _event(5), _event(10), detect=False)

    assert (report.records, report.events, report.duplicates, report.expired) == (3, 0, 2, 1)
    assert folder.ids() == folder.globbed() == ["1-05", "1-10", "9-05", "9-10"]


def test_a_retention_leaves_the_log_files_of_a_run_under_way_until_it_has_counted_them(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.folder / f"AWSLogs/{ACCOUNT}/CloudTrail/eu-west-1/2025/01/01/old.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"Records": [_event(1), _event(10)]}))
    folder.limits = replace(folder.limits, retain_days=15)

    with once_before(folder.state.ledger, "tally", lambda: _retain(folder), monkeypatch):
        report = load([path], lake=folder.lake, state=folder.state, corpus=None, limits=Limits(), clock=lambda: NOW)

    assert (report.loaded, report.events) == (1, 2)
    assert _retain(folder).log_files == 1


def test_an_event_that_is_committed_meanwhile_goes_with_the_next_run(
    folder: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(folder, retain_days=15)
    with once_before(folder.state.swaps, "set_horizons", lambda: folder.load(_event(2), detect=False), monkeypatch):
        _retain(folder)

    folder.state.swaps.set_horizons({ACCOUNT: date(2026, 1, 5)}, NOW)
    _retain(folder)
    assert folder.ids() == folder.globbed() == ["1-05", "1-10", "9-05", "9-10"]


def test_a_retention_that_was_killed_leaves_no_copy_of_what_it_took(
    house: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 12):
        house.load(_event(day, OTHER), detect=False)
    list(house.lake.gathered(house.state.ledger.data_files("activity")))
    (copy,) = house.lake.storage.sizes("_gathered")
    house.limits = replace(house.limits, retain_days=5)
    with once_before(house.lake, "forget_gathered", _killed, monkeypatch), pytest.raises(KeyboardInterrupt):
        _retain(house)
    assert house.ids() == []

    _retain(house, accounts=[ACCOUNT])
    assert house.lake.storage.sizes("_gathered").keys() == {copy}, "other accounts' were asked for"
    _retain(house)

    assert house.lake.storage.sizes("_gathered") == {}


def test_what_a_killed_writer_left_is_swept_after_a_day(house: Upkeep) -> None:
    left = "_staging/_tables/0123456789abcdef.parquet"
    house.lake.storage.write_parquet(left, pa.table({"event_id": ["of somebody"]}))
    real = datetime.now(UTC).replace(tzinfo=None)

    house.now = real + LEFT_BEHIND - timedelta(hours=1)
    house.compact()
    assert house.lake.storage.sizes("_staging").keys() == {left}, "its writer may be at work"
    house.now = real + LEFT_BEHIND + timedelta(hours=1)
    house.compact()

    assert house.lake.storage.sizes("_staging") == {}


def test_compaction_and_retention_do_not_mind_each_other(folder: Upkeep) -> None:
    _filled(folder, retain_days=15)
    folder.load(_event(5) | {"eventID": "more"}, detect=False)
    folder.compact()
    _retain(folder)
    folder.compact()

    assert folder.ids() == folder.globbed() == ["1-05", "1-10", "9-05", "9-10", "more"]


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        (Limits(), None),
        (Limits(retain_days=10), date(2026, 1, 10)),
        (Limits(retain_days=10, retain={ACCOUNT: 20}), date(2025, 12, 31)),
        (Limits(retain_days=10, retain={ACCOUNT: 0}), None),
        (Limits(retain={ACCOUNT: 1}), date(2026, 1, 19)),
        (Limits(retain={OTHER: 1}), None),
    ],
)
def test_the_first_day_that_is_kept(limits: Limits, first: date | None) -> None:
    assert horizon(limits, ACCOUNT, datetime(2026, 1, 20).date()) == first


def test_accounts_days_are_set_in_the_file(tmp_path: Any) -> None:
    file = tmp_path / "kyra.toml"
    file.write_text("retain_days = 30\n[retain]\n012345678901 = 400\n111122223333 = 0\n")
    limits = load_config({"KYRA_HOME": str(tmp_path)}).limits
    assert (limits.retain_days, limits.retain) == (30, {"012345678901": 400, "111122223333": 0})

    for wrong, said in (
        ("[retain]\nprod = 3", "is no account"),
        ("[retain]\n111122223333 = '3d'", "number of days"),
        ("[retain]\n111122223333 = -1", "number of days"),
        ("retain = 3", "must be a table"),
    ):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=said):
            load_config({"KYRA_HOME": str(tmp_path)})
