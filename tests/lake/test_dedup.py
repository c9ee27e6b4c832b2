"""The same event twice is one event; two contents under one id are two."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.wrappers import Response

from kyra_etl.cloudtrail.decode import FILE, Source, decode
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.errors import LakeError
from kyra_etl.lake import Lake, Rows, S3Options, open_lake
from kyra_etl.lake.dedup import distinct
from kyra_etl.lake.storage import S3Storage
from kyra_etl.model import DataFile
from tests.cloudtrail.truth import exact
from tests.wire import WIRE, Call, refuse

NOW = datetime(2026, 3, 10)


def rows(*texts: str, key: str = "k") -> pa.Table:
    document = '{"Records": [' + ",".join(texts) + "]}"
    return decode(document.encode(), Source("acme", key, "b"), now=NOW, max_bytes=1 << 20)[1]


def event(event_id: str, **fields: Any) -> str:
    base = {
        "eventID": event_id,
        "eventTime": "2026-03-04T05:06:07Z",
        "eventName": "CreateUser",
        "recipientAccountId": "111122223333",
        "requestParameters": {"a": 1, "b": [1.0]},
    }
    return json.dumps(base | fields)


NONE = EVENTS.empty_table()


def with_file(table: pa.Table) -> pa.Table:
    return table.append_column(FILE, pa.repeat(pa.scalar(0), table.num_rows))


def kept(batch: pa.Table, committed: pa.Table = NONE) -> list[tuple[str, bool]]:
    result = distinct(batch, batch.take, committed.select(["account", *COLUMNS]))
    ids, conflicts = batch["event_id"].filter(result.keep), result.conflicts.filter(result.keep)
    return list(zip(ids.to_pylist(), conflicts.to_pylist(), strict=True))


COLUMNS = [name for name in EVENTS.names if name not in ("account",)]


def test_the_first_of_equal_events_is_kept_in_the_batchs_order() -> None:
    assert kept(rows(event("1"), event("2"), event("1"), event("3"), event("2"))) == [
        ("1", False),
        ("2", False),
        ("3", False),
    ]


def test_an_event_the_lake_holds_is_not_kept() -> None:
    assert kept(rows(event("1"), event("2")), rows(event("1"), key="other")) == [("2", False)]


def test_other_content_under_one_id_is_kept_and_counted() -> None:
    assert kept(rows(event("1"), event("1", errorCode="AccessDenied"))) == [("1", False), ("1", True)]
    assert kept(rows(event("1", errorCode="AccessDenied")), rows(event("1"))) == [("1", True)]


def test_a_conflict_that_comes_again_is_a_duplicate() -> None:
    committed = rows(event("1"), event("1", errorCode="AccessDenied"))

    assert kept(rows(event("1", errorCode="AccessDenied"), event("1")), committed) == []


def test_spacing_and_order_of_keys_make_no_other_event() -> None:
    spaced = event("1").replace('{"a": 1, "b": [1.0]}', '{"b":[ 1.0 ],"a":1}')

    assert kept(rows(event("1"), spaced)) == [("1", False)]
    assert kept(rows(spaced), rows(event("1"))) == []


def test_a_field_without_a_value_makes_no_other_event() -> None:
    """LookupEvents and log files of one event need not agree on writing it."""
    assert kept(rows(event("1", responseElements=None)), rows(event("1"))) == []
    assert kept(rows(event("1"), event("1", responseElements=None, new=None))) == [("1", False)]


def test_one_and_one_point_nought_are_other_content() -> None:
    assert len(kept(rows(event("1"), event("1").replace("1.0", "1")))) == 2


def test_the_same_id_in_two_accounts_is_two_events() -> None:
    assert len(kept(rows(event("1"), event("1", recipientAccountId="444455556666")))) == 2


CHANGES = st.sampled_from([{}, {"errorCode": "X"}, {"eventName": None}, {"requestParameters": None}, {"new": 1}])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), CHANGES), max_size=12),
    st.lists(st.tuples(st.sampled_from("abc"), CHANGES), max_size=6),
)
def test_what_is_kept_is_exactly_what_was_not_there(
    batch: list[tuple[str, dict[str, Any]]], before: list[tuple[str, dict[str, Any]]]
) -> None:
    texts = [event(name, **change) for name, change in batch]
    earlier = list(dict.fromkeys(event(name, **change) for name, change in before))

    found = kept(rows(*texts), rows(*earlier))

    def content(text: str) -> str:
        return repr(sorted((name, value) for name, value in exact(text).items() if value is not None or "Para" in name))

    known = {content(text) for text in earlier}
    fresh = list(dict.fromkeys(content(text) for text in texts if content(text) not in known))
    assert len(found) == len(fresh)


def staged(lake: Lake, batch_id: str, *texts: str) -> dict[Any, list[DataFile]]:
    """The batch's files of events, by partition."""
    files = lake.stage(batch_id, 1, [rows(*texts)], [])
    assert lake.publish(files)
    return {(file.account, file.date): [file] for file in files if file.kind == "events"}


