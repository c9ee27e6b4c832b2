"""Settings, read once at the edge: KYRA_* variables over `kyra.toml` over defaults, into one frozen value.

The only module that reads the environment. Every setting is a key of `<KYRA_HOME>/kyra.toml` and, in capitals behind
`KYRA_`, a variable: `lake` is KYRA_LAKE. Two exceptions: KYRA_HOME and KYRA_DEBUG are variables only, and detections
and prices are set up in the file only:

    [detections]
    dirs = ["/srv/detections"]              # besides <KYRA_HOME>/detections
    disable = ["unusual_region"]

    [detections.console_login_failures]     # params of one detection, as its file declares them
    threshold = 10

    [retain]                                # days that an account's events are kept, instead of retain_days
    111122223333 = 400                      # 0: for ever

    [prices]                                # of kyra_etl/prices.toml, where yours differ; US dollars for one
    data_event = 0.0000012

A key nobody knows is an error that names the nearest one: a misspelt setting must not be a silent default.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kyra_etl import prices
from kyra_etl.errors import ConfigError
from kyra_etl.model import Limits
from kyra_etl.prices import Prices

FILE = "kyra.toml"


@dataclass(frozen=True, slots=True)
class Detections:
    """The user's say about detections; ids and params are checked against the corpus, where it is loaded."""

    dirs: tuple[Path, ...] = ()
    """The user's own, besides the built-in ones; a folder that does not exist holds none."""
    disable: tuple[str, ...] = ()
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By detection id, then by param."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. `state_url` may carry a password and stays out of `repr`."""

    home: Path
    lake: str
    state_url: str = field(repr=False)
    aws_endpoint_url: str | None
    lake_endpoint_url: str | None
    lake_region: str | None
    sync_seconds: int
    serve_port: int
    metrics_port: int
    log_format: str
    task_runner: str
    task_workers: int
    dask_address: str | None
    query_seconds: int
    limits: Limits
    detections: Detections
    prices: Prices

    @property
    def file(self) -> Path:
        """Where kyra.toml is, or would be."""
        return self.home / FILE


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `parse` takes what the file holds, or the variable's text, and the folder of relative paths."""

    key: str
    about: str
    parse: Callable[[Any, Path], Any]
    default: Any = None

    @property
    def variable(self) -> str:
        return f"KYRA_{self.key.upper()}"


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value.strip()


def _place(value: Any, base: Path) -> str:
    """A URL as it is; a path made absolute."""
    text = _text(value, base)
    return text if "://" in text else str((base / Path(text).expanduser()).absolute())


def _database(value: Any, base: Path) -> str:
    """A place; SQLAlchemy would look for sqlite:///state.db in the folder of whoever runs."""
    text, scheme = _text(value, base), "sqlite:///"
    path = text.removeprefix(scheme)
    relative = path != text and path and not path.startswith(("/", ":", "file:"))
    return f"{scheme}{_place(path, base)}" if relative else _place(text, base)


def _whole(least: int, most: int) -> Callable[[Any, Path], int]:
    def parse(value: Any, base: Path) -> int:
        wanted = f"a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(wanted)
        try:
            number = int(value)
        except ValueError:
            raise ValueError(wanted) from None
        if not least <= number <= most:
            raise ValueError(wanted)
        return number

    return parse


def _one_of(*names: str) -> Callable[[Any, Path], str]:
    def parse(value: Any, base: Path) -> str:
        if value not in names:
            raise ValueError(" or ".join(names))
        return str(value)

    return parse


LOGS = ("text", "json")
RUNNERS = ("threads", "processes", "dask")

