"""Local files into the lake, by the same road: no integration, no AWS."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from stat import S_ISREG

from kyra_etl.cloudtrail import keys
from kyra_etl.detection.rule import Corpus
from kyra_etl.errors import CollectError, ObjectError, ObjectGone, UsageError
from kyra_etl.folder import as_path, as_text
from kyra_etl.lake import Lake, layout
from kyra_etl.listing import Found
from kyra_etl.model import Limits, LogFile, RunReport
from kyra_etl.ports import Clock, Progress, Silent
from kyra_etl.run import Kit, Run, load_found, recorded, report, run_detections
from kyra_etl.settle import tidy
from kyra_etl.state import State

LOCAL = "local"
"""Integration and bucket name of local files in the ledger and the lake."""

SUFFIXES = tuple(f"{stem}{gz}" for stem in (".json", ".jsonl", ".ndjson") for gz in ("", ".gz"))
PAGE = 1_000


class LocalFiles:
    """Files of this machine as a bucket: the key is the absolute path as text, the etag the SHA-256 of the bytes.

    Of a file that cannot be read the etag is made of its size and time.
    """

    def __init__(self, clock: Clock) -> None:
        self.name = LOCAL
        self._clock = clock

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(())

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        return iter(())

    def read(self, key: str) -> bytes:
        try:
            return as_path(key).read_bytes()
        except FileNotFoundError:
            raise ObjectGone(f"{key} is no longer there.") from None
        except OSError as error:
            raise ObjectError(
                "unreadable", f"{key} cannot be read: {error.strerror}.", "Check its permissions, then load it again."
            ) from error

    def now(self) -> datetime:
        return self._clock()


def load(
    paths: Sequence[Path],
    *,
    lake: Lake,
    state: State,
    corpus: Corpus | None,
    limits: Limits,
    clock: Clock,
    progress: Progress | None = None,
) -> RunReport:
    """Load files and folders (searched whole). With `corpus` None no detection runs.

    A file named outright is tried whatever it is called; in a folder, files that are no JSON are ignored.
    A file that cannot be read is quarantined; what earlier loads left, and what is to be tried again, is loaded too.
    Raises UsageError for a path that does not exist, before anything is loaded, and CollectError for a folder that
    cannot be looked into, when all else is.
    """
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise UsageError(f"{missing[0]} does not exist.", "Give files or folders of CloudTrail logs that you may read.")
    odd = [path for path in paths if not (path.is_file() or path.is_dir())]
    if odd:
        raise UsageError(f"{odd[0]} is neither a file nor a folder.", "Write what it gives into a file, and load that.")
    kit = Kit(lake, state, corpus, limits, clock, progress or Silent())
    with recorded("load", LOCAL, kit) as entry:
        tidy(lake=lake, state=state)
        found = _observe(entry.run_id, paths, kit)
        state.ledger.carry(entry.run_id, LOCAL, clock(), bucket=LOCAL)
        run = Run(entry.run_id, "load", LOCAL, LOCAL, LocalFiles(clock), entry.started_at, historical=True)
        problem = load_found(run, kit)
        entry.problem = found.problem or problem
        entry.report = report(run, kit, found, run_detections(kit))
    return entry.report


def _observe(run_id: str, paths: Sequence[Path], kit: Kit) -> Found:
    found = Found()
    page: list[LogFile] = []
    kit.progress.stage("Reading")

    def hand_over() -> None:
        kit.state.ledger.overwritten(LOCAL, LOCAL, page, kit.clock())
        observed = kit.state.ledger.observe(run_id, LOCAL, LOCAL, page, "listed", kit.clock())
        found.already_loaded += observed.already_loaded
        found.listed -= observed.repeated
        page.clear()

    def refused(error: OSError) -> None:
        found.problem = found.problem or CollectError(
            f"{as_text(str(error.filename))} cannot be listed: {error.strerror}.",
            "Check its permissions, then load it again.",
        )

    for path, named in files_of(paths, refused):
        found.listed += 1
        kit.progress.advance()
        kind = kind_of(path, named=named)
        if kind != "log":
            found.ignored[kind] += 1
            continue
        page.append(_log_file(path))
        if len(page) == PAGE:
            hand_over()
    if page:
        hand_over()
    return found


def files_of(paths: Sequence[Path], refused: Callable[[OSError], None]) -> Iterator[tuple[Path, bool]]:
    """Every file of the paths once, with whether it was named outright; folders in order of name.

    `refused` is told of each folder that cannot be looked into.
    """
    seen: set[Path] = set()
    for path in paths:
        found = sorted(_inside(path, refused)) if os.path.isdir(path) else [path]
        for file in found:
            absolute = file.absolute()
            if absolute not in seen:
                seen.add(absolute)
                yield absolute, file is path


def _inside(folder: Path, refused: Callable[[OSError], None]) -> Iterator[Path]:
    for where, _, names in os.walk(folder, onerror=refused):
        for path in (Path(where, name) for name in names):
            stat = _stat(path)
            if stat is None or S_ISREG(stat.st_mode):
                yield path


def kind_of(path: Path, *, named: bool) -> str:
    """As `keys.parse_key`, but files outside CloudTrail's folders count too, by what they are called."""
    if path.name == layout.MARKER:
        return "other"
    stat = _stat(path)
    info = keys.parse_key(path.as_posix(), stat.st_size if stat else None)
    if info.kind != "other":
        return info.kind
    for part, kind in (("_CloudTrail-Digest_", "digest"), ("_CloudTrail-Insight_", "insight")):
        if part in path.name:
            return kind
    return "log" if named or path.name.endswith(SUFFIXES) else "other"


def _stat(path: Path) -> os.stat_result | None:
    """None of a file that is gone, or that may not be seen."""
    try:
        return path.stat()
    except OSError:
        return None


def _log_file(path: Path) -> LogFile:
    info, stat = keys.parse_key(path.as_posix()), _stat(path)
    try:
        with path.open("rb") as file:
            etag = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        # On the ledger all the same: `read` says why, and it is quarantined, or gone.
        etag = f"unreadable-{stat.st_size}-{stat.st_mtime_ns}" if stat else "unreadable"
    return LogFile(
        key=as_text(str(path)),
        etag=etag,
        size=stat.st_size if stat else 0,
        last_modified=keys.named_minute(path.name),
        account=info.account,
        region=info.region,
        day=info.day,
    )
