"""Activity, gathered: a file an account for past days, and one for the newest day of all, in place of many.

Baselines look back over months in every run, and opening a file a day and account is most of what that costs, on S3
more than anywhere; of the newest day there is one for every batch. So the rows are kept once more, with the data file
that each is of: what the ledger does not list is passed over, and what is not gathered yet is read where it is. A copy,
then, and never the truth: it may be removed at any time, and whoever writes it last is right.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kyra_etl import logs
from kyra_etl.cloudtrail.schema import ACTIVITY
from kyra_etl.errors import LakeError
from kyra_etl.lake import layout
from kyra_etl.lake.storage import Storage
from kyra_etl.lake.writer import parquet_options
from kyra_etl.model import DataFile

log = logs.logger(__name__)

LOOSE = 8
"""Files of an account's past days that are read one by one before they are gathered with the others."""

LOOSE_NEWEST = 60
"""Files of the newest day, of all accounts, that are read one by one before they are gathered with the others."""

KEPT = timedelta(days=100)
"""How far back rows are kept that nobody asked for this time."""

NEWEST = "newest"
"""In the place of an account, the newest day of all of them."""

_FOLDER = f"{layout.GATHERED_DIR}/activity"
_FILE = "_file"
_COLUMNS = pa.schema([*ACTIVITY, pa.field(_FILE, pa.string())])
_FILES = b"files"
_TIMES = ("first_seen", "last_seen")


def gathered(storage: Storage, files: Sequence[DataFile]) -> Iterator[tuple[pa.Table, list[DataFile]]]:
    """Rows of some of these files of activity (schema ACTIVITY), and the files that are to be read besides.

    They come in portions, an account's past days each. What is missing is gathered for the next time. The newest day
    has a file of its own, since it grows.
    """
    today = max((file.date for file in files if file.date), default=date.min)
    groups = defaultdict[str, list[DataFile]](list)
    others: list[DataFile] = []
    for file in files:
        if file.published and file.account is not None and file.date is not None:
            groups[file.account if file.date < today else NEWEST].append(file)
        else:
            others.append(file)
    yield ACTIVITY.empty_table(), others
    for name, own in groups.items():
        rows, missing = _Group(storage, name).rows(own)
        yield rows.select(ACTIVITY.names), missing


def forget(storage: Storage, horizons: Mapping[str, date]) -> None:
    """Let go of what is gathered of days before an account's horizon; of the newest day, of all. Raises LakeError."""
    days = {**horizons, NEWEST: max(horizons.values(), default=date.min)}
    for path in storage.sizes(_FOLDER):
        name = path.rpartition("/")[2].removesuffix(".parquet")
        if name in days:
            _Group(storage, name).forget(days[name])


