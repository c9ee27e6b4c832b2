"""Settings → live parts: the only place where parts are chosen.

Each part is opened when it is first asked for, so that `kyra status` never loads what only a sync needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kyra_etl.config import Config
from kyra_etl.errors import ConfigError, UsageError
from kyra_etl.model import DataFile, Integration
from kyra_etl.ports import Clock, LogBucket, NoticeQueue, Progress

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from kyra_etl.aws.history import History
    from kyra_etl.detection.rule import Corpus
    from kyra_etl.lake import Lake
    from kyra_etl.lake.layout import Reach
    from kyra_etl.lake.query import Analyst
    from kyra_etl.run import Kit
    from kyra_etl.search import Search
    from kyra_etl.state import State


Skipped = Callable[[Sequence[str]], None]
"""Is told which files of the lake were left out, and why."""


def utc_now() -> datetime:
    """The machine's clock, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass
class Parts:
    """The parts of one installation, open until `close`."""

    config: Config
    clock: Clock = utc_now

    @cached_property
    def state(self) -> State:
        """The state database, made if it does not exist."""
        from kyra_etl.state import State

        return State.open(self.config.state_url)

    @cached_property
    def lake(self) -> Lake:
        """The lake, as readers need it: nothing is made."""
        from kyra_etl.lake import S3Options, open_lake

        options = S3Options(endpoint_url=self.config.lake_endpoint_url, region=self.config.lake_region)
        return open_lake(self.config.lake, options)

    @cached_property
    def corpus(self) -> Corpus:
        """The built-in detections and the user's own, with their params as set."""
        from kyra_etl import resources
        from kyra_etl.detection.rule import Corpus

        settings = self.config.detections
        for folder in settings.dirs[1:]:
            if not folder.is_dir():
                raise ConfigError(
                    f"{folder} (in detections.dirs of {self.config.file}) is not a folder.", "Mend or remove the entry."
                )
        return Corpus.load((resources.detections_dir(), *settings.dirs), settings.params, settings.disable)

    def for_run(self) -> dict[str, Any]:
        """The parts a journey takes, by name. Raises LakeError when the lake is another state's."""
        from kyra_etl import memory

        memory.give_back()
        self.lake.claim(self.state.id)
        return {
            "lake": self.lake,
            "state": self.state,
            "corpus": self.corpus,
            "limits": self.config.limits,
            "clock": self.clock,
        }

    def for_maintenance(self, progress: Progress) -> Kit:
        """The parts that housekeeping takes. Raises LakeError when the lake is another state's."""
        from kyra_etl import memory
        from kyra_etl.run import Kit

        memory.give_back()
        self.lake.claim(self.state.id)
        return Kit(self.lake, self.state, None, self.config.limits, self.clock, progress)

    def require_usable(self) -> None:
        """Raise what would fail every run to come: a state that cannot be written, a lake that is not ours …"""
        self.state.require_writable()
        self.for_run()

    def close(self) -> None:
        """Let go of the state database, if it was opened."""
        if "state" in self.__dict__:
            self.state.close()

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(config: Config) -> Parts:
    """The parts that the settings describe; a context manager."""
    return Parts(config)


def bucket_of(parts: Parts, integration: Integration, *, waiting: bool = False) -> LogBucket:
    """The integration's bucket: on S3, or a folder when its name is file:///…

    With somebody `waiting` for an answer, what AWS throttles or fails is not asked again for long.
    """
    if integration.bucket.startswith("file:"):
        from kyra_etl.folder import FolderBucket

        return FolderBucket.at(integration.bucket, clock=parts.clock)
    from kyra_etl.aws.bucket import open_bucket

    limits = parts.config.limits
    connections = max(limits.fetch_threads, limits.list_threads)
    endpoint_url, attempts = parts.config.aws_endpoint_url, 2 if waiting else 5
    return open_bucket(integration, endpoint_url=endpoint_url, connections=connections, attempts=attempts)


def history_of(parts: Parts, integration: Integration) -> History:
    """What LookupEvents tells of the integration's account. Raises UsageError for a folder."""
    if integration.bucket.startswith("file:"):
        raise UsageError(
            f"{integration.name} reads a folder, which has no history but its files.",
            f"Load a range of days: kyra backfill {integration.name} --from 2026-01-01",
        )
    from kyra_etl.aws.history import History
    from kyra_etl.aws.session import Session

    return History(Session(integration, endpoint_url=parts.config.aws_endpoint_url, connections=40), clock=parts.clock)


