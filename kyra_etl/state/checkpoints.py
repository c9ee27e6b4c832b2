"""How far each folder was listed: it decides when a folder is listed again and from where, never what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import date
from typing import Any

from sqlalchemy import delete, func, select

from kyra_etl.model import LOGS, Folder
from kyra_etl.state import tables
from kyra_etl.state.database import Database

_checkpoints, _requests = tables.checkpoints, tables.list_requests

_FIELDS = [field.name for field in fields(Folder)]


class Checkpoints:
    _database: Database

    def folders(self, integration: str) -> list[Folder]:
        """Every folder found so far, accounts' own among them, in no order."""
        query = select(*(_checkpoints.c[name] for name in _FIELDS)).where(_checkpoints.c.integration == integration)
        with self._database.read() as connection:
            return [Folder(*row) for row in connection.execute(query)]

    def save_listing(self, integration: str, folders: Sequence[Folder], *, requests: int, day: date) -> None:
        """Notes how far folders were listed, and LIST requests made on that day, in one transaction.

        What is None stays as it was.
        """
        if not folders and not requests:
            return
        with self._database.write() as connection:
            if folders:
                saving = self._database.insert(_checkpoints)
                latest = {name: func.coalesce(saving.excluded[name], _checkpoints.c[name]) for name in _FIELDS}
                latest["found_at"] = func.coalesce(_checkpoints.c.found_at, saving.excluded.found_at)
                saving = saving.on_conflict_do_update(
                    index_elements=[_checkpoints.c.integration, _checkpoints.c.folder], set_=latest
                )
                connection.execute(saving, [asdict(folder) | {"integration": integration} for folder in folders])
            if requests:
                counting = self._database.insert(_requests)
                counting = counting.on_conflict_do_update(
                    index_elements=[_requests.c.integration, _requests.c.day],
                    set_={"requests": _requests.c.requests + counting.excluded.requests},
                )
                connection.execute(counting, {"integration": integration, "day": day, "requests": requests})

    def list_requests(self, integration: str, since: date) -> dict[date, int]:
        """LIST requests by UTC day, from that day on."""
        query = select(_requests.c.day, _requests.c.requests)
        query = query.where(_requests.c.integration == integration, _requests.c.day >= since).order_by(_requests.c.day)
        with self._database.read() as connection:
            return {row.day: row.requests for row in connection.execute(query)}

    def checkpoints(self, integration: str) -> list[dict[str, Any]]:
        """How far each account's region was listed, all its folders of log files together; by account, then region.

        With day, last_key, last_delivered_at, listed_at, day_folders, swept_at, usual_pause.
        """
        c = _checkpoints.c
        query = (
            select(
                c.account,
                c.region,
                func.max(c.day).label("day"),
                func.max(c.last_key).label("last_key"),
                func.max(c.last_delivered_at).label("last_delivered_at"),
                func.min(c.listed_at).label("listed_at"),
                func.sum(c.day_folders).label("day_folders"),
                func.min(c.swept_at).label("swept_at"),
                func.max(c.usual_pause).label("usual_pause"),
            )
            .where(c.integration == integration, c.kind == LOGS)
            .group_by(c.account, c.region)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        found = [dict(row) | {"day_folders": int(row["day_folders"])} for row in rows]
        return sorted(found, key=lambda row: (row["account"], row["region"]))

    def delete_checkpoints(self, integration: str) -> int:
        """Forgets how far the listing got. Costs the next run time, never data."""
        with self._database.write() as connection:
            return connection.execute(delete(_checkpoints).where(_checkpoints.c.integration == integration)).rowcount