class _Group:
    """The file of an account's past days, or of everybody's newest day, as it is now."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._filesystem, self._root = storage.filesystem()
        try:
            # All of it is needed: read in one piece, it is of one version, and its end is not read twice.
            with self._filesystem.open_input_file(f"{self._root}/{_path(name)}") as stream:
                file = pq.ParquetFile(pa.BufferReader(stream.read()))
            told = zlib.decompress(base64.b64decode((file.metadata.metadata or {})[_FILES]))
            self._sizes: dict[str, int] = dict(json.loads(told))
            self._held = _unpacked(file.read()).cast(_COLUMNS)
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, zlib.error):
            self._held, self._sizes = _COLUMNS.empty_table(), {}

    def rows(self, files: Sequence[DataFile]) -> tuple[pa.Table, list[DataFile]]:
        """The rows of these files as far as they are gathered, and the files that are not."""
        missing = [file for file in files if self._sizes.get(file.path) != file.size]
        if len(missing) > (LOOSE_NEWEST if self._name == NEWEST else LOOSE) and self._is_newest(files):
            try:
                self._gather(files, missing)
                missing = []
            except (OSError, pa.ArrowException, LakeError) as error:
                # A file may have moved since it was listed, a disk may be full: then they are read as they lie.
                log.info("Activity (%s) was not gathered: %s", self._name, str(error).partition("\n")[0])
        wanted = {file.path for file in files if self._sizes.get(file.path) == file.size}
        if wanted == self._sizes.keys():
            return self._held, missing
        return self._of(wanted), missing

    def forget(self, before: date) -> None:
        """Keep no row of a day before that one, nor a file of which nobody can tell what it holds."""
        late = self._held.filter(pc.greater_equal(self._held["date"], pa.scalar(before, pa.date32())))
        if not late.num_rows:
            self._storage.remove(_path(self._name))
        elif late.num_rows < self._held.num_rows:
            paths = pc.unique(late[_FILE]).to_pylist()
            self._write(late, {path: self._sizes[path] for path in paths})

    def _is_newest(self, files: Sequence[DataFile]) -> bool:
        """Whether the files reach as far as what is held: who looks at the past must not push the present out."""
        held = pc.max(self._held["date"]).as_py()
        return held is None or max(file.date for file in files if file.date) >= held

    def _of(self, paths: set[str]) -> pa.Table:
        return self._held.filter(pc.is_in(self._held[_FILE], value_set=pa.array(sorted(paths), pa.string())))

    def _gather(self, files: Sequence[DataFile], missing: Sequence[DataFile]) -> None:
        days = {file.path: file.date for file in files if file.date}
        first = min(days.values())
        new = {file.path for file in missing}
        if self._name == NEWEST:  # of other accounts, which other runs ask for
            accounts = pa.array(sorted({file.account or "" for file in files}))
            older = pc.and_(pc.equal(self._held["date"], first), pc.invert(pc.is_in(self._held["account"], accounts)))
        else:
            older = pc.and_(
                pc.less(self._held["date"], first), pc.greater(self._held["date"], max(days.values()) - KEPT)
            )
        before = set(pc.unique(self._held.filter(older)[_FILE]).to_pylist())
        kept = ({file.path for file in files} - new | before) & self._sizes.keys()
        whole = pa.concat_tables([self._of(kept), *self._read(missing)])
        names = [name for name in ACTIVITY.names if name not in ("first_seen", "last_seen", "count")]
        whole = whole.sort_by([(name, "ascending") for name in [*names, _FILE]])
        sizes = {path: size for path, size in self._sizes.items() if path in kept}
        sizes |= {file.path: file.size for file in missing}
        self._write(whole, sizes)

    def _read(self, files: Sequence[DataFile]) -> Iterator[pa.Table]:
        stored = [field for field in ACTIVITY if field.name not in ("account", "date")]
        for file in files:
            with self._filesystem.open_input_file(f"{self._root}/{file.path}") as stream:
                rows = pq.ParquetFile(stream).read()
            columns = {
                field.name: rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows)
                for field in stored
            }
            columns |= {"account": pa.repeat(pa.scalar(file.account, pa.string()), rows.num_rows)}
            columns |= {"date": pa.repeat(pa.scalar(file.date, pa.date32()), rows.num_rows)}
            columns |= {_FILE: pa.repeat(pa.scalar(file.path), rows.num_rows)}
            yield pa.table({name: columns[name] for name in _COLUMNS.names}).cast(_COLUMNS)

    def _write(self, rows: pa.Table, sizes: dict[str, int]) -> None:
        staged = f"{layout.STAGING_DIR}/{layout.TABLES_STAGING}/{secrets.token_hex(8)}.parquet"
        told = base64.b64encode(zlib.compress(json.dumps(sizes).encode()))
        packed = _packed(rows).replace_schema_metadata({_FILES: told})
        self._storage.write_parquet(staged, packed, **_options(packed.schema))
        self._storage.move(staged, _path(self._name))
        self._held, self._sizes = rows, sizes


def _packed(rows: pa.Table) -> pa.Table:
    """With times as seconds where they are whole ones, the last after the first: they are most of what is kept."""
    try:
        first, last = (rows[name].cast(pa.timestamp("s")).cast(pa.int64()) for name in _TIMES)
    except pa.ArrowInvalid:
        return rows
    return _with_times(rows, first, pc.subtract(last, first))


def _unpacked(rows: pa.Table) -> pa.Table:
    if rows.schema.field("first_seen").type != pa.int64():
        return rows
    first, after = (rows[name] for name in _TIMES)
    return _with_times(rows, first.cast(pa.timestamp("s")), pc.add(first, after).cast(pa.timestamp("s")))


def _with_times(rows: pa.Table, *times: pa.ChunkedArray) -> pa.Table:
    for name, values in zip(_TIMES, times, strict=True):
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Of one key, day after day, times lie near each other: differences are a fraction of what times take."""
    return parquet_options(schema) | {
        "store_schema": True,  # or what is told beside the rows is lost
        "use_dictionary": [name for name in schema.names if name not in _TIMES],
        "column_encoding": dict.fromkeys(_TIMES, "DELTA_BINARY_PACKED"),
    }


def _path(name: str) -> str:
    return f"{_FOLDER}/{name}.parquet"
