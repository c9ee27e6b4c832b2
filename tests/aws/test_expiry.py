"""A role's session that expires in the middle of a run: S3 refuses it, and the run goes on with another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from werkzeug.wrappers import Response

from kyra_etl.aws.bucket import open_bucket
from kyra_etl.lake import open_lake
from kyra_etl.model import Integration, Limits
from kyra_etl.state import State
from kyra_etl.sync import sync
from tests.aws.conftest import Customer, key_of, log_file, utc_now
from tests.simulation import truth
from tests.wire import Call, Wire

FILES = 20
AFTER = 7
EXPIRED = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


def test_a_session_that_expires_in_the_middle_of_a_run_is_renewed_and_nothing_is_lost(
    customer: Customer, integration: Integration, wire: Wire, tmp_path: Path
) -> None:
    today = utc_now()
    bodies = {
        key_of(number, f"{today:%Y/%m/%d}"): log_file(number=number, at=f"{today:%Y-%m-%d}T00:00:00Z")
        for number in range(FILES)
    }
    for key, body in bodies.items():
        customer.put(key, body=body)
    bucket = open_bucket(integration)
    reads: list[str | None] = []
    expired: set[str | None] = set()
    lock = Lock()

    def clock_of(credentials: Any) -> Callable[[], datetime]:
        """An hour fast while the credentials are those that S3 refuses: they are a session at the end of its time."""

        def now() -> datetime:
            ended = credentials._frozen_credentials.access_key in expired
            return datetime.now(UTC) + timedelta(hours=ended)

        return now

    def expiring(call: Call) -> Response | None:
        if call.action != "s3:GetObject":
            return None
        with lock:
            reads.append(call.key)
            if len(reads) == 1:
                credentials = bucket.session._theirs._session.get_credentials()
                credentials._time_fetcher = clock_of(credentials)
            if len(reads) == AFTER:
                expired.add(call.key)
        return Response(EXPIRED, 400, content_type="application/xml") if call.key in expired else None

    wire.rules.append(expiring)
    with State.open(f"sqlite:///{tmp_path}/state.db") as state:
        report = sync(
            integration,
            bucket=bucket,
            lake=open_lake(str(tmp_path / "lake")),
            state=state,
            corpus=None,
            limits=Limits(batch_files=4, fetch_threads=2),
            clock=utc_now,
        )

    assert (report.loaded, report.quarantined, report.pending, report.events) == (FILES, 0, 0, FILES)
    assert len({key for key in reads if key is not None}) == 2
    assert wire.actions.count("sts:AssumeRole") == 2
    assert truth.events_in(tmp_path / "lake").keys() == truth.events_of(bodies.items())
