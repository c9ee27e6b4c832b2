"""A house whose lake can be looked at: through the ledger as readers do, and by a plain glob."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from kyra_etl.cloudtrail.schema import ACTIVITY, EVENTS
from kyra_etl.lake import layout
from kyra_etl.lake.query import Analyst
from kyra_etl.maintain.compact import CompactReport, compact
from kyra_etl.model import DetectReport, Limits, RunReport
from kyra_etl.ports import Silent
from kyra_etl.run import Kit
from tests.detection.making import NOW, House

DAY = date(2026, 1, 10)
ACCOUNT = "111122223333"
PARTITION = (ACCOUNT, DAY)


class Upkeep(House):
    """A house that is maintained."""

    limits = Limits()
    now = NOW

    @property
    def kit(self) -> Kit:
        return Kit(self.lake, self.state, None, self.limits, lambda: self.now, Silent())

    def load(self, *records: dict[str, Any], detect: bool = True, waiting: bool = False) -> RunReport:
        """As a house does; `waiting` leaves the detections in the queue."""
        if not waiting:
            return super().load(*records, detect=detect)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kyra_etl.run.detect_queued", lambda **_: DetectReport())
            return super().load(*records)

    def compact(self, **options: Any) -> CompactReport:
        return compact(self.kit, **options)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What `kyra sql` answers."""
        ledger = self.state.ledger
        analyst = Analyst(
            lambda kind, _: self.lake.readable(ledger.data_files(kind)),
            {},
            seconds=60,
            prepare=lambda connection, _: self.lake.register(connection),
        )
        return analyst.query(sql).rows

    def ids(self) -> list[str]:
        return [id_ for (id_,) in self.ask("SELECT event_id FROM events ORDER BY 1")]

    def rows(self) -> list[dict[str, Any]]:
        """Every event as it is read, in the order of its id."""
        columns = ", ".join(EVENTS.names)
        return [
            dict(zip(EVENTS.names, row, strict=True))
            for row in self.ask(f"SELECT {columns} FROM events ORDER BY event_id")
        ]

    def activity(self) -> list[tuple[Any, ...]]:
        """The roll-up, merged."""
        keys = ", ".join(name for name in ACTIVITY.names if name not in ("first_seen", "last_seen", "count"))
        merged = f"SELECT {keys}, min(first_seen), max(last_seen), sum(count)::BIGINT FROM activity GROUP BY ALL"
        return sorted(self.ask(merged), key=repr)

    def globbed(self) -> list[str]:
        """Event ids that a plain reader of `events/` sees."""
        paths = list(self.lake.storage.sizes(layout.EVENTS_DIR))
        filesystem, root = self.lake.storage.filesystem()
        tables = [ds.dataset(f"{root}/{path}", filesystem=filesystem).to_table(["event_id"]) for path in paths]
        ids = pa.concat_tables(tables)["event_id"].to_pylist() if tables else []
        return sorted(ids)

    def places(self) -> dict[str, int]:
        """How many Parquet files lie in each folder of the lake."""
        found: dict[str, int] = {}
        for path in self.lake.storage.sizes(""):
            top = path.partition("/")[0]
            if path.endswith(".parquet"):
                found[top] = found.get(top, 0) + 1
        return {name: found.get(name, 0) for name in ("events", "activity", "_staging", "_replaced")}

    def content(self, path: str) -> bytes:
        """A file of the lake, as it lies there."""
        filesystem, root = self.lake.storage.filesystem()
        with filesystem.open_input_file(f"{root}/{path}") as stream:
            return bytes(stream.read())

    def overwrite(self, path: str, content: bytes | pa.Table, **options: Any) -> None:
        """Put these bytes, or a Parquet file of this table, where the file lies, as somebody might who is not kyra."""
        filesystem, root = self.lake.storage.filesystem()
        with filesystem.open_output_stream(f"{root}/{path}") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                pq.write_table(content, stream, **options)

    def table(self, path: str) -> pa.Table:
        """What a Parquet file of the lake holds, without what its folders say."""
        return pq.read_table(pa.BufferReader(self.content(path)))
