"""The rows of a batch, in the order they came: in memory up to a budget, beyond it in temporary files.

So a batch of one enormous log file needs no more memory than one of many small ones. The files have no name: whatever
becomes of the process, nothing of them is left.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.decode import FILE, GROUPED
from kyra_etl.errors import LakeError

BUDGET = 32 * 2**20
"""Bytes of rows kept in memory."""

KEYS = ("account", "event_id", "event_name", "event_time", "date", FILE)
"""Columns that stay in memory whatever the number of rows: what deduplication and counting ask for."""


class Rows:
    """Rows of schema GROUPED. Raises LakeError when the temporary files cannot be written."""

    def __init__(self, *tables: pa.Table, budget: int = BUDGET) -> None:
        self._budget = budget
        self._spilled: list[tuple[int, IO[bytes]]] = []
        self._tables: list[pa.Table] = []
        self._keys: list[pa.Table] = []
        self.num_rows = 0
        weakref.finalize(self, _close, self._spilled)
        for table in tables:
            self.append(table)

    def append(self, table: pa.Table) -> None:
        """Add rows at the end."""
        if not table.num_rows:
            return
        self._tables.append(table)
        self._keys.append(table.select(KEYS))
        self.num_rows += table.num_rows
        if sum(held.nbytes for held in self._tables) > self._budget:
            self._spill()

    def truncate(self, rows: int) -> None:
        """Keep only so many of the first rows: what was appended since is void."""
        keys = self.keys().slice(0, rows)
        cut = pa.concat_tables(self._tables) if self._tables else None
        while sum(number for number, _ in self._spilled) > rows:
            with self._spilled.pop()[1] as file:
                cut = _read(file)
        left = rows - sum(number for number, _ in self._spilled)
        self._tables = [cut.slice(0, left)] if cut is not None and left else []
        self._keys, self.num_rows = [keys], rows

    def keys(self) -> pa.Table:
        """The columns KEYS of all rows."""
        return pa.concat_tables([GROUPED.empty_table().select(KEYS), *self._keys])

    def take(self, rows: pa.Array) -> pa.Table:
        """Whole rows by their numbers, which ascend."""
        taken, first = [GROUPED.empty_table()], 0
        for segment in self._segments():
            mine = pc.and_(pc.greater_equal(rows, first), pc.less(rows, first + segment.num_rows))
            taken.append(segment.take(pc.subtract(rows.filter(mine), first)))
            first += segment.num_rows
        return pa.concat_tables(taken)

    def segments(self, keep: pa.BooleanArray | None = None) -> Iterator[pa.Table]:
        """The rows piece by piece, or those of them to `keep` (as long as all rows)."""
        first = 0
        for segment in self._segments():
            mine = None if keep is None else keep.slice(first, segment.num_rows)
            # Nearly always all are kept: then they need not be copied.
            yield segment if mine is None or mine.true_count == len(mine) else segment.filter(mine)
            first += segment.num_rows

    def close(self) -> None:
        """Let go of the temporary files."""
        _close(self._spilled)

    def _segments(self) -> Iterator[pa.Table]:
        for _, file in self._spilled:
            yield _read(file)
        if self._tables:
            yield pa.concat_tables(self._tables)

    def _spill(self) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # it is read later, and closed by `close`
        try:
            with pa.ipc.new_stream(file, GROUPED) as stream:
                for table in self._tables:
                    stream.write_table(table)
            file.flush()
        except OSError as error:
            file.close()
            raise LakeError(
                f"Rows could not be set aside in {tempfile.gettempdir()}: {error.strerror or error}.",
                "Free some space there or set TMPDIR to another folder; the next run takes up where this one stopped.",
            ) from error
        self._spilled.append((sum(table.num_rows for table in self._tables), file))
        self._tables = []


def _close(spilled: list[tuple[int, IO[bytes]]]) -> None:
    while spilled:
        spilled.pop()[1].close()


def _read(file: IO[bytes]) -> pa.Table:
    file.seek(0)
    return pa.ipc.open_stream(file).read_all()