_LIMITS = Limits()
_BOUNDS: tuple[tuple[str, str, int, int], ...] = (
    ("batch_bytes", "Compressed bytes of log files in a batch", 1, 2**40),
    ("batch_memory", "Bytes of decoded rows a batch keeps in memory; more wait in temporary files", 2**10, 2**40),
    ("batch_files", "Log files in a batch", 1, 100_000),
    ("max_object_bytes", "Uncompressed size beyond which a log file is quarantined", 1, 2**40),
    ("fetch_threads", "Log files fetched at the same time", 1, 256),
    ("decode_processes", "Processes that decode a large load; 0 for one a core", 0, 256),
    ("lookback_days", "Days before today that every sync lists", 0, 3_660),
    ("list_threads", "Folders listed at the same time", 1, 256),
    ("list_seconds", "Seconds that a sync lists; folders left over come first in the next", 1, 86_400),
    ("list_budget_run", "LIST requests of a sync", 1, 10**9),
    ("list_budget_day", "LIST requests of an integration's syncs in a day, spread over it", 1, 10**9),
    ("backfill_files", "Log files that a backfill lists before it loads them", 1, 10**7),
    ("lease_seconds", "Seconds after which a dead run's work is taken over", 10, 86_400),
    ("compact_after_days", "Days after which a day counts as finished, and is compacted", 0, 36_600),
    ("compact_memory", "Bytes of memory that compacting may take before it goes to disk", 2**27, 2**40),
    ("replaced_hours", "Hours that files stay which others took the place of, for readers under way", 0, 87_600),
    ("retain_days", "Days that events are kept; without it, for ever", 1, 36_600),
)

SETTINGS: tuple[Setting, ...] = (
    Setting("lake", "The lake: a folder, or s3://bucket/prefix (default <KYRA_HOME>/lake)", _place),
    Setting("state_url", "The state database: a file, or postgresql://… (default <KYRA_HOME>/state.db)", _database),
    Setting("aws_endpoint_url", "Address that stands in for AWS when log files are collected", _text),
    Setting("lake_endpoint_url", "Address of the S3 that holds the lake, if it is not AWS's", _text),
    Setting("lake_region", "Region of the lake's bucket", _text),
    Setting("sync_seconds", "Seconds between the syncs of `kyra serve`", _whole(10, 86_400), 300),
    Setting("serve_port", "Port of the Prefect server of `kyra serve`", _whole(1, 65_535), 4200),
    Setting("metrics_port", "Port of the metrics of `kyra serve`; 0 for none", _whole(0, 65_535), 4201),
    Setting("log_format", "json for a line of JSON an event, on standard error; text for none", _one_of(*LOGS), "text"),
    Setting("task_runner", "What flows load batches by: threads, processes or dask", _one_of(*RUNNERS), "threads"),
    Setting("task_workers", "Processes or local Dask workers; 0 for one a core", _whole(0, 1024), 0),
    Setting("dask_address", "Address of a Dask scheduler; without it, a local cluster", _text),
    Setting("query_seconds", "Seconds after which a query is stopped", _whole(1, 86_400), 300),
    *(Setting(key, about, _whole(least, most), getattr(_LIMITS, key)) for key, about, least, most in _BOUNDS),
)

_VARIABLES_ONLY = ("KYRA_HOME", "KYRA_DEBUG")

# Kubernetes puts these into every container beside a service called "kyra".
_KUBERNETES = re.compile(r"KYRA_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")


def load(environ: Mapping[str, str] | None = None) -> Config:
    """The settings in force. `environ` stands in for the environment. Raises ConfigError."""
    env = os.environ if environ is None else environ
    home = home_of(env)
    table = _read(home / FILE)
    known = {setting.key for setting in SETTINGS}
    _refuse_unknown(table, {*known, "detections", "prices", "retain"}, str(home / FILE))
    _refuse_unknown(
        [name for name in env if name.startswith("KYRA_") and not _KUBERNETES.fullmatch(name)],
        {*_VARIABLES_ONLY, *(setting.variable for setting in SETTINGS)},
        "the environment",
    )
    values = {setting.key: _value(setting, table, env, home) for setting in SETTINGS}
    limits = Limits(**{name: values.pop(name) for name, *_ in _BOUNDS}, retain=_retain(table, home))
    values["lake"] = values["lake"] or str(home / "lake")
    values["state_url"] = values["state_url"] or str(home / "state.db")
    # Arrow reads AWS's variables too, but then asks for bucket.host, which S3 look-alikes seldom answer.
    theirs = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    values["lake_endpoint_url"] = values["lake_endpoint_url"] or theirs
    detections = _detections(table.get("detections", {}), home)
    return Config(home=home, limits=limits, detections=detections, prices=_prices(table, home), **values)


