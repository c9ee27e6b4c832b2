"""An installed wheel is complete: it needs no checkout beside it."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def build(what: str, into: Path) -> Path:
    """Build a wheel or an sdist of the checkout, without fetching anything."""
    program = f"import sys; from hatchling.build import build_{what}; print(build_{what}(sys.argv[1]))"
    ran = subprocess.run([sys.executable, "-c", program, str(into)], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return into / ran.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds the wheel, and borrows its dependencies from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A path named in a .pth file comes after the wheel, and the .pth files in it (an editable kyra-etl) are not read.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_wheel_carries_sql_fixtures_flows_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    beside = {
        f"kyra_etl/_bundle/{path.relative_to(ROOT).as_posix()}"
        for folder in ("sql", "data/fixtures/bucket", "data/fixtures/detections", "flows")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert beside - names == set()
    assert "kyra_etl/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"kyra_etl"}


def test_sdist_carries_what_make_needs(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    files = {"Makefile", "requirements.lock", "requirements-dev.lock", "tests/conftest.py", "README.md", "LICENSE"}
    assert files - names == set()
    assert any(name.startswith("sql/detections/") for name in names)


def test_demo_runs_from_an_installed_wheel(installed: Path, tmp_path: Path, kyra_home: Path) -> None:
    where = run(installed, "-c", "import kyra_etl; print(kyra_etl.__file__)", cwd=tmp_path).stdout.strip()
    assert where.startswith(str(installed.parent.parent))

    ran = run(installed, "-c", "from kyra_etl.cli import main; main()", "detections", "list", cwd=tmp_path)
    assert (ran.returncode, ran.stdout.count("_") > 7) == (0, True), ran.stderr

    ran = run(installed, "-c", "from kyra_etl.cli import main; main()", "demo", "--json", cwd=tmp_path)
    assert ran.returncode in (0, 3), ran.stderr
    assert '"root_account_usage"' in ran.stdout


def test_flows_start_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    root = run(installed, "-c", "from kyra_etl import resources; print(resources.flows_root())", cwd=tmp_path)
    ran = run(installed, "-c", "import flows.serve; print(flows.serve.__file__)", cwd=Path(root.stdout.strip()))

    assert ran.returncode == 0, ran.stderr
    assert "_bundle/flows/serve.py" in ran.stdout
