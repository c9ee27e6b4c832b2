"""Local files take the same road: loaded once, whatever is wrong with some of them."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kyra_etl import load as load_module
from kyra_etl.cloudtrail.records import rebuild
from kyra_etl.errors import CollectError, StateError, UsageError
from kyra_etl.lake import Lake
from kyra_etl.load import load
from kyra_etl.model import Limits, LogFile, RunReport
from kyra_etl.state import State
from tests.cloudtrail.truth import exact, expected, lines
from tests.lakes import IN_A_FOLDER, table
from tests.refused import close_folder

Loader = Callable[..., RunReport]


@pytest.fixture
def loading(tmp_path: Path, lake: Lake) -> Iterator[Loader]:
    state = State.open(f"sqlite:///{tmp_path}/state.db")
    lake.claim(state.id)

    def run(*paths: Path, **limits: Any) -> RunReport:
        return load(
            paths,
            lake=lake,
            state=state,
            corpus=None,
            limits=Limits(**limits),
            clock=lambda: datetime(2026, 3, 10, 12),
        )

    yield run
    state.close()


def record(event_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "eventID": event_id,
        "eventTime": "2026-03-04T05:06:07Z",
        "eventName": "CreateUser",
        "recipientAccountId": "111122223333",
    } | fields


def document(*records: Any) -> bytes:
    return json.dumps({"Records": list(records)}).encode()


def events(lake: Lake) -> list[str]:
    return sorted(table(lake, "events")["event_id"].to_pylist())


def test_a_folder_is_loaded_once_and_known_the_second_time(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    folder = tmp_path / "logs"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.json").write_bytes(document(record("1"), record("2")))
    (folder / "deep" / "b.json.gz").write_bytes(gzip.compress(document(record("3"))))
    (folder / "deep" / "er" / "c.ndjson").write_bytes(b"\n".join(json.dumps(record(n)).encode() for n in "45"))

    first, second = loading(folder), loading(folder)

    assert (first.listed, first.loaded, first.records, first.events) == (3, 3, 5, 5)
    assert (second.listed, second.loaded, second.already_loaded, second.events) == (3, 0, 3, 0)
    assert events(lake) == list("12345")


def test_decoding_in_processes_makes_the_same_lake(
    loading: Loader, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kyra_etl.fetch.WORTH_PROCESSES", 0)
    folder = tmp_path / "logs"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.json.gz").write_bytes(gzip.compress(document(record(f"{n:02}"), record("shared"))))
    (folder / "cut.json.gz").write_bytes(gzip.compress(GOOD)[:-5])

    report = loading(folder, decode_processes=2)

    assert (report.loaded, report.quarantined, report.events, report.duplicates) == (40, 1, 41, 39)
    assert events(lake) == sorted([f"{n:02}" for n in range(40)] + ["shared"])


@pytest.mark.parametrize("processes", [1, 2])
def test_large_log_files_are_decoded_piece_by_piece_wherever_that_is(
    loading: Loader, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr("kyra_etl.fetch.WORTH_PROCESSES", 0)
    monkeypatch.setattr("kyra_etl.fetch.LARGE", 1)
    monkeypatch.setattr("kyra_etl.fetch.BEAT", 0.01)
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.json.gz").write_bytes(gzip.compress(document(*(record(f"a{n:04}") for n in range(3_000)))))
    (folder / "array.json").write_bytes(json.dumps([record("1"), record("a0000")]).encode())
    (folder / "cut.json.gz").write_bytes(gzip.compress(GOOD)[:-5])
    old = {**record("old"), "eventTime": "2001-02-03T04:05:06Z"}
    (folder / "old.json").write_bytes(document(old, record("2")))

    report = loading(folder, decode_processes=processes, batch_memory=2**16, retain_days=5_000)

    assert (report.loaded, report.quarantined, report.quarantined_by_reason) == (3, 1, {"corrupt_gzip": 1})
    assert (report.events, report.duplicates, report.expired) == (3_002, 1, 1)
    assert events(lake) == sorted([*(f"a{n:04}" for n in range(3_000)), "1", "2"])


def test_a_file_that_changed_is_loaded_again_and_deduplicated(loading: Loader, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(document(record("1")))
    loading(file)
    file.write_bytes(document(record("1"), record("2")))

    report = loading(file)

    assert (report.loaded, report.records, report.events, report.duplicates) == (1, 2, 1, 1)


@IN_A_FOLDER
def test_a_file_that_was_mended_leaves_the_quarantine(loading: Loader, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(GOOD[:-1])
    assert loading(file).quarantined == 1
    file.write_bytes(GOOD)

    report = loading(file)

    assert (report.loaded, report.events, report.quarantined) == (1, 1, 0)
    with State.open(f"sqlite:///{tmp_path}/state.db") as state:
        assert state.ledger.quarantined() == []
        assert state.ledger.counts("local")["gone"] == 1
    file.write_bytes(GOOD[:-1])
    assert loading(file).quarantined == 1, "broken once more, it is back"


@IN_A_FOLDER
def test_what_is_to_be_retried_is_loaded_by_the_next_load_of_anything(loading: Loader, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(document(record("1"), record("2")))
    (tmp_path / "b.json").write_bytes(document(record("3")))
    assert loading(tmp_path / "a.json", max_object_bytes=10).quarantined_by_reason == {"too_large": 1}
    with State.open(f"sqlite:///{tmp_path}/state.db") as state:
        state.ledger.retry("local", now=datetime(2026, 3, 10, 12))
        state.runs.start("load", "local", datetime(2026, 3, 10, 12))

    report = loading(tmp_path / "b.json")

    assert (report.listed, report.carried, report.loaded, report.events) == (1, 1, 2, 3)


@IN_A_FOLDER
def test_what_another_load_is_about_to_load_is_left_to_it(loading: Loader, tmp_path: Path) -> None:
    now = datetime(2026, 3, 10, 12)
    (tmp_path / "b.json").write_bytes(GOOD)
    with State.open(f"sqlite:///{tmp_path}/state.db") as state:
        other = state.runs.start("load", "local", now)
        state.ledger.observe(other, "local", "local", [LogFile("/a.json", "e", 1)], "listed", now)
        assert (loading(tmp_path).carried, state.ledger.counts("local")["pending"]) == (0, 1)
        state.runs.finish(other, None, state="failed", error="killed", now=now)

    report = loading(tmp_path)

    assert (report.carried, report.gone, report.already_loaded) == (1, 1, 1)


@IN_A_FOLDER
def test_a_pipe_is_refused(loading: Loader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UsageError, match=r"pipe is neither a file nor a folder\. .*into a file"):
        loading(tmp_path / "pipe")


@IN_A_FOLDER
def test_a_path_given_twice_is_one_file(loading: Loader, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(document(record("1")))

    assert loading(file, tmp_path, file).loaded == 1


@IN_A_FOLDER
def test_a_file_whose_name_is_no_utf8_is_loaded(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    odd = tmp_path / os.fsdecode(b"Donn\xe9es")
    odd.mkdir()
    (odd / os.fsdecode(b"caf\xe9.json")).write_bytes(document(record("1")))
    (odd / os.fsdecode(b"caf\xe8.json")).write_bytes(document(record("2")))

    first, second = loading(odd), loading(odd)

    assert (first.listed, first.loaded, first.events) == (2, 2, 2)
    assert (second.listed, second.already_loaded) == (2, 2)
    assert sorted(Path(row["source_key"]).name for row in table(lake, "events").to_pylist()) == [
        r"caf\udce8.json",
        r"caf\udce9.json",
    ]


def test_a_missing_path_is_refused_before_anything_is_loaded(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    (tmp_path / "a.json").write_bytes(document(record("1")))

    with pytest.raises(UsageError, match=r"nowhere\.json does not exist"):
        loading(tmp_path / "a.json", tmp_path / "nowhere.json")

    assert lake.storage.sizes("events") == {}


GOOD = document(record("1"))
DIGEST = b'{"digestStartTime": "x", "digestS3Object": "y"}'


@IN_A_FOLDER
@pytest.mark.parametrize(
    ("name", "content", "state", "reason"),
    [
        ("empty.json", b"", "ignored", "marker"),
        ("notes.txt", b"remember the milk", "ignored", "other"),
        ("_kyra.json", b'{"state": "of a lake nearby"}', "ignored", "other"),
        ("1_CloudTrail-Digest_us-east-1_t_us-east-1_20260304T050607Z.json.gz", DIGEST, "ignored", "digest"),
        ("digest-by-content.json", DIGEST, "quarantined", "digest"),
        ("cut.json.gz", gzip.compress(GOOD, mtime=0)[:-5], "quarantined", "corrupt_gzip"),
        ("text.json", b"remember the milk", "quarantined", "not_json"),
        ("package.json", b'{"name": "web"}', "quarantined", "not_cloudtrail"),
        ("braces.json", b"{}", "quarantined", "no_records"),
        ("null.json", b'{"Records": null}', "quarantined", "no_records"),
        ("none.json", b'{"Records": []}', "loaded", None),
        ("plain.json.gz", GOOD.replace(b'"1"', b'"2"'), "loaded", None),
        ("bomb.json.gz", gzip.compress(b" " * 3_000_000 + GOOD, mtime=0), "quarantined", "too_large"),
    ],
)
def test_each_bad_file_ends_in_a_named_state_and_the_good_one_loads(
    loading: Loader, tmp_path: Path, lake: Lake, name: str, content: bytes, state: str, reason: str | None
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "good.json").write_bytes(GOOD)
    (folder / name).write_bytes(content)

    report = loading(folder, max_object_bytes=1_000_000)

    assert report.loaded == 1 + (state == "loaded")
    assert report.ignored_by_kind == ({reason: 1} if state == "ignored" else {})
    assert report.quarantined_by_reason == ({reason: 1} if state == "quarantined" else {})
    published = {Path(row["key"]).name: (row["state"], row["reason"]) for row in table(lake, "log_files").to_pylist()}
    assert published == {"good.json": ("loaded", None)} | ({} if state == "ignored" else {name: (state, reason)})


@IN_A_FOLDER
def test_a_file_that_may_not_be_read_is_quarantined_and_the_others_load(
    loading: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "good.json").write_bytes(GOOD)
    (folder / "held.json").write_bytes(document(record("2")))
    opening = Path.open

    def refused(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "held.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opening(path, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)  # modes would not do: they do not hold for root
        first, second = loading(folder), loading(folder)

    assert (first.listed, first.loaded, first.quarantined_by_reason) == (2, 1, {"unreadable": 1})
    assert (second.already_loaded, second.quarantined) == (1, 1), "the same one, not another"
    assert loading(folder).loaded == 1


@IN_A_FOLDER
@pytest.mark.parametrize("before", ["kind_of", "_log_file", "load_found"])
def test_a_file_that_vanishes_meanwhile_is_gone_and_the_others_load(
    loading: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.json").write_bytes(document(record(name)))
    step = getattr(load_module, before)

    def then(*given: Any, **named: Any) -> Any:
        (folder / "b.json").unlink(missing_ok=True)
        return step(*given, **named)

    monkeypatch.setattr(load_module, before, then)
    report = loading(folder)

    assert (report.listed, report.loaded, report.gone, report.quarantined) == (3, 2, 1, 0)


@IN_A_FOLDER
def test_what_is_no_file_is_passed_over_and_a_link_to_nothing_is_gone(loading: Loader, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (folder / "folder.json").mkdir(parents=True)
    (folder / "good.json").write_bytes(GOOD)
    (folder / "link.json").symlink_to(folder / "nowhere.json")
    os.mkfifo(folder / "pipe.json")

    report = loading(folder)

    assert (report.listed, report.loaded, report.gone) == (2, 1, 1)


@IN_A_FOLDER
def test_a_folder_that_may_not_be_looked_into_is_told_after_the_others_are_loaded(
    loading: Loader, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    (folder / "closed").mkdir(parents=True)
    (folder / "good.json").write_bytes(GOOD)
    close_folder("closed", monkeypatch)
    with pytest.raises(CollectError, match=r"closed cannot be listed: Permission denied\. .*load it again"):
        loading(folder)

    assert events(lake) == ["1"]


def test_a_malformed_record_waits_in_malformed_with_its_source(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'{"Records": [' + json.dumps(record("1")).encode() + b', {"eventTime" :"never"}]}')

    report = loading(file)

    assert (report.records, report.events, report.malformed) == (2, 1, 1)
    (row,) = table(lake, "malformed").to_pylist()
    assert (row["record"], row["position"], row["source_key"]) == (b'{"eventTime" :"never"}', 1, str(file))


def test_one_file_may_fill_several_accounts_and_days(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    (tmp_path / "a.json").write_bytes(
        document(
            record("1"),
            record("2", eventTime="2026-03-03T23:59:59Z"),
            record("3", recipientAccountId="012345678901"),
        )
    )

    loading(tmp_path / "a.json")

    assert sorted(path.rpartition("/")[0] for path in lake.storage.sizes("events")) == [
        "events/account=012345678901/date=2026-03-04",
        "events/account=111122223333/date=2026-03-03",
        "events/account=111122223333/date=2026-03-04",
    ]


def test_rows_beyond_the_retention_horizon_count_as_expired(loading: Loader, tmp_path: Path, lake: Lake) -> None:
    (tmp_path / "a.json").write_bytes(document(record("1"), record("2", eventTime="2025-01-01T00:00:00Z")))

    report = loading(tmp_path / "a.json", retain_days=30)

    assert (report.records, report.events, report.expired) == (2, 1, 1)
    assert events(lake) == ["1"]


@IN_A_FOLDER
def test_rows_lost_on_the_way_to_the_lake_are_noticed_before_the_commit(
    loading: Loader, tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_bytes(document(record("1"), record("2")))
    staging = lake.stage

    def losing(batch_id: str, attempt: int, events: Any, malformed: Any) -> Any:
        return staging(batch_id, attempt, [piece.slice(1) for piece in events], malformed)

    with monkeypatch.context() as patch:
        patch.setattr(lake, "stage", losing)
        with pytest.raises(StateError, match=r"staged events: 1 of 2\. Nothing of it was committed"):
            loading(tmp_path / "a.json")

    assert lake.storage.sizes("events") == {}
    assert (loading(tmp_path / "a.json").events, events(lake)) == (2, ["1", "2"])


@IN_A_FOLDER
@pytest.mark.parametrize("tree", ["invictus", "flaws_umccr"])
def test_public_trees_load_exactly_once(loading: Loader, shared_data: Path, lake: Lake, tree: str) -> None:
    folder = shared_data / "raw" / tree
    delivered = [record for path in folder.rglob("*.json*") for record in read_by_json(path)]
    distinct = {json.dumps(record, sort_keys=True) for record in delivered}

    report = loading(folder)
    again = loading(folder)

    assert (report.records, report.events) == (len(delivered), len(distinct))
    assert report.events - report.conflicts == len({record["eventID"] for record in delivered})
    assert (again.events, again.loaded, again.already_loaded) == (0, 0, report.loaded)
    assert len(events(lake)) == len(distinct)


def read_by_json(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    return list(json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)["Records"])


@IN_A_FOLDER
def test_a_digest_loads_nothing_and_says_why(loading: Loader, shared_data: Path) -> None:
    report = loading(shared_data / "raw" / "not_records")

    assert (report.loaded, report.events, report.ignored_by_kind) == (0, 0, {"digest": 1})


@IN_A_FOLDER
def test_every_public_record_is_rebuilt_from_the_lake(loading: Loader, shared_data: Path, lake: Lake) -> None:
    """Compared as multisets by plain json: rows of `events` and of `malformed/`, plus what was delivered twice."""
    sources = sorted((shared_data / "records").glob("*.ndjson.gz"))

    report = loading(*sources)

    delivered = [line for path in sources for line in lines(path)]
    rows = table(lake, "events").to_pylist()
    rebuilt = {repr_of(exact(rebuild(row))) for row in rows}
    set_aside = {bytes(row["record"]) for row in table(lake, "malformed").to_pylist()}
    assert report.records == len(delivered)
    assert len(rows) == report.events
    lost = [line for line in delivered if line not in set_aside and repr_of(expected(line)) not in rebuilt]
    assert lost == []
    made_up = rebuilt - {repr_of(expected(line)) for line in delivered if line not in set_aside}
    assert made_up == set()


def repr_of(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{repr_of(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(repr_of, value)) + "]"
    return repr(value)
