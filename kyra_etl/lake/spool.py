"""The rows of a batch, in the order they came: in memory up to a budget, beyond it in temporary files.

So a batch of one enormous log file needs no more memory than one of many small ones. A process that decodes writes its
rows to a file it is lent; of those, only what deduplication and counting ask for is held. The files have no name:
whatever becomes of the processes, nothing of them is left.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.cloudtrail.decode import FILE, GROUPED
from kyra_etl.errors import LakeError

BUDGET = 32 * 2**20
"""Bytes of rows kept in memory."""

KEYS = ("account", "event_id", "event_name", "event_time", "date", FILE)
"""Columns that stay in memory whatever the number of rows: what deduplication and counting ask for."""


_READING_KEYS = pa.ipc.IpcReadOptions(included_fields=[GROUPED.get_field_index(name) for name in KEYS])


@dataclass(frozen=True, slots=True)
class Spilled:
    """Rows in a temporary file: where they begin in it, and how many they are."""

    start: int
    num_rows: int


def spill(file: IO[bytes], tables: Iterable[pa.Table]) -> Spilled:
    """Append rows of schema GROUPED to a temporary file; when a table fails to come, nothing of them stays there.

    Raises LakeError when they cannot be written, and whatever `tables` raises.
    """
    start = file.seek(0, os.SEEK_END)
    num_rows = 0
    try:
        with pa.ipc.new_stream(file, GROUPED) as stream:
            for table in tables:
                stream.write_table(table)
                num_rows += table.num_rows
        file.flush()
    except OSError as error:
        raise no_room(error) from error
    except BaseException:
        file.seek(start)
        file.truncate()
        raise
    return Spilled(start, num_rows)


def no_room(error: OSError) -> LakeError:
    """What to say when a temporary file cannot be written."""
    return LakeError(
        f"Rows could not be set aside in {tempfile.gettempdir()}: {error.strerror or error}.",
        "Free some space there or set TMPDIR to another folder; the next run takes up where this one stopped.",
    )


class Rows:
    """Rows of schema GROUPED. Raises LakeError when the temporary files cannot be written."""

    def __init__(self, *tables: pa.Table, budget: int = BUDGET) -> None:
        self._budget = budget
        self._files: list[IO[bytes]] = []
        self._idle: list[IO[bytes]] = []
        self._parts: list[pa.Table | tuple[IO[bytes], int]] = []
        self._held = 0
        self._keys: list[pa.Table] = []
        self.num_rows = 0
        weakref.finalize(self, _close, self._files)
        for table in tables:
            self.append(table)

    def append(self, table: pa.Table) -> None:
        """Add rows at the end."""
        if not table.num_rows:
            return
        self._parts.append(table)
        self._add(table.select(KEYS))
        self._held += table.nbytes
        if self._held > self._budget:
            self._spill()

    @contextmanager
    def lend(self) -> Iterator[IO[bytes]]:
        """A temporary file of these rows that nobody else writes to meanwhile. Any thread may ask."""
        try:
            file = self._idle.pop()
        except IndexError:
            file = self._file()
        try:
            yield file
        finally:
            self._idle.append(file)

    def adopt(self, file: IO[bytes], spilled: Spilled) -> None:
        """Add at the end what was spilled to a file that these rows lent."""
        if spilled.num_rows:
            self._parts.append((file, spilled.start))
            self._add(_keys(file, spilled.start))

    def keys(self) -> pa.Table:
        """The columns KEYS of all rows."""
        return pa.concat_tables([GROUPED.empty_table().select(KEYS), *self._keys])

    def take(self, rows: pa.Array) -> pa.Table:
        """Whole rows by their numbers, which ascend."""
        taken, first = [GROUPED.empty_table()], 0
        for piece in self.segments():
            mine = pc.and_(pc.greater_equal(rows, first), pc.less(rows, first + piece.num_rows))
            taken.append(piece.take(pc.subtract(rows.filter(mine), first)))
            first += piece.num_rows
            del piece
        return pa.concat_tables(taken)

    def segments(self, keep: pa.BooleanArray | None = None) -> Iterator[pa.Table]:
        """The rows in pieces of about the budget, or those of them to `keep` (as long as all rows)."""
        first = 0
        for segment in self._segments():
            mine = None if keep is None else keep.slice(first, segment.num_rows)
            first += segment.num_rows
            # Nearly always all are kept: then they need not be copied.
            yield segment if mine is None or mine.true_count == len(mine) else segment.filter(mine)
            del segment  # or it would be held while the next is read

    def close(self) -> None:
        """Let go of the temporary files."""
        _close(self._files)

    def _add(self, keys: pa.Table) -> None:
        self._keys.append(keys)
        self.num_rows += keys.num_rows

    def _segments(self) -> Iterator[pa.Table]:
        held: list[pa.Table] = []
        size = 0
        for table in self._tables():
            held.append(table)
            size += table.nbytes
            if size >= self._budget:
                yield pa.concat_tables(held)
                held, size = [], 0
        if held:
            yield pa.concat_tables(held)

    def _tables(self) -> Iterator[pa.Table]:
        for part in self._parts:
            if isinstance(part, pa.Table):
                yield part
                continue
            for batch in pa.ipc.open_stream(_from(*part)):
                yield pa.Table.from_batches([batch])

    def _spill(self) -> None:
        with self.lend() as file:
            for place, part in enumerate(self._parts):
                if isinstance(part, pa.Table):
                    self._parts[place] = (file, spill(file, [part]).start)
        self._held = 0

    def _file(self) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115  # it is read later, and closed by `close`
        except OSError as error:
            raise no_room(error) from error
        self._files.append(file)
        return file


class _At(io.RawIOBase):
    """A file from some byte on, read by a position of its own.

    The file's position belongs to whoever it is lent to, and is shared with the process that writes there.
    """

    def __init__(self, file: IO[bytes], start: int) -> None:
        self._file, self._at = file, start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._file.fileno(), len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _from(file: IO[bytes], start: int) -> io.BufferedReader:
    return io.BufferedReader(_At(file, start), 2**18)


def _keys(file: IO[bytes], start: int) -> pa.Table:
    keys = []
    for batch in pa.ipc.open_stream(_from(file, start), options=_READING_KEYS):
        # Copied, since a column that was read keeps all that was read with it.
        keys.append(pa.concat_batches([batch, batch.slice(0, 0)]).select(KEYS))
        del batch
    return pa.Table.from_batches(keys)


def _close(files: list[IO[bytes]]) -> None:
    while files:
        files.pop().close()
