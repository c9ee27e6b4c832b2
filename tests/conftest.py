"""What every test can rely on: an empty environment, a home of its own, and S3 over real HTTP.

No test reads the developer's AWS configuration, KYRA_* settings or ~/.kyra.
"""

from __future__ import annotations

import functools
import os
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import lookup, planted
from tests import postgres as installed
from tests.wire import WIRE, Wire

if TYPE_CHECKING:
    from kyra_etl.lake import Lake

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# The same examples on every machine: a red build can be repeated. HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither KYRA_* nor AWS_* of the caller reach a test; credentials are fake and lead nowhere."""
    for name in list(os.environ):
        if name.startswith(("KYRA_", "AWS_")):
            monkeypatch.delenv(name)
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(nowhere / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(nowhere / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "KYRA_HOME": str(nowhere / "home"),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Nothing waits for the disk: what that guards against is a loss of power, and no test makes one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr("kyra_etl.state.database.SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="session", autouse=True)
def models() -> Iterator[None]:
    """boto3's descriptions of AWS are read once, where each session would read its own: half of what a client costs."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture
def kyra_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty KYRA_HOME, also for processes the test starts."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("KYRA_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public CloudTrail records kept beside the repository, where a machine has them; never copied into it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """URL of one AWS look-alike for the whole session; tests ask for `s3_server`, which empties it first."""
    from moto import backends
    from moto.cloudtrail.responses import CloudTrailResponse
    from moto.moto_server import threaded_moto_server
    from moto.server import ThreadedMotoServer

    application = threaded_moto_server.DomainDispatcherApplication
    patch = pytest.MonkeyPatch()
    patch.setattr(CloudTrailResponse, "lookup_events", lookup.in_moto, raising=False)
    services = frozenset(backends.list_of_moto_modules())  # else looked for on the disk at each request
    patch.setattr(backends, "list_of_moto_modules", lambda: services)
    patch.setattr(threaded_moto_server, "DomainDispatcherApplication", lambda make: WIRE.around(application(make)))
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    patch.undo()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 asks again at once: for what never answers, or only with an error."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)


@pytest.fixture
def s3_server(moto_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty S3 (and STS, SQS, SNS, CloudTrail …) over HTTP; every AWS client of the test goes there.

    Read-only, proven: whatever the test did, it used a customer's role for nothing beyond the published policy, and
    for optional additions only where the mark `additions` names them.
    """
    from kyra_etl.aws.policies import ADDITIONS, DEFAULT_ACTIONS

    urllib.request.urlopen(urllib.request.Request(f"{moto_server}/moto-api/reset", method="POST"), timeout=120).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    WIRE.calls.clear()
    WIRE.rules.clear()
    lookup.MOTO.clear()
    yield moto_server
    added = [action for mark in request.node.iter_markers("additions") for action in _actions(mark.args, ADDITIONS)]
    assert WIRE.beyond([*DEFAULT_ACTIONS, *added]) == [], "the customer's role was used for more than its policy allows"


def _actions(names: tuple[str, ...], additions: Mapping[str, Any]) -> list[str]:
    return [action for name in names for action in additions[name].actions]


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """An empty lake: in a folder, and once more on S3 over HTTP."""
    import boto3

    from kyra_etl.lake import S3Options, open_lake

    if request.param == "folder":
        return open_lake(str(tmp_path / "lake"))
    endpoint = request.getfixturevalue("s3_server")
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="lake")
    return open_lake("s3://lake/kyra", S3Options(endpoint, "us-east-1", "testing", "testing"))


@pytest.fixture
def wire() -> Wire:
    """What arrives at the AWS look-alike."""
    WIRE.calls.clear()
    return WIRE


# ── secrets ──


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[planted.Watch]:
    """No planted secret comes up in what a test prints; see tests/planted.py."""
    watch = planted.Watch()
    watch.install(monkeypatch)
    yield watch
    assert watch.seen == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Nor in what pytest captured of it, log included."""
    report = yield
    if report.when == "teardown" and report.passed:
        found = [f"{secret} in {title}" for title, text in report.sections for secret in planted.leaks(text)]
        if found:
            report.outcome, report.longrepr = "failed", f"secrets came up: {found}"
    return report


@pytest.fixture(scope="session", autouse=True)
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor in a file that any test of this worker left: logs, JSON, artifacts, databases."""
    yield
    folders = [tmp_path_factory.getbasetemp(), *filter(None, [os.environ.get("PREFECT_HOME")])]
    assert [leak for folder in folders for leak in planted.in_folder(Path(folder))] == []


@pytest.fixture(scope="session")
def postgres() -> Iterator[installed.Server]:
    """One PostgreSQL server for the whole session; tests make databases of their own in it."""
    with installed.server() as running:
        yield running
