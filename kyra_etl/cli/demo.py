"""`kyra demo`: the whole road, offline, over the bucket that comes with the code."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kyra_etl import config
from kyra_etl.cli.alerts import alert_table
from kyra_etl.cli.output import count, emit, show
from kyra_etl.cli.progress import progress
from kyra_etl.errors import UsageError

INTEGRATION = "demo"
_MARK = ".kyra-demo"


def demo(
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to set it up, anew each time; <KYRA_HOME>/demo without it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """A tour, offline: log files → sync → detections → alerts → status.

    Nothing is canned: the log files lie in data/fixtures/bucket, and this is the sync that reads AWS.
    """
    from kyra_etl import resources, wiring
    from kyra_etl.cli.report import report_lines
    from kyra_etl.cli.status import show_status
    from kyra_etl.integrations import make_integration
    from kyra_etl.sync import sync

    place = _fresh((home or config.home_of() / "demo").expanduser().absolute())
    bucket = resources.demo_bucket()
    with wiring.open(config.load({"KYRA_HOME": str(place)})) as parts:
        integration = make_integration(INTEGRATION, bucket=bucket.as_uri(), now=parts.clock())
        parts.state.integrations.add(integration, parts.clock())
        with progress() as drawn:
            report = sync(integration, bucket=wiring.bucket_of(parts, integration), **parts.for_run(), progress=drawn)
        alerts = parts.state.alerts.list()
        found = wiring.status_of(parts)
    if json:
        emit({"alerts": [asdict(alert) for alert in alerts], "status": found})
        return
    show(f"Synced the log files of a small organization ({_short(bucket)}):")
    for line in report_lines(report, noun="log file"):
        show(f"  {line}")
    show(f"\n{count(len(alerts), 'alert')}, the latest first:\n")
    show(alert_table(alerts))
    show("\nStatus:\n")
    show_status(found, whole=False)
    show("\nTry next:\n")
    before = f"KYRA_HOME={_short(place, quote=True)} {_ourselves()}"
    shown = next((alert for alert in alerts if alert.severity in ("high", "critical")), alerts[0] if alerts else None)
    if shown:
        show(f"  {before} alerts show {shown.alert_id[:8]}")
    show(f"  {before} search 'event_name:Create* -error_code:*' --limit 10")
    show(f"  {before} sql 'SELECT principal, count(*) AS calls FROM events GROUP BY 1 ORDER BY 2 DESC LIMIT 5'")
    show(f"  {before} quarantine list")


def _fresh(place: Path) -> Path:
    """The folder, emptied if a demo made it. Raises UsageError for any other that is not empty."""
    if place.is_dir() and any(place.iterdir()):
        if not (place / _MARK).is_file():
            raise UsageError(
                f"{place} is not empty, and no demo made it.", "Give another folder: kyra demo --home DIR."
            )
        shutil.rmtree(place)
    elif place.exists() and not place.is_dir():
        raise UsageError(f"{place} is not a folder.", "Give another one: kyra demo --home DIR.")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
        (place / _MARK).touch()
    except OSError as error:
        raise UsageError(f"{place} cannot be made: {error.strerror}.", "Give another: kyra demo --home DIR.") from None
    return place


def _ourselves() -> str:
    """How the person would call this program: `kyra`, or its path where that is not on theirs."""
    script = Path(sys.executable).parent / "kyra"
    if not script.exists() or shutil.which("kyra") == str(script):
        return "kyra"
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def _short(path: Path, *, quote: bool = False) -> str:
    """A path as a person writes it, from here or from home."""
    if not quote and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    if path.is_relative_to(Path.home()):
        rest = str(path.relative_to(Path.home()))
        return f"~/{shlex.quote(rest) if quote else rest}"
    return shlex.quote(str(path)) if quote else str(path)
