"""A Parquet file, written piece by piece to any stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kyra_etl.lake.faults import telling


class ParquetFile:
    """A Parquet file being written; every `write` makes row groups of its own. `size` is in bytes so far."""

    def __init__(self, path: str, writer: pq.ParquetWriter, stream: Any) -> None:
        self.path = path
        self._writer, self._stream = writer, stream
        self.rows = 0
        self.size = 0

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises LakeError."""
        with telling(f"write {self.path}"):
            self._writer.write_table(table)
        self.rows += table.num_rows
        self.size = int(self._stream.tell())

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


@contextlib.contextmanager
def writing(path: str, stream: Any, schema: pa.Schema, options: Mapping[str, Any]) -> Iterator[ParquetFile]:
    """Write to a stream; `path` names it in errors. The block closes the file itself, unless it fails."""
    file = ParquetFile(path, pq.ParquetWriter(stream, schema, **options), stream)
    try:
        yield file
    except BaseException:
        # A writer that is left open would write when it is collected, to a stream that is closed by then.
        with contextlib.suppress(Exception):
            file.close()
        raise
