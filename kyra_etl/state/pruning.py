"""Log files whose events have left the lake: off the ledger, but for sixteen bytes each that say they were loaded.

So a file that is listed once more, however late, is still known, and is not loaded again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, Select, column, delete, func, select, values

from kyra_etl.model import LogFile
from kyra_etl.state import tables
from kyra_etl.state.database import Database, chunks

_files, _links, _pruned, _runs = tables.log_files, tables.run_files, tables.pruned, tables.runs

SIZE = 16
"""Bytes of a fingerprint: of a billion files, the odds that any two have the same are one in 10^20."""

PAGE = 5_000

Name = tuple[str, str]
"""Key and etag of a log file."""


class Pruning:
    _database: Database

    def prunable(self, before: Mapping[str, date]) -> int:
        """How many log files `prune` would take off."""
        if not before:
            return 0
        with self._database.read() as connection:
            return connection.scalar(_old(before, func.count())) or 0

    def prune(self, before: Mapping[str, date], alive: Callable[[], object] = lambda: None) -> int:
        """Take loaded log files off the ledger whose folder is of a day before their account's in `before`.

        Page by page, each in one transaction: a file is on the ledger or among the fingerprints, at every moment.
        What a run under way deals with is left to a later pruning. Returns how many that were.
        """
        if not before:
            return 0
        c = _files.c
        query = _old(before, c.id, c.integration, c.bucket, c.account, c.day, c.key, c.etag).order_by(c.id).limit(PAGE)
        taken, last = 0, -1
        while True:
            # Looked for outside the transaction that takes them: it may be long, and what is loaded stays loaded.
            with self._database.read() as connection:
                rows = connection.execute(query.where(c.id > last)).all()
            if not rows:
                return taken
            last = rows[-1].id
            with self._database.write() as connection:
                _remember(self._database, connection, rows)
                for ids in chunks([row.id for row in rows]):
                    taken += connection.execute(delete(_files).where(c.id.in_(ids))).rowcount
            alive()


def pruned_among(connection: Connection, integration: str, bucket: str, files: Mapping[Name, LogFile]) -> set[Name]:
    """Those of the files that were loaded and have been taken off."""
    c = _pruned.c
    folders: defaultdict[tuple[str, date], list[Name]] = defaultdict(list)
    for name, file in files.items():
        if file.account is not None and file.day is not None:
            folders[file.account, file.day].append(name)
    found: set[Name] = set()
    for some in chunks(sorted(folders), 250):
        accounts, days = sorted({account for account, _ in some}), sorted({day for _, day in some})
        query = select(c.account, c.day, c.fingerprints).where(c.integration == integration, c.bucket == bucket)
        query = query.where(c.account.in_(accounts), c.day.in_(days))
        for account, day, held in connection.execute(query):
            known = set(_split(held))
            found.update(name for name in folders.get((account, day), ()) if fingerprint(*name) in known)
    return found


def fingerprint(key: str, etag: str) -> bytes:
    """What is left of a log file."""
    return hashlib.blake2b(f"{key}\0{etag}".encode(), digest_size=SIZE).digest()


def _old(before: Mapping[str, date], *columns: Any) -> Select[Any]:
    """Loaded log files of days before their account's; those of runs under way stay, or their numbers would not add up.

    The days are joined, not spelled out as conditions: there may be ten thousand accounts.
    """
    c = _files.c
    columns_of_due = column("account", c.account.type), column("day", c.day.type)
    due = values(*columns_of_due, name="due").data(sorted(before.items())).cte()
    # Joined outward and wrapped, so that SQLite goes through the log files once and looks each one's account up.
    same = due.c.account == func.coalesce(c.account, "")
    query = select(*columns).join_from(_files, due, same, isouter=True)
    running = select(_links.c.log_file_id).join(_runs, _runs.c.run_id == _links.c.run_id)
    running = running.where(_runs.c.state == "running")
    return query.where(c.state == "loaded", c.day < func.coalesce(due.c.day, date.min), c.id.not_in(running))


def _remember(database: Database, connection: Connection, rows: Collection[Row[Any]]) -> None:
    c = _pruned.c
    folders: defaultdict[tuple[Any, ...], set[bytes]] = defaultdict(set)
    for row in rows:
        folders[row.integration, row.bucket, row.account, row.day].add(fingerprint(row.key, row.etag))
    for where, new in folders.items():
        folder = dict(zip(("integration", "bucket", "account", "day"), where, strict=True))
        same = [c[name] == value for name, value in folder.items()]
        held = connection.scalar(select(c.fingerprints).where(*same)) or b""
        whole = b"".join(sorted(new.union(_split(held))))
        saving = database.insert(_pruned).values(**folder, fingerprints=whole)
        saved = saving.on_conflict_do_update(
            index_elements=[c[name] for name in folder], set_={"fingerprints": saving.excluded.fingerprints}
        )
        connection.execute(saved)


def _split(held: bytes) -> Iterator[bytes]:
    return (held[at : at + SIZE] for at in range(0, len(held), SIZE))
