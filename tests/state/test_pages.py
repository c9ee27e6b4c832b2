"""What may be a million rows is read some thousands at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kyra_etl.state import State, database
from tests.state.making import NOW, file, finding, sync


def test_pages_hold_every_row_once_in_order(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAGE", 3)
    for n in range(7):
        sync(state, [file(n), file(n + 100)], NOW + timedelta(minutes=n))
    found = [finding(f"e{n}", alert=f"a{n // 2}", minutes=n) for n in range(8)]
    state.alerts.record("d", title="D", attack=[], attack_legacy=[], findings=found, now=NOW, look=1)

    def told(pages: object, *names: str) -> list[tuple[object, ...]]:
        every = list(pages)  # type: ignore[call-overload]
        assert all(0 < len(page) <= 3 for page in every)
        return [tuple(row[name] for name in names) for page in every for row in page]

    assert told(state.ledger.log_files(), "key") == [(file(m).key,) for n in range(7) for m in (n, n + 100)]
    runs = told(state.runs.every(), "run_id", "started_at")
    assert runs == [(run["run_id"], run["started_at"]) for run in reversed(state.runs.recent())]
    assert told(state.alerts.every(), "alert_id", "event_ids") == [
        (f"a{n}", [f"e{2 * n}", f"e{2 * n + 1}"]) for n in range(4)
    ]
    assert told(state.alerts.every_event(), "alert_id", "event_id") == [(f"a{n // 2}", f"e{n}") for n in range(8)]
