"""Sums over the whole state, for metrics: a handful of grouped queries, none of which reads a log file's row."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select

from kyra_etl.state import tables
from kyra_etl.state.database import Database

_ever, _files, _ended, _alerts = tables.totals, tables.log_files, tables.run_totals, tables.alerts
_data_files, _requests = tables.data_files, tables.list_requests

SUMS = ("files", "bytes", "records", "events", "duplicates", "conflicts", "malformed", "expired")


class Figures:
    def __init__(self, database: Database) -> None:
        self._database = database

    def loaded(self) -> list[dict[str, Any]]:
        """By integration, over its committed batches: batches, and the sums of files, bytes, records, events …"""
        c = _ever.c
        sums = [func.sum(c[name]).label(name) for name in ("batches", *SUMS)]
        return self._rows(select(c.integration, *sums).group_by(c.integration))

    def quarantined(self) -> list[dict[str, Any]]:
        """By integration and reason: files, and attempts (reads of them so far)."""
        c = _files.c
        query = select(c.integration, c.reason, func.count().label("files"), func.sum(c.attempts).label("attempts"))
        return self._rows(query.where(c.state == "quarantined").group_by(c.integration, c.reason))

    def runs(self) -> list[dict[str, Any]]:
        """By integration, verb and the state they ended in: runs that ever ended, and last_finished_at."""
        return self._rows(select(_ended))

    def alerts(self) -> list[dict[str, Any]]:
        """By severity, status and historical: alerts."""
        c = _alerts.c
        query = select(c.severity, c.status, c.historical, func.count().label("alerts"))
        return self._rows(query.group_by(c.severity, c.status, c.historical))

    def lake(self) -> list[dict[str, Any]]:
        """By kind, over the live data files: files, rows, bytes."""
        c = _data_files.c
        query = select(
            c.kind, func.count().label("files"), func.sum(c.rows).label("rows"), func.sum(c.size).label("bytes")
        )
        return self._rows(query.where(c.live).group_by(c.kind))

    def list_requests(self) -> list[dict[str, Any]]:
        """By integration: LIST requests ever made."""
        c = _requests.c
        return self._rows(select(c.integration, func.sum(c.requests).label("requests")).group_by(c.integration))

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
