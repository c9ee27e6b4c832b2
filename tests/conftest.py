"""What every test can rely on: an empty environment, a home of its own, and S3 over real HTTP.

No test reads the developer's AWS configuration, KYRA_* settings or ~/.kyra.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import postgres as installed

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
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_server(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty S3 (and STS, SQS, SNS, CloudTrail …) over HTTP; every AWS client of the test goes there."""
    urllib.request.urlopen(urllib.request.Request(f"{moto_server}/moto-api/reset", method="POST"), timeout=30).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    return moto_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[installed.Server]:
    """One PostgreSQL server for the whole session; tests make databases of their own in it."""
    with installed.server() as running:
        yield running
