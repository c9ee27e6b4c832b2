"""Tables over all detections: what there is, and which ATT&CK techniques a recorded detonation verifies."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

VERIFIED = Path(__file__).resolve().parent.parent / "evaluation" / "verified.toml"


def overview() -> str:
    """Every built-in detection with its group, severity and ATT&CK ids, linked to its section."""
    from kyra_etl import resources
    from kyra_etl.detection.rule import Corpus

    corpus = Corpus.load([resources.detections_dir()])
    rows = [
        f"| [{one.title}](#{_anchor(one.title)}) | {one.group} | {one.severity} | "
        f"{', '.join([*(tag.id for tag in one.attack), *one.attack_legacy])} |"
        for one in sorted(corpus.detections, key=lambda one: (one.group, one.title))
    ]
    said = f"{len(rows)} detections. The severity is the usual one; each rates what it finds, row by row."
    return "\n".join([said, "", "| detection | group | severity | ATT&CK |", "|---|---|---|---|", *rows])


def coverage() -> str:
    """ATT&CK ids that a recorded detonation verifies, told apart from those that are merely named."""
    from kyra_etl import resources
    from kyra_etl.detection.attack import table
    from kyra_etl.detection.rule import Corpus

    known = table()
    naming: defaultdict[str, list[str]] = defaultdict(list)
    for one in Corpus.load([resources.detections_dir()]).detections:
        for tag in one.attack:
            naming[tag.id].append(one.id)
    verified = tomllib.loads(VERIFIED.read_text(encoding="utf-8"))
    shown = [
        f"| {_technique(id_)} | {', '.join(f'`{each}`' for each in by)} | "
        f"{', '.join(sorted({one for caught in by.values() for one in caught}))} |"
        for id_, by in verified.items()
    ]
    named = [
        f"| {_technique(id_)} | {', '.join(f'`{each}`' for each in naming[id_])} |"
        for id_ in sorted(naming.keys() - verified.keys())
    ]
    return "\n".join(
        [
            f"ATT&CK v{known.version}: {len(naming)} ids are named, {len(verified)} of them verified by a detonation: "
            "the recording of an attack raised an alert at medium or above, by a detection that names the id, on the "
            "calls that show the attack ([how that is measured](evaluation.md)).",
            "",
            "| verified | by | detonations caught |",
            "|---|---|---|",
            *shown,
            "",
            "| named, not verified | by |",
            "|---|---|",
            *named,
        ]
    )


def _technique(id_: str) -> str:
    from kyra_etl.detection.attack import table

    found = table().techniques[id_]
    return f"[{id_}]({found.url}) {found.name}"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
