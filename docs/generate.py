"""Writes the parts of the documents that code knows better: `make docs`. A test fails when they are stale.

Generated text stands between `<!-- generated: NAME -->` and `<!-- end -->`, and the README's transcripts below their
commands; everything else is left alone.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docs import coverage, transcripts  # noqa: E402


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


def tables() -> str:
    """The records of our own that lie beside `events/`: a table of columns each."""
    from kyra_etl.lake.tables import TABLES, meaning

    types = {
        "timestamp[us]": "timestamp",
        "date32[day]": "date",
        "bool": "boolean",
        "list<item: string>": "list of strings",
    }
    parts = []
    for table, schema in TABLES.items():
        rows = [
            f"| `{field.name}` | {types.get(str(field.type), str(field.type))} | {text(meaning(table, field.name))} |"
            for field in schema
        ]
        parts += [f"### `{table}`", "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])]
    return "\n\n".join(parts)


def settings() -> str:
    """Every setting: key of kyra.toml, variable, meaning, default."""
    from kyra_etl.config import SETTINGS

    rows = [f"| `{one.key}` | `{one.variable}` | {text(one.about)} | {_default(one.default)} |" for one in SETTINGS]
    return "\n".join(["| kyra.toml | variable | meaning | default |", "|---|---|---|---|", *rows])


def metrics() -> str:
    """Every metric: name, type, labels, meaning."""
    from kyra_etl.metrics import METRICS

    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {text(one.about)} |"
        for one in METRICS
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows])


def _default(value: int | str | None) -> str:
    """As kyra.toml would say it."""
    if isinstance(value, str):
        return f'`"{value}"`'
    return "" if value is None else str(value) if value < 10**5 else f"{value:_}"


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
    """Every verb of the command line with its arguments, help and options; `--json` is said once, by hand."""
    import typer.main

    from kyra_etl.cli import app

    parts = []
    for name, command in verbs(typer.main.get_command(app)):
        options = [one for one in command.params if one.param_type_name == "option" and one.help and not one.hidden]
        rows = [f"| `{', '.join(one.opts)}` | {text(one.help)} |" for one in options if "--json" not in one.opts]
        context = command.make_context(name, [], resilient_parsing=True)
        pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
        usage = " ".join([name, *(re.sub(r"^[{[]+(\w+)[.\]}]*$", _argument, piece) for piece in pieces)])
        parts += [f"### `{usage}`", text(inspect.cleandoc(command.help))]
        if rows:
            parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _argument(match: re.Match[str]) -> str:
    """An argument as people write it: NAME, [NAME], PATH…, [ID…]."""
    name = match[1] + ("…" if "..." in match[0] else "")
    return f"[{name}]" if match[0].startswith("[") else name


def text(words: str) -> str:
    """Words of the code as Markdown: <…> is not a tag, and * is no emphasis."""
    return words.replace("<", "&lt;").replace("*", "\\*")


EIGHT = (
    "root_account_usage",
    "iam_user_created",
    "mfa_disabled",
    "security_group_open",
    "cloudtrail_disabled",
    "s3_bucket_public",
    "unusual_region",
    "access_key_leaked",
)
"""The detections the README shows: those the demo's story sets off."""


def detections() -> str:
    """The eight of the README as a table: title, severity, ATT&CK, what it says."""
    from kyra_etl import resources
    from kyra_etl.detection.rule import Corpus

    known = {one.id: one for one in Corpus.load([resources.detections_dir()]).detections}
    rows = [
        f"| {one.title} | {one.severity} | {', '.join([*(tag.id for tag in one.attack), *one.attack_legacy])} "
        f"| {text(one.about)} |"
        for one in map(known.__getitem__, EIGHT)
    ]
    return "\n".join(["| detection | severity | ATT&CK | what happened |", "|---|---|---|---|", *rows])