def home_of(environ: Mapping[str, str] | None = None) -> Path:
    """KYRA_HOME, or ~/.kyra."""
    env = os.environ if environ is None else environ
    return Path(env.get("KYRA_HOME") or "~/.kyra").expanduser().absolute()


def debug() -> bool:
    """Whether KYRA_DEBUG asks for tracebacks."""
    return os.environ.get("KYRA_DEBUG", "") not in ("", "0")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)), None)


def child_environment(home: Path, path: Path) -> dict[str, str]:
    """This environment for a Python program that finds the settings in `home`, and modules in `path`, not here."""
    paths = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"KYRA_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    return {**os.environ, **ours}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend that line.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read: {why}.", "Mend it, or remove it to use the defaults.") from None


def _refuse_unknown(found: Iterable[str], known: set[str], where: str) -> None:
    for name in found:
        if name not in known:
            near = nearest(name, known)
            hint = f"Did you mean {near}?" if near else f"Known are: {', '.join(sorted(known))}."
            raise ConfigError(f"There is no setting {name} (in {where}).", hint)


def _value(setting: Setting, table: Mapping[str, Any], env: Mapping[str, str], home: Path) -> Any:
    if env.get(setting.variable, "") != "":
        value: Any = env[setting.variable]
        name, where, base = setting.variable, "in the environment", Path.cwd()
    elif setting.key in table:
        value, name, where, base = table[setting.key], setting.key, f"in {home / FILE}", home
    else:
        return setting.default
    try:
        return setting.parse(value, base)
    except ValueError as error:
        raise ConfigError(f"{name} {where} must be {error}.", f"It sets: {setting.about}.") from None


def _prices(table: Mapping[str, Any], home: Path) -> Prices:
    own, known = table.get("prices", {}), prices.table()
    where = f"[prices] of {home / FILE}"
    if not isinstance(own, dict):
        raise ConfigError(f"prices in {home / FILE} must be a table.", "Write it as [prices].")
    _refuse_unknown(own, set(known.usd), where)
    for name, value in own.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ConfigError(
                f"{name} in {where} must be US dollars for one.", f"For example {name} = {known.usd[name]}."
            )
    return known.corrected(own)


def _retain(table: Mapping[str, Any], home: Path) -> dict[str, int]:
    """Days by account."""
    own, where = table.get("retain", {}), f"[retain] of {home / FILE}"
    if not isinstance(own, dict):
        raise ConfigError(f"retain in {home / FILE} must be a table.", "Write it as [retain], with a line an account.")
    for account, days in own.items():
        if not re.fullmatch(r"\d{12}", account):
            raise ConfigError(f"{account} in {where} is no account.", "For example 111122223333 = 400.")
        if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= 36_600:
            raise ConfigError(f"{account} in {where} must be a number of days.", "0 keeps its events for ever.")
    return dict(own)


def _detections(table: Any, home: Path) -> Detections:
    path = home / FILE
    own = (home / "detections",)
    if not isinstance(table, dict):
        raise ConfigError(f"detections in {path} must be a table.", "Write it as [detections].")
    params = {name: value for name, value in table.items() if isinstance(value, dict)}
    lists = {name: value for name, value in table.items() if name not in params}
    _refuse_unknown(lists, {"dirs", "disable"}, f"[detections] of {path}")
    for name, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ConfigError(f"detections.{name} in {path} must be a list of texts.", f'For example {name} = ["…"].')
    dirs = tuple((home / Path(item).expanduser()).absolute() for item in lists.get("dirs", []))
    return Detections(own + dirs, tuple(lists.get("disable", [])), params)
