"""Check the lake against the ledger and itself: what is missing, strange, broken, double or misplaced."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from kyra_etl.lake import checks
from kyra_etl.lake.checks import Faults
from kyra_etl.model import DataFile
from kyra_etl.run import Kit


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What each check found; `files` and `events` are how many were looked at."""

    faults: tuple[Faults, ...]
    files: int
    events: int

    @property
    def sound(self) -> bool:
        return not any(one.count for one in self.faults)

    def as_json(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "files": self.files,
            "events": self.events,
            "checks": [
                {
                    **{name: getattr(one.check, name) for name in ("id", "title", "about", "remedy")},
                    "count": one.count,
                    "rows": list(one.rows),
                }
                for one in self.faults
            ],
        }


def check(
    kit: Kit,
    folder: Path,
    *,
    first: date | None = None,
    last: date | None = None,
    accounts: Collection[str] | None = None,
) -> CheckReport:
    """Run the checks of `folder` (see `kyra_etl.lake.checks`). Nothing is changed, and syncs may go on meanwhile.

    Whether files are there at all is asked of the whole lake; rows are read of the days and accounts asked for.
    Raises LakeError when the lake cannot be looked at.
    """
    ledger, looked = kit.state.ledger, checks.load(folder)

    def known() -> set[str]:
        replaced, _ = ledger.unsettled()
        return {file.path for file in (*replaced, *ledger.every_data_file())}

    def wanted(file: DataFile) -> bool:
        return (
            file.date is not None
            and (first is None or file.date >= first)
            and (last is None or file.date <= last)
            and (accounts is None or file.account in accounts)
        )

    kit.progress.stage("Checking")
    storage, memory = kit.lake.storage, kit.limits.compact_memory
    faults = checks.inspect(storage, looked, ledger.every_data_file, known, wanted, memory=memory)
    read = [file for file in ledger.every_data_file() if wanted(file)]
    return CheckReport(tuple(faults), len(read), sum(file.rows for file in read if file.kind == "events"))