def catalogue() -> str:
    """Every built-in detection in full: what it says, why, what is harmless, its params and its runbook."""
    from kyra_etl import resources
    from kyra_etl.detection.attack import table
    from kyra_etl.detection.rule import Corpus

    known = table()
    parts = []
    for one in Corpus.load([resources.detections_dir()]).detections:
        techniques = [
            f"[{tag.id}]({known.techniques[tag.id].url}) {known.techniques[tag.id].name}: {tag.why}"
            for tag in one.attack
        ]
        former = [f"{id_}, since revoked for {known.revoked[id_].revoked_by}" for id_ in one.attack_legacy]
        parts += [
            f"### {one.title}",
            f"`{one.id}`, {one.severity} unless told otherwise. {text(one.about)}",
            _bullets(f"ATT&CK v{known.version}", [*techniques, *former]),
            _bullets("Harmless when", [text(each) for each in one.benign]),
        ]
        if one.params:
            rows = [
                f"| `{param.name}` | {param.type} | `{_toml(param.default)}` | {text(param.about)} |"
                for param in one.params.values()
            ]
            parts.append("\n".join(["| param | type | default | meaning |", "|---|---|---|---|", *rows]))
        parts += [f"What to do:\n\n{text(one.runbook)}", _bullets("More", [f"<{each}>" for each in one.references])]
    return "\n\n".join(parts)


def _bullets(title: str, items: list[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"- {item}" for item in items)])


def macros() -> str:
    """The table macros, with what they take and tell."""
    import duckdb

    from kyra_etl import resources
    from kyra_etl.lake import views

    with duckdb.connect() as connection:
        views.load_macros(connection, resources.views_dir())
        known = connection.execute(
            "SELECT function_name, parameters, comment FROM duckdb_functions() "
            "WHERE function_type = 'table_macro' AND NOT internal ORDER BY function_name"
        ).fetchall()
    rows = [f"| `{name}({', '.join(params)})` | {text(about)} |" for name, params, about in known]
    return "\n".join(["| macro | what it tells |", "|---|---|", *rows])