def region_of(parts: Parts, integration: Integration) -> str | None:
    """The region of the integration's bucket as AWS tells anybody; None for a folder, or when nobody answers."""
    if integration.bucket.startswith("file:"):
        return None
    from kyra_etl.aws import anonymous
    from kyra_etl.aws.session import Session
    from kyra_etl.errors import CollectError

    endpoint_url = parts.config.aws_endpoint_url
    try:
        region = Session(integration).region
        return anonymous.head(integration.bucket, region, endpoint_url=endpoint_url).get(anonymous.REGION_HEADER)
    except CollectError:
        return None


def queue_of(parts: Parts, integration: Integration) -> NoticeQueue | None:
    """The queue of notices about the integration's log files, if it has one."""
    if integration.queue_url is None:
        return None
    from kyra_etl.aws.queue import open_queue

    return open_queue(integration, endpoint_url=parts.config.aws_endpoint_url)


def status_of(parts: Parts, name: str | None = None) -> dict[str, Any]:
    """How every integration is, or one, by the state, the schedule and what detections have to learn."""
    from kyra_etl.status import status

    def learning() -> Mapping[str, timedelta]:
        from kyra_etl.detection.frontmatter import LONGEST

        days = {one.id: one.params.get("learning_days") for one in parts.corpus.detections if one.baseline}
        return {  # a param of that name in somebody's own detection may mean something else
            id: timedelta(days=max(0, min(param.value, LONGEST.days)))
            for id, param in days.items()
            if param is not None and param.type == "int"
        }

    every = timedelta(seconds=parts.config.sync_seconds)
    return status(parts.state, parts.clock(), name, every=every, learning=learning)


def publish_status(parts: Parts) -> None:
    """Let readers of the lake see how every integration is: once after the runs of many, not after each."""
    from kyra_etl.publish import publish_status

    publish_status(lake=parts.lake, state=parts.state, now=parts.clock())


def analyst(parts: Parts, skipped: Skipped | None = None) -> Analyst:
    """Read-only SQL over what is committed, and over the records of our own as they are at each query.

    With `skipped`, files that are not what the ledger says are left out, and it is told which.
    """
    from kyra_etl import resources
    from kyra_etl.lake import views
    from kyra_etl.lake.query import Analyst

    lake, ledger = parts.lake, parts.state.ledger

    def files(kind: str, within: Reach) -> Sequence[str]:
        known = ledger.data_files(kind, accounts=within.accounts, first=within.first, last=within.last)
        if skipped is not None:
            damaged = lake.damaged(known)
            skipped([f"{file.path}: {what}" for file, what in damaged.items()])
            known = [file for file in known if file not in damaged]
        return lake.readable(known)

    def prepare(connection: DuckDBPyConnection, sql: str) -> bool:
        lake.register(connection)
        words = set(re.findall(r"\w+", sql.lower()))
        named = bool(words & {*views.macro_names(resources.views_dir()), "duckdb_functions"})
        if named:  # not always: they take longer than most queries
            views.load_macros(connection, resources.views_dir())
        if "getvariable" in words:
            views.set_params(connection, parts.corpus.detections)
        return named

    return Analyst(files, _relations(parts), seconds=parts.config.query_seconds, prepare=prepare)


def init_script(parts: Parts) -> str:
    """What any DuckDB reads to open this lake's views, macros and params."""
    from kyra_etl import resources
    from kyra_etl.lake.script import script

    relations = _relations(parts)
    return script(
        parts.lake,
        resources.views_dir(),
        endpoint_url=parts.config.lake_endpoint_url,
        region=parts.config.lake_region,
        trails=relations["trails"](),
        accounts=relations["accounts"](),
        detections=parts.corpus.detections,
    )


def search_of(
    parts: Parts, query: str, *, limit: int | None, after: str | None = None, skipped: Skipped | None = None
) -> Search:
    """A search over what is committed. Raises QueryError for a query that cannot be read."""
    from kyra_etl.search import Search

    ledger = parts.state.ledger

    def files(within: Reach) -> Sequence[DataFile]:
        return ledger.data_files("events", accounts=within.accounts, first=within.first, last=within.last)

    return Search(analyst(parts, skipped), files, query, now=parts.clock(), limit=limit, after=after)


def _relations(parts: Parts) -> Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]]:
    """How to get the rows of each relation that is not in the lake's files."""
    from kyra_etl.status import rows

    state, all_of = parts.state, chain.from_iterable

    return {
        "alerts": lambda: all_of(state.alerts.every()),
        "alert_events": lambda: all_of(state.alerts.every_event()),
        "log_files": lambda: all_of(state.ledger.log_files()),
        "sync_runs": lambda: ({**(run["report"] or {}), **run} for run in all_of(state.runs.every())),
        "status": lambda: rows(status_of(parts)),
        "trails": state.integrations.trails,
        "accounts": lambda: [
            {"account": each.account_id, "integration": each.name} for each in state.integrations.list()
        ],
    }