def fresh(lake: Lake, committed: dict[Any, list[DataFile]], *texts: str) -> list[tuple[str, bool]]:
    """What of a batch is kept, and whether it conflicts."""
    batch = rows(*texts)
    found = lake.distinct(Rows(with_file(batch)), committed)
    ids, conflicts = batch["event_id"].filter(found.keep), found.conflicts.filter(found.keep)
    return list(zip(ids.to_pylist(), conflicts.to_pylist(), strict=True))


def test_committed_files_are_asked_by_partition(lake: Lake) -> None:
    committed = staged(lake, "b1", event("1"), event("9", eventTime="2026-03-05T00:00:00Z"))

    assert fresh(lake, committed, event("1"), event("2"), event("9", eventTime="2026-03-05T00:00:00Z")) == [
        ("2", False)
    ]


def test_files_of_other_times_are_not_opened(lake: Lake) -> None:
    committed = staged(lake, "b1", event("1", eventTime="2026-03-04T05:00:00Z"))
    for (file,) in committed.values():
        lake.storage.remove(file.path)

    assert fresh(lake, committed, event("1", eventTime="2026-03-04T05:00:01Z")) == [("1", False)]
    with pytest.raises(LakeError):
        fresh(lake, committed, event("1", eventTime="2026-03-04T05:00:00Z"))


@pytest.mark.parametrize(
    ("code", "status"), [("NoSuchKey", 404), ("InternalError", 400)], ids=["says so", "says something else"]
)
def test_a_file_that_leaves_once_it_is_opened_is_looked_for_again(s3_server: str, code: str, status: int) -> None:
    """Another worker publishes it, and so moves it, between the request for its size and that for its bytes."""
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="lake")
    lake = open_lake("s3://lake/kyra", S3Options(s3_server, "us-east-1", "testing", "testing"))
    ((file,),) = staged(lake, "b1", event("1")).values()
    before = replace(file, published=False)
    lake.storage.move(file.path, file.staged_path)
    answer = refuse("s3:GetObject", code, "We cannot give it.", status)

    def publishing(call: Call) -> Response | None:
        if call.head or not call.resource.endswith(file.staged_path):
            return None
        WIRE.rules.remove(publishing)
        lake.publish([file])
        return answer(call)

    WIRE.rules.append(publishing)

    assert fresh(lake, {("111122223333", date(2026, 3, 4)): [before]}, event("1"), event("2")) == [("2", False)]
    assert publishing not in WIRE.rules

    WIRE.rules.append(lambda call: None if call.head else answer(call))
    with pytest.raises(LakeError, match=r"A committed file of account=111122223333/date=2026-03-04 cannot be read"):
        fresh(lake, {("111122223333", date(2026, 3, 4)): [file]}, event("1"))


INSTANTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=8)


def test_what_is_not_opened_changes_nothing_that_is_kept(lake: Lake) -> None:
    """Against the same files with their times unknown, so that all are opened."""
    examples = 5 if isinstance(lake.storage, S3Storage) else 30
    settings(max_examples=examples)(given(before=INSTANTS, batch=INSTANTS)(_openings_change_nothing))(lake)


def _openings_change_nothing(lake: Lake, before: Any, batch: Any) -> None:
    def texts(made: Any) -> list[str]:
        return [event(name, eventTime=f"2026-03-04T05:06:{second:02}Z", readOnly=flag) for name, second, flag in made]

    committed: dict[Any, list[DataFile]] = {}
    for number, text in enumerate(texts(before)):
        for partition, files in staged(lake, f"b{number}", text).items():
            committed.setdefault(partition, []).extend(files)
    blind = {where: [replace(file, min_time=None) for file in files] for where, files in committed.items()}
    blind = {where: [replace(file, max_time=None) for file in files] for where, files in blind.items()}

    assert [name for name, _ in fresh(lake, committed, *texts(batch))] == [
        name for name, _ in fresh(lake, blind, *texts(batch))
    ]


def test_files_are_plain_hive_parquet(lake: Lake) -> None:
    files = lake.stage("b1", 1, [rows(event("1", recipientAccountId="012345678901"))], [])

    assert lake.storage.sizes("events") == {}
    lake.publish(files)

    (path,) = lake.storage.sizes("events")
    assert path == "events/account=012345678901/date=2026-03-04/b1.parquet"
    filesystem, root = lake.storage.filesystem()
    written = pq.ParquetFile(f"{root}/{path}", filesystem=filesystem)
    assert written.schema_arrow.names == [name for name in EVENTS.names if name not in ("account", "date")]
    assert lake.publish(files)


def test_records_nested_as_deeply_as_can_be_read_stop_nothing() -> None:
    """Decoded with a shallow stack, compared with a deep one: what could be read once may be too deep the next time."""
    texts = [event("1")[:-1] + f', "n": {"[" * 900}{number}{"]" * 900}}}' for number in (1, 2)]
    found = rows(*texts)

    def deeper(levels: int) -> list[tuple[str, bool]]:
        return deeper(levels - 1) if levels else kept(found)

    assert deeper(60) == [("1", False), ("1", True)]
