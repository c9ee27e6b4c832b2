"""The lake: Parquet files under a directory or an S3 prefix, and every DuckDB call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kyra_etl.errors import DamagedFile, LakeError
from kyra_etl.lake import books, gathered, layout, recent, tables, writer
from kyra_etl.lake.dedup import Distinct, colliding, distinct
from kyra_etl.lake.moving import TRIES, has_left
from kyra_etl.lake.spool import Rows
from kyra_etl.lake.storage import S3Options, Storage, marker, open_storage, owner
from kyra_etl.lake.trace import Traced, trace
from kyra_etl.lake.writer import Partition, partitions_of
from kyra_etl.model import DataFile

__all__ = ["Distinct", "Lake", "Partition", "Rows", "S3Options", "open_lake", "partitions_of"]


class Lake:
    """One lake, owned by one state database."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def claim(self, state_id: str) -> None:
        """Mark the lake as this state's, or raise LakeError when another state owns it.

        Two states over one lake would each take the other's files for strangers.
        """
        found = owner(self.storage.create_text(layout.MARKER, marker(state_id)))
        if found.get("state") != state_id:
            raise LakeError(
                f"The lake at {self.storage.uri('')} belongs to another state database.",
                "Point `state_url` at the database it was made with, or `lake` at an empty folder.",
            )

    def uri(self, path: str) -> str:
        """What a reader opens for a path of the lake."""
        return self.storage.uri(path)

    def readable(self, files: Iterable[DataFile]) -> list[str]:
        """URIs to read committed files at: published ones in place, others where they are still staged."""
        return [self.uri(self._where(file)) for file in files]

    def _where(self, file: DataFile) -> str:
        # A file the ledger calls unpublished may have been moved a moment ago by whoever completes publishing.
        if not file.published and self.storage.exists(file.staged_path):
            return file.staged_path
        return file.path

    def damaged(self, files: Iterable[DataFile]) -> dict[DataFile, str]:
        """Committed files that are gone, or not as long as they were written, and what is wrong with each."""
        wrong: dict[DataFile, str] = {}
        for file in files:
            size = self.storage.size(self._where(file))
            if size != file.size:
                wrong[file] = "it is missing" if size is None else f"{size} bytes where {file.size} were written"
        return wrong

    def gathered(self, files: Sequence[DataFile]) -> Iterator[tuple[pa.Table, list[DataFile]]]:
        """Rows of some of these files of activity, and the files to be read besides, in portions: `lake.gathered`."""
        return gathered.gathered(self.storage, files)

    def keep_recent(self, files: Sequence[DataFile], rows: pa.Table) -> None:
        """Keep the events of these files for the runs to come; see `lake.recent`."""
        recent.keep(self.storage, files, rows)

    def kept_recent(
        self, files: Sequence[DataFile], accounts: Collection[str], first: datetime, last: datetime
    ) -> tuple[list[str], set[str]]:
        """Copies of recent events, and the paths of the files that they stand for; see `lake.recent`."""
        return recent.kept(self.storage, files, accounts, first, last)

    def forget_gathered(self, horizons: Mapping[str, date]) -> None:
        """Let go of copies of accounts' rows before their horizons: what retention takes away must not lie there."""
        gathered.forget(self.storage, horizons)
        recent.forget(self.storage, max(horizons.values(), default=date.min))

    def register(self, connection: Any) -> None:
        """Let a DuckDB connection read `uri()`s."""
        self.storage.register(connection)

    def distinct(self, rows: Rows, committed: Mapping[Partition, Sequence[DataFile]]) -> Distinct:
        """Which of a batch's rows are new: deduplicated within the batch and against the `committed` files.

        The same event has the same time: files of other times are not opened. So what has an id of another time, and
        other content, is kept like any conflict, but not counted as one. Raises DamagedFile.
        """
        filesystem, root = self.storage.filesystem()
        found = [colliding([], filesystem, "", pa.array([], pa.string()))]
        keys = rows.keys()
        for partition, files in sorted(committed.items()):
            mine = keys.filter(pc.and_(pc.equal(keys["account"], partition[0]), pc.equal(keys["date"], partition[1])))
            files = _around(files, mine["event_time"]) if mine.num_rows else ()
            if files:
                ids = mine["event_id"].combine_chunks()
                found += (self._colliding(file, filesystem, root, partition, ids) for file in files)
        return distinct(keys, rows.take, pa.concat_tables(found))

    def _colliding(self, file: DataFile, filesystem: Any, root: str, partition: Partition, ids: Any) -> pa.Table:
        for attempt in range(1, TRIES + 1):
            path = f"{root}/{self._where(file)}"
            try:
                return colliding([path], filesystem, partition[0], ids)
            except (OSError, pa.ArrowException) as error:
                if attempt < TRIES and has_left(error, filesystem, [path]):
                    continue  # another run published it, and so moved it, since we looked
                self.storage.size(file.path)  # raises where nothing of the lake can be had
                place = layout.partition(*partition)
                raise DamagedFile(
                    f"A committed file of {place} cannot be read: {str(error).splitlines()[0][:200]}.",
                    "Restore it from a backup, then run the sync again; log files with events of its time wait for it.",
                ) from error
        raise AssertionError("unreachable")

    def trace(self, event_id: str, files: Callable[[], Sequence[DataFile]]) -> tuple[Traced, Sequence[DataFile]]:
        """Look for an event in committed files; also returns the files as they were read: rows name one by its place.

        Like every reader that misses a file, it asks for the list once more.
        """
        filesystem, root = self.storage.filesystem()
        for attempt in range(1, TRIES + 1):
            listed = files()
            paths = [f"{root}/{self._where(file)}" for file in listed]
            try:
                return trace(paths, filesystem, event_id), listed
            except (OSError, pa.ArrowException) as error:
                if attempt < TRIES and has_left(error, filesystem, paths):
                    continue
                raise LakeError(
                    f"A committed file of the lake cannot be read: {str(error).splitlines()[0][:200]}.",
                    "Restore it from a backup.",
                ) from error
        raise AssertionError("unreachable")

    def stage(
        self, batch_id: str, attempt: int, events: Iterable[pa.Table], malformed: Sequence[dict[str, Any]]
    ) -> tuple[DataFile, ...]:
        """Write a batch's files where no reader looks; see `writer.stage`."""
        return writer.stage(self.storage, batch_id, attempt, events, malformed)

    def publish(self, files: Iterable[DataFile]) -> list[str]:
        """Move committed files to where readers look, and return the paths that are in place; safe to repeat."""
        done = []
        for file in files:
            self.storage.move(file.staged_path, file.path)
            done.append(file.path)
        return done

    def retire(self, files: Iterable[DataFile]) -> None:
        """Move replaced files out of the way of readers' globs; safe to repeat."""
        self.storage.put_aside([file.path for file in files], layout.REPLACED_DIR)

    def bring_back(self, paths: Iterable[str]) -> None:
        """Put replaced files back to where they were; safe to repeat."""
        for path in paths:
            self.storage.move(f"{layout.REPLACED_DIR}/{path}", path)

    def set_aside(self, paths: Sequence[str]) -> None:
        """Move files that the ledger does not know out of the way of readers' globs; safe to repeat."""
        self.storage.put_aside(paths, layout.UNKNOWN_DIR)

    def remove_retired(self, paths: Iterable[str]) -> None:
        """Remove replaced files for good, by the final path they had."""
        for path in paths:
            self.storage.remove(f"{layout.REPLACED_DIR}/{path}")

    def discard(self, batch_id: str, attempt: int = 1) -> None:
        """Remove an attempt's staging folder: what it will never commit, or what publishing has emptied."""
        self.storage.remove_folder(layout.staging(batch_id, attempt))

    def write_table(self, table: str, name: str, rows: Iterable[Mapping[str, Any]], day: date | None = None) -> None:
        """Write records of our own beside `events/`; see `lake.tables`."""
        tables.write(self.storage, table, name, rows, day)

    def crowded_tables(self, before: date) -> dict[tuple[str, str], list[str]]:
        """Days of records of our own with several files, by table and day; see `lake.books`."""
        return books.crowded(self.storage, before)

    def gather_table(self, table: str, paths: Sequence[str], memory: int, alive: Callable[[], object]) -> None:
        """Make one file of a day's; see `lake.books`."""
        books.gather(self.storage, table, paths, memory, alive)

    def staged_attempts(self) -> list[str]:
        """Names `<batch>-<attempt>` of the staging folders there are."""
        return [name for name in self.storage.folders(layout.STAGING_DIR) if name != layout.TABLES_STAGING]

    def staging_of(self, swap_id: str) -> str:
        """The name of a swap's staging folder, as `staged_attempts` gives it."""
        return layout.staging(swap_id).removeprefix(f"{layout.STAGING_DIR}/")

    def sweep(self, attempts: Iterable[str]) -> None:
        """Remove staging folders, by the names `staged_attempts` gave."""
        for name in attempts:
            self.storage.remove_folder(f"{layout.STAGING_DIR}/{name}")

    def sweep_tables(self, before: datetime) -> None:
        """Remove what was written before then and never moved to its place: its writer was killed, or the disk full."""
        for path in self.storage.older(f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}", before):
            self.storage.remove(path)


def _around(files: Sequence[DataFile], times: pa.ChunkedArray) -> list[DataFile]:
    """Those of the files that hold events of the time from the first to the last of `times`."""
    bounds = pc.min_max(times).as_py()
    return [
        file
        for file in files
        if (file.min_time is None or file.min_time <= bounds["max"])
        and (file.max_time is None or file.max_time >= bounds["min"])
    ]


def open_lake(url: str, options: S3Options | None = None) -> Lake:
    """Open the lake at a directory or an s3://bucket/prefix URL; nothing is created yet."""
    return Lake(open_storage(url, options))
