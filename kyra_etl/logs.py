"""Lines for machines: what a run does, with the run's, integration's and batch's ids beside every line.

The command line talks to people by itself, so nothing is shown unless `log_format = "json"` asks for it; Prefect shows
the same lines on a run's page. No line carries a secret: ids, counts and keys of log files only.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

NAMES = ("run", "integration", "batch")

_about: ContextVar[dict[str, str]] = ContextVar("kyra_about", default={})  # noqa: B039  (never changed, only replaced)

logging.getLogger("kyra_etl").addHandler(
    logging.NullHandler()
)  # else warnings would reach standard error by themselves


class _Logger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": _about.get()}


def logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """The logger of a module, whose lines carry the ids of what is at work."""
    return _Logger(logging.getLogger(name))


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Every line of the block carries these ids: `run`, `integration`, `batch`."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """A line of JSON a record: time, level, logger, message, and the ids there are. Prefect's console takes it too."""

    def __init__(self, *_: object) -> None:
        super().__init__()  # Prefect's configuration names a format, which JSON has no use for

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name}
        line |= {name: record.__dict__[name] for name in NAMES if name in record.__dict__}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def to_json(stream: TextIO | None = None) -> None:
    """Write kyra's lines as JSON to `stream` (standard error), once however often it is asked for."""
    kyra = logging.getLogger("kyra_etl")
    if not any(isinstance(handler.formatter, JsonLines) for handler in kyra.handlers):
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(JsonLines())
        kyra.addHandler(handler)
    kyra.setLevel(logging.INFO)
