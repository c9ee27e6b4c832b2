"""After a backup was put back: the lake's files as the state knows them.

A state that is older than its lake knows nothing of compactions since. It lists files that lie in `_replaced/`, and the
ones in their place are strangers to it; reading both would double events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from kyra_etl.lake import layout
from kyra_etl.maintain.swap import holding
from kyra_etl.model import DataFile
from kyra_etl.run import Kit


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was moved, or with `dry_run` would be: paths in the lake."""

    dry_run: bool
    skipped: str | None = None
    """Why nothing was done: another run maintains this lake."""
    brought_back: tuple[str, ...] = ()
    """Files that the ledger lists, from `_replaced/`."""
    set_aside: tuple[str, ...] = ()
    """Files that it does not know, to `_unknown/`. What they hold, and the ledger lacks, is loaded by the next sync."""
    missing: tuple[str, ...] = ()
    """Files that it lists and that are nowhere: they have to come from a backup of the lake."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def restore(kit: Kit, *, dry_run: bool = False) -> RestoreReport:
    """Bring back replaced files that the ledger lists, and set aside those that it does not know.

    Nothing is removed, nothing in the state changes, and it may be repeated.
    Raises LakeError when a file cannot be moved.
    """
    if dry_run:
        return _report(kit, dry_run=True)
    with holding(kit) as lease:
        if lease is None:
            return RestoreReport(dry_run=False, skipped="another run is maintaining this lake")
        report = _report(kit, dry_run=False)
        # Strangers go first: a glob may lack events, never see them twice.
        kit.lake.set_aside(report.set_aside)
        kit.lake.bring_back(report.brought_back)
        return report


def _report(kit: Kit, *, dry_run: bool) -> RestoreReport:
    storage, ledger = kit.lake.storage, kit.state.ledger
    # What a sync commits meanwhile is known before it lies there; staging is looked at first, as files only leave it.
    staged = storage.sizes(layout.STAGING_DIR)
    found = {path for place in layout.DATA_DIRS for path in storage.sizes(place)}
    replaced = storage.sizes(layout.REPLACED_DIR)
    unsettled, _ = ledger.unsettled()
    listed = {file.path: file for file in ledger.every_data_file()}
    away = [file for path, file in sorted(listed.items()) if path not in found and file.staged_path not in staged]
    lost = [file for file in away if not storage.exists(file.path)]
    there = _there(replaced)
    return RestoreReport(
        dry_run,
        brought_back=tuple(file.path for file in lost if there(file)),
        set_aside=tuple(sorted(found - listed.keys() - {file.path for file in unsettled})),
        missing=tuple(file.path for file in lost if not there(file)),
    )


def _there(replaced: dict[str, int]) -> Callable[[DataFile], bool]:
    """Whether a file lies among the replaced ones, as it was written."""
    return lambda file: replaced.get(f"{layout.REPLACED_DIR}/{file.path}") == file.size
