"""`kyra detections`: the corpus."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import Json, opened
from kyra_etl.cli.output import cell, count, emit, facts, printable, say, show, span, table
from kyra_etl.cli.progress import progress
from kyra_etl.errors import DetectionError, UsageError

if TYPE_CHECKING:
    from kyra_etl.detection.rule import Corpus, Detection
    from kyra_etl.wiring import Parts

app = typer.Typer(help="The detections: list, read, test, lint, begin a new one.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the detection.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of detections; all without.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """All detections, the built-in ones and your own."""
    with opened() as parts:
        corpus = parts.corpus
    disabled = {detection.id for detection in corpus.disabled}
    every = sorted((*corpus.detections, *corpus.disabled), key=lambda each: each.id)
    if json:
        emit([_plain(each, enabled=each.id not in disabled) for each in every])
    else:
        rows = [
            [
                *(each.id, each.title, each.severity, [one.id for one in each.attack], each.group),
                "no" if each.id in disabled else "",
            ]
            for each in every
        ]
        show(table(("id", "title", "severity", "ATT&CK", "group", "enabled"), rows, keep=("id", "severity")))
    for problem in corpus.problems:
        say(printable(str(problem.error)))


@app.command("show")
def show_(id: Id, json: Json = False) -> None:
    """One detection: what it finds, what is harmless, what to do, its params and its SQL."""
    with opened() as parts:
        found = parts.corpus.get(id)
        enabled = found in parts.corpus.detections
        took = _took(parts, id)
    if json:
        emit({**_plain(found, enabled=enabled), "seconds": took, "sql": found.sql})
        return
    show(
        facts(
            [
                ("detection", f"{found.id} ({found.title})"),
                ("severity", found.severity),
                ("enabled", enabled),
                ("group by", ", ".join(found.group_by)),
                ("within", span(found.group_window.total_seconds())),
                ("last took", None if took is None else f"{took * 1000:.0f} ms"),
                ("file", found.path),
            ]
        )
    )
    show(f"\n{found.about.strip()}\n")
    for attack in found.attack:
        show(f"{attack.id}: {attack.why}")
    for benign in found.benign:
        show(f"Harmless: {benign}")
    for param in found.params.values():
        show(f"Param {param.name} = {cell(param.value)} ({param.type}) {param.about}".rstrip())
    if found.runbook:
        show(f"\nRunbook\n{found.runbook.strip()}")
    show(f"\n{found.sql}")


@app.command()
def lint(ids: Ids = None, json: Json = False) -> None:
    """What a reviewer would say: front matter, ATT&CK ids, and the SQL against the real columns."""
    from kyra_etl import resources
    from kyra_etl.detection import review
    from kyra_etl.lake.engine import problems

    with opened() as parts:
        corpus = parts.corpus
        chosen = _chosen(corpus, ids)
    said = [str(problem.error) for problem in corpus.problems if not ids or problem.detection in ids]
    said += [line for detection in chosen for line in review.lint(detection)]
    said += [str(error) for error in problems(chosen, resources.views_dir())]
    if json:
        emit({"detections": len(chosen), "problems": said})
    for line in said:
        say(printable(line))
    if not said and not json:
        show(f"{count(len(chosen), 'detection')}: nothing to say.")
    raise typer.Exit(1 if said else 0)


@app.command("test")
def run_tests(ids: Ids = None, json: Json = False) -> None:
    """Run the cases of detections: records that must raise alerts, and records that must not.

    Cases that cannot be read and SQL that fails are told; the others are run.
    """
    from kyra_etl import resources
    from kyra_etl.cases import load_cases, run_cases

    with opened() as parts:
        corpus = parts.corpus
        chosen = {detection.id for detection in _chosen(corpus, ids)}
        places = [resources.cases_dir(), *parts.config.detections.dirs]
    cases, unread = [], []
    for id in sorted(chosen):
        try:
            cases += load_cases(places, id)
        except DetectionError as error:
            unread.append((id, str(error)))
    with progress() as drawn:
        drawn.stage("Testing", len(cases))
        results = []
        for result in run_cases(cases, corpus):
            results.append(result)
            drawn.advance()
    said = [str(problem.error) for problem in corpus.problems if not ids or problem.detection in ids]
    said += [error for _, error in unread]
    said += [f"{id} has no cases." for id in sorted(chosen - {case.detection for case in cases} - {*dict(unread)})]
    said += [f"{result.case}: {'; '.join(result.failures)}" for result in results if not result.passed]
    if json:
        plain = [
            {"detection": one.case.detection, "case": one.case.name, "passed": one.passed, "failures": one.failures}
            for one in results
        ]
        emit({"cases": plain, "problems": said})
    else:
        rows = [
            (
                id,
                *(
                    sum(one.case.detection == id and one.passed is passed for one in results)
                    for passed in (True, False)
                ),
            )
            for id in sorted(chosen)
        ]
        show(table(("detection", "passed", "failed"), rows))
    for line in said:
        say(printable(line))
    raise typer.Exit(1 if said else 0)


@app.command()
def new(
    title: Annotated[str, typer.Argument(metavar="TITLE", help='What it finds, for example "Flow Logs Deleted".')],
    group: Annotated[str, typer.Option(help="Folder to put it into.")] = "own",
    json: Json = False,
) -> None:
    """Begin a detection of your own: writes its SQL and its cases, which work, for you to change."""
    from kyra_etl.cli import template
    from kyra_etl.detection.frontmatter import id_of

    with opened() as parts:
        id, folder = id_of(title), parts.config.detections.dirs[0] / group
        known = {each.id for each in (*parts.corpus.detections, *parts.corpus.disabled)}
        known |= {problem.detection for problem in parts.corpus.problems}
    if not re.fullmatch(r"[a-z][a-z0-9_]{2,60}", id) or not re.fullmatch(r"[a-z0-9_-]+", group):
        raise UsageError(
            f"{title!r} in {group!r} makes no file name.", 'Give words of letters, for example "Flow Logs Deleted".'
        )
    if id in known:
        raise UsageError(f"There is a detection {id} already.", "Choose another title.")
    files = {folder / f"{id}.sql": template.detection(id, title), folder / f"{id}.yaml": template.cases(id)}
    try:
        parts.config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be made: {error.strerror}.", "Make room for it, then repeat."
        ) from None
    if json:
        emit({"id": id, "files": [str(path) for path in files]})
    else:
        show("\n".join(str(path) for path in files))
        say(f"Change them, then: kyra detections test {id}")


def _took(parts: Parts, id: str) -> float | None:
    """Seconds it took in the latest run that it had something to look at; None when there was none of late."""
    reports = (run["report"] for run in parts.state.runs.recent(limit=100) if run["report"])
    return next((seconds[id] for report in reports if id in (seconds := report["detect"]["seconds"])), None)


def _chosen(corpus: Corpus, ids: list[str] | None) -> list[Detection]:
    """The detections named, or all; those whose files are broken are told apart."""
    broken = {problem.detection for problem in corpus.problems}
    if ids is None or not ids:
        return [*corpus.detections, *corpus.disabled]
    return [corpus.get(id) for id in ids if id not in broken]


def _plain(detection: Detection, *, enabled: bool) -> dict[str, Any]:
    return {
        "id": detection.id,
        "title": detection.title,
        "severity": detection.severity,
        "attack": [attack.id for attack in detection.attack],
        "attack_legacy": detection.attack_legacy,
        "about": detection.about,
        "group": detection.group,
        "enabled": enabled,
        "benign": detection.benign,
        "event_names": sorted(detection.event_names),
        "group_by": detection.group_by,
        "group_window": detection.group_window.total_seconds(),
        "lookback": detection.lookback.total_seconds(),
        "baseline": detection.baseline.total_seconds(),
        "params": {
            param.name: {"type": param.type, "default": param.default, "value": param.value, "about": param.about}
            for param in detection.params.values()
        },
        "runbook": detection.runbook,
        "references": detection.references,
        "path": detection.path,
    }
