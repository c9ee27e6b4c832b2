"""No run reads through what earlier runs left: every query of a sync finds its rows by an index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy import event

from kyra_etl import config, resources, wiring
from kyra_etl.integrations import make_integration
from kyra_etl.sync import sync

HISTORY = ("log_files", "run_files", "batches", "runs", "data_files", "partitions", "findings", "alerts")
HISTORY += ("alert_events", "alert_moves")
"""Tables that grow with time."""

ENDLESS = re.compile(
    rf"SCAN ({'|'.join(HISTORY)})\b|SEARCH log_files USING .*INDEX \w+ \(integration=\?( AND bucket=\?)?\)"
    r"|SEARCH data_files USING .*INDEX \w+ \((live|published)=\?\)"
)
"""Reading all of such a table, or all that one integration ever had, or all that is in the lake."""


def test_no_query_of_a_run_reads_a_table_of_history_from_end_to_end(kyra_home: Path) -> None:
    asked: dict[str, Any] = {}

    def note(_connection: object, _cursor: object, statement: str, params: Any, _context: object, many: bool) -> None:
        asked.setdefault(statement, params[0] if many else params)

    with wiring.open(config.load({"KYRA_HOME": str(kyra_home)})) as parts:
        integration = make_integration("demo", bucket=resources.demo_bucket().as_uri(), now=parts.clock())
        parts.state.integrations.add(integration, parts.clock())
        event.listen(parts.state._database._engine, "before_cursor_execute", note)
        for _ in range(2):
            report = sync(integration, bucket=wiring.bucket_of(parts, integration), **parts.for_run())
        assert (report.already_loaded > 0, report.alerts) == (True, 0)
        with parts.state._database.read() as connection:
            cursor = connection.connection.cursor()
            plans = {
                statement: [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", params).fetchall()]
                for statement, params in list(asked.items())
                if statement.startswith(("SELECT", "UPDATE", "DELETE")) or "SELECT" in statement
            }

    assert len(plans) > 50
    assert {statement: plan for statement, plan in plans.items() if any(map(ENDLESS.match, plan))} == {}
