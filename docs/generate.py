"""Writes the parts of the documents that code knows better: `make docs`. A test fails when they are stale.

Generated text stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything else is left alone.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def columns(relation: str) -> str:
    """The columns of `events`, `activity` or `malformed` as a table."""
    from kyra_etl.cloudtrail import schema

    types = {"timestamp[us]": "timestamp", "date32[day]": "date", "bool": "boolean"}
    known = {"events": schema.EVENT_COLUMNS, "activity": schema.ACTIVITY_COLUMNS, "malformed": schema.MALFORMED_COLUMNS}
    rows = [
        f"| `{column.name}` | {types.get(str(column.type), str(column.type))} | {column.about} |"
        for column in known[relation]
    ]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def settings() -> str:
    """Every setting: key of kyra.toml, variable, meaning, default."""
    from kyra_etl.config import SETTINGS

    rows = [
        f"| `{one.key}` | `{one.variable}` | {one.about} | {'' if one.default is None else f'{one.default:,}'} |"
        for one in SETTINGS
    ]
    return "\n".join(["| kyra.toml | variable | meaning | default |", "|---|---|---|---|", *rows])


def verbs(group: Any, path: str = "kyra") -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with its full name, in the order of `--help`."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from verbs(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def commands() -> str:
    """Every verb of the command line with its arguments, help and options."""
    import typer.main

    from kyra_etl.cli import app

    parts = []
    for name, command in verbs(typer.main.get_command(app)):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden and one.help]
        usage = " ".join(
            [name, *(one.make_metavar(command.make_context(name, [], resilient_parsing=True)) for one in arguments)]
        )
        about = inspect.cleandoc(command.help or "").replace("\f", "")
        rows = [f"| `{', '.join(one.opts + one.secondary_opts)}` | {one.help} |" for one in options]
        table = "\n".join(["", "| option | meaning |", "|---|---|", *rows]) if rows else ""
        parts.append(f"### `{usage}`\n\n{about}\n{table}".rstrip())
    return "\n\n".join(parts)


def detections() -> str:
    """The built-in detections as a table, title, severity, ATT&CK, what it says."""
    from kyra_etl import resources
    from kyra_etl.detection.rule import Corpus

    corpus = Corpus.load([resources.detections_dir()])
    rows = [
        f"| `{one.id}` | {one.severity} | {', '.join(one.attack)} | {one.about} |"
        for one in sorted(corpus.detections, key=lambda one: one.id)
    ]
    return "\n".join(["| detection | severity | ATT&CK | fires when |", "|---|---|---|---|", *rows])


PARTS: dict[str, Callable[[], str]] = {
    "events": lambda: columns("events"),
    "activity": lambda: columns("activity"),
    "malformed": lambda: columns("malformed"),
    "settings": settings,
    "commands": commands,
    "detections": detections,
}


def renewed(text: str) -> str:
    """`text` with every generated part as it should be now."""

    def part(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n{PARTS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)


def documents() -> list[Path]:
    return sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


if __name__ == "__main__":
    for document in documents():
        document.write_text(renewed(document.read_text()))