def _toml(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


# ── what a customer puts in place ──


def example() -> Any:
    """The integration of the documents: everything it can have but a queue."""
    from kyra_etl.model import Integration

    return Integration(
        "prod",
        "example-cloudtrail-logs",
        account_id="111122223333",
        role_arn="arn:aws:iam::111122223333:role/kyra-etl",
        external_id="example-external-id",
        region="eu-west-1",
        sns_topic_arn="arn:aws:sns:eu-west-1:111122223333:cloudtrail",
        organization_id="o-a1b2c3d4e5",
    )


OURS = "999988887777"
"""The account that kyra-etl runs in, in the documents."""


def permission_policy() -> str:
    from kyra_etl.aws import policies

    return _json(policies.permission_policy(example()))


def trust_policy() -> str:
    from kyra_etl.aws import policies

    return _json(policies.trust_policy(example(), OURS))


def additions() -> str:
    """The optional permissions: what switches each on, its actions, its reason."""
    from kyra_etl.aws.policies import ADDITIONS, CHOSEN

    switch = {name: f"`--also {name}`" for name in CHOSEN} | {
        "kms": "`--kms-key-arn` of `kyra integration policy`, or the key that `kyra check` has seen",
        "queue": "`--queue-url` in the role's account",
    }
    rows = [
        f"| `{one.sid}` | {', '.join(f'`{action}`' for action in one.actions)} | {text(one.reason)} | {switch[name]} |"
        for name, one in ADDITIONS.items()
    ]
    return "\n".join(["| Sid | actions | reason | asked for by |", "|---|---|---|---|", *rows])


def key_statement() -> str:
    from kyra_etl.aws import policies

    return _json(policies.key_statement(example()))


def trail_commands() -> str:
    """The commands for somebody who has no trail yet."""
    from kyra_etl.aws import commands, policies

    found = commands.sections(example(), policies.documents(example(), trusted=OURS))
    blocks = ["\n".join([f"# {one.title}", *one.commands]) for one in found if not one.needed]
    return "<!-- needs AWS -->\n```sh\n" + "\n\n".join(blocks) + "\n```"


def probes() -> str:
    """Every probe of `kyra check`: what it asks, and the permission it needs."""
    from kyra_etl import check

    asks = {
        row[0]: row[1]
        for line in (check.__doc__ or "").splitlines()
        if line.startswith("| ") and (row := [cell.strip() for cell in line.strip("|").split("|")])
    }
    rows = [f"| `{name}` | {asks[name]} | {f'`{needs}`' if needs else ''} |" for name, needs, _ in check.QUESTIONS]
    return "\n".join(["| probe | asks | permission |", "|---|---|---|", *rows])


def troubleshooting() -> str:
    """What kyra says when AWS refuses, and what to do: the error table, without what passes by itself."""
    from kyra_etl.aws.failures import TABLE

    words = {"subject": "…", "operation": "the call", "action": "the action", "bucket": "BUCKET", "region": ""}
    words |= {"caller": "this machine's identity", "text": "AWS's own words"}
    shown: dict[str, str] = {}
    for row in TABLE:
        if row.kind != "transient" or row.name == "unreachable":
            said = row.says.format(**words).removeprefix("…: ")
            shown.setdefault(said[0].upper() + said[1:], row.remedy.format(**words))
    rows = [f"| {text(said)} | {text(remedy)} |" for said, remedy in shown.items()]
    return "\n".join(["| kyra says | do |", "|---|---|", *rows])


def _json(document: Any) -> str:
    import json

    return f"```json\n{json.dumps(document, indent=2)}\n```"


PARTS: dict[str, Callable[[], str]] = {
    "events": lambda: columns("events"),
    "activity": lambda: columns("activity"),
    "malformed": lambda: columns("malformed"),
    "tables": tables,
    "settings": settings,
    "commands": commands,
    "metrics": metrics,
    "detections": detections,
    "catalogue": catalogue,
    "macros": macros,
    "overview": coverage.overview,
    "coverage": coverage.coverage,
    "permission_policy": permission_policy,
    "trust_policy": trust_policy,
    "additions": additions,
    "key_statement": key_statement,
    "trail_commands": trail_commands,
    "probes": probes,
    "troubleshooting": troubleshooting,
}


def renewed(text: str) -> str:
    """`text` with every generated part as it should be now."""

    def part(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n{PARTS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)


def documents() -> list[Path]:
    return sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def params() -> str:
    """`sql/views/params.sql`: the detections' params at their defaults, for plain DuckDB shells."""
    from kyra_etl import resources
    from kyra_etl.detection.rule import Corpus
    from kyra_etl.lake.views import param_settings

    statements = param_settings(Corpus.load([resources.detections_dir()]).detections)
    return "\n".join(["-- The detections' params at their defaults. Generated: `make docs`.", *statements, ""])


def shell() -> str:
    """`sql/views/shell.sql`: reads everything a detection's SELECT needs into a DuckDB shell."""
    macros = sorted((ROOT / "sql/views/macros").glob("*.sql"))
    return "\n".join(
        [
            "-- Everything a detection's SELECT needs, for the duckdb shell, from the folder that holds sql/:",
            "--   SET VARIABLE lake = '/…/lake';",
            "--   .read sql/views/shell.sql",
            "-- Generated: `make docs`.",
            ".read sql/views/relations.sql",
            *(f".read {path.relative_to(ROOT)}" for path in macros),
            ".read sql/views/params.sql",
            "",
        ]
    )


def cloudformation() -> str:
    from kyra_etl.aws import templates

    return templates.cloudformation()


def terraform() -> str:
    from kyra_etl.aws import templates

    return templates.terraform()


FILES: dict[str, Callable[[], str]] = {
    "sql/views/params.sql": params,
    "sql/views/shell.sql": shell,
    "deploy/customer/cloudformation.yaml": cloudformation,
    "deploy/customer/main.tf": terraform,
}
"""Files that are generated whole."""


if __name__ == "__main__":
    for path, made in FILES.items():
        (ROOT / path).write_text(made())
    for document in documents():
        document.write_text(renewed(document.read_text()))
    readme = ROOT / "README.md"
    with tempfile.TemporaryDirectory() as home:
        readme.write_text(transcripts.renewed(readme.read_text(), transcripts.Session(Path(home)).run))
