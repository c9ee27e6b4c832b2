"""Small detections and log files for tests of the engine."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from kyra_etl.detection.rule import Corpus
from kyra_etl.lake import Lake, open_lake
from kyra_etl.load import load
from kyra_etl.model import Limits, RunReport
from kyra_etl.state import State

NOW = datetime(2026, 1, 20)

FRONT = """\
-- ---
-- title        = "{title}"
-- severity     = "medium"
-- attack       = [{{ id = "T1078.004", why = "a test" }}]
-- about        = "A test."
-- group_by     = ["account", "target"]
-- group_window = "1h"
{more}-- ---
"""

SELECT = """\
SELECT event_id, event_time, account, aws_region AS region, principal AS actor, source_ip_address AS source_ip,
  event_name AS target, 'seen' AS summary
FROM events
"""


def write_detection(folder: Path, id: str, *, more: str = "", sql: str = SELECT) -> Path:
    """A detection file in `<folder>/test/`; `more` are further lines of front matter, each beginning with `-- `."""
    path = folder / "test" / f"{id}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FRONT.format(title=id.replace("_", " ").title(), more=more) + sql)
    return path


def record(name: str, at: str, id: str, **fields: Any) -> dict[str, Any]:
    """A CloudTrail record; `at` is its time on 2026-01-10."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/a", "accountId": "111122223333"},
        "eventTime": f"2026-01-10T{at}Z",
        "eventSource": "iam.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "sourceIPAddress": "198.51.100.7",
        "eventID": id,
        "recipientAccountId": "111122223333",
        **fields,
    }


class House:
    """A state and a lake in a folder, with a corpus of detections to load files by."""

    def __init__(self, folder: Path, lake: Lake | None = None) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.detections = folder / "detections"
        self.state = State.open(str(folder / "state.db"))
        self.lake = lake or open_lake(str(folder / "lake"))
        self.lake.claim(self.state.id)
        self._files = 0

    @property
    def corpus(self) -> Corpus:
        return Corpus.load([self.detections])

    def load(self, *records: dict[str, Any], detect: bool = True) -> RunReport:
        """Load the records as one log file, and so as one batch."""
        self._files += 1
        path = self.folder / f"{self._files}.json"
        path.write_text(json.dumps({"Records": records}))
        return load(
            [path],
            lake=self.lake,
            state=self.state,
            corpus=self.corpus if detect else None,
            limits=Limits(),
            clock=lambda: NOW,
        )
