"""The same event twice is one event; two contents under one id are two."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from kyra_etl.cloudtrail.decode import FILE, Source, decode
from kyra_etl.cloudtrail.schema import EVENTS
from kyra_etl.lake import Rows, open_lake
from kyra_etl.lake.dedup import distinct
from kyra_etl.model import DataFile
from tests.cloudtrail.truth import exact

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


def test_committed_files_are_asked_by_partition(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = lake.stage("b1", 1, [rows(event("1"), event("9", eventTime="2026-03-05T00:00:00Z"))], [])
    assert lake.publish(files)
    by_partition: dict[Any, list[DataFile]] = {}
    for file in files:
        if file.kind == "events":
            by_partition.setdefault((file.account, file.date), []).append(file)

    batch = rows(event("1"), event("2"), event("9", eventTime="2026-03-05T00:00:00Z"))
    fresh = lake.distinct(Rows(with_file(batch)), by_partition)

    assert batch["event_id"].filter(fresh.keep).to_pylist() == ["2"]


def test_files_are_plain_hive_parquet(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    files = lake.stage("b1", 1, [rows(event("1", recipientAccountId="012345678901"))], [])

    assert not (tmp_path / "events").exists()
    lake.publish(files)

    (path,) = (tmp_path / "events").rglob("*.parquet")
    assert path.relative_to(tmp_path).as_posix() == "events/account=012345678901/date=2026-03-04/b1.parquet"
    written = pq.ParquetFile(path)
    assert written.schema_arrow.names == [name for name in EVENTS.names if name not in ("account", "date")]
    assert lake.publish(files)


def test_records_nested_as_deeply_as_can_be_read_stop_nothing() -> None:
    """Decoded with a shallow stack, compared with a deep one: what could be read once may be too deep the next time."""
    texts = [event("1")[:-1] + f', "n": {"[" * 900}{number}{"]" * 900}}}' for number in (1, 2)]
    found = rows(*texts)

    def deeper(levels: int) -> list[tuple[str, bool]]:
        return deeper(levels - 1) if levels else kept(found)

    assert deeper(60) == [("1", False), ("1", True)]
