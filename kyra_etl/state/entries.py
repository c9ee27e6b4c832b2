"""Rows of `log_files` as LedgerEntry, and a run's links to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, select

from kyra_etl.model import LedgerEntry, LogFile
from kyra_etl.state import tables
from kyra_etl.state.database import Database

How = Literal["listed", "hinted", "carried"]
"""Why a run deals with a log file: it saw it in a listing, a notice named it, or an earlier run left it."""

_files = tables.log_files


def entries_query() -> Select[Any]:
    """Selects what `entry` reads; the caller adds joins and conditions."""
    return select(
        _files.c.id,
        _files.c.integration,
        _files.c.bucket,
        _files.c.key,
        _files.c.etag,
        _files.c.size,
        _files.c.last_modified,
        _files.c.account,
        _files.c.region,
        _files.c.day,
        _files.c.state,
        _files.c.attempts,
        _files.c.reason,
        _files.c.detail,
        _files.c.next_retry_at,
        _files.c.plans,
        _files.c.batch_id,
    )


def entry(row: Row[Any]) -> LedgerEntry:
    file = LogFile(row.key, row.etag, row.size, row.last_modified, row.account, row.region, row.day)
    return LedgerEntry(
        id=row.id,
        integration=row.integration,
        bucket=row.bucket,
        file=file,
        state=row.state,
        attempts=row.attempts,
        reason=row.reason,
        detail=row.detail,
        next_retry_at=row.next_retry_at,
    )


def in_order(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """By day, then key. In Python, because databases disagree on the order of text and of NULL."""
    return sorted(entries, key=lambda e: (e.file.day or date.min, e.file.key, e.id))


def link(database: Database, connection: Connection, run_id: str, ids: Sequence[int], how: How) -> None:
    """Notes that the run deals with these log files, once each: the first reason stays."""
    if ids:
        rows = [{"run_id": run_id, "log_file_id": id_, "how": how} for id_ in ids]
        connection.execute(database.insert(tables.run_files).on_conflict_do_nothing(), rows)
