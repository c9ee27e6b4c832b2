"""How far each account and region was listed: shown in status, a help to the listing, never the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import delete, func, select

from kyra_etl.state import tables
from kyra_etl.state.database import Database

_checkpoints = tables.checkpoints


class Checkpoints:
    _database: Database

    def checkpoints(self, integration: str) -> list[dict[str, Any]]:
        """By account, then region, with day, last_key, last_delivered_at, listed_at, day_folders, swept_at."""
        query = select(*(column for column in _checkpoints.c if column.name != "integration"))
        with self._database.read() as connection:
            rows = connection.execute(query.where(_checkpoints.c.integration == integration)).mappings().all()
        return sorted((dict(row) for row in rows), key=lambda row: (row["account"], row["region"]))

    def save_checkpoint(
        self,
        integration: str,
        *,
        account: str,
        region: str,
        day: date | None = None,
        last_key: str | None = None,
        last_delivered_at: datetime | None = None,
        listed_at: datetime | None = None,
        day_folders: int | None = None,
        swept_at: datetime | None = None,
    ) -> None:
        """Notes how far one account and region was listed; what is None stays as it was."""
        one = {"account": account, "region": region, "day": day, "last_key": last_key, "day_folders": day_folders}
        times = {"last_delivered_at": last_delivered_at, "listed_at": listed_at, "swept_at": swept_at}
        self.save_checkpoints(integration, [one | times])

    def save_checkpoints(self, integration: str, checkpoints: Sequence[Mapping[str, Any]]) -> None:
        """Notes many in one transaction: mappings with account, region and any of the other fields."""
        fields = ("day", "last_key", "last_delivered_at", "listed_at", "day_folders", "swept_at")
        rows = [
            {"integration": integration, "account": one["account"], "region": one["region"]}
            | {field: one.get(field) for field in fields}
            for one in checkpoints
        ]
        if not rows:
            return
        saving = self._database.insert(_checkpoints)
        saving = saving.on_conflict_do_update(
            index_elements=[_checkpoints.c.integration, _checkpoints.c.account, _checkpoints.c.region],
            set_={field: func.coalesce(saving.excluded[field], _checkpoints.c[field]) for field in fields},
        )
        with self._database.write() as connection:
            connection.execute(saving, rows)

    def delete_checkpoints(self, integration: str) -> int:
        """Forgets how far the listing got. Costs the next run time, never data."""
        with self._database.write() as connection:
            return connection.execute(delete(_checkpoints).where(_checkpoints.c.integration == integration)).rowcount
