"""The files under deploy/, as far as they can be checked without an engine: parsed, and held to what the code knows."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from kyra_etl import resources
from kyra_etl.cli import app
from kyra_etl.config import SETTINGS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROOT = DEPLOY.parent
VARIABLES = {setting.variable for setting in SETTINGS} | {"KYRA_HOME", "KYRA_DEBUG"}
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
UNITS = sorted((DEPLOY / "systemd").iterdir())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def files() -> list[Path]:
    folders = ("docker", "systemd", "helm")
    return sorted(path for folder in folders for path in (DEPLOY / folder).iterdir())


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_every_variable_is_one_of_ours(path: Path) -> None:
    assert set(re.findall(r"\bKYRA_[A-Z_]+\b", path.read_text())) - VARIABLES == set()


def test_the_image_runs_what_the_lock_pins_as_a_user_without_rights() -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if re.match(r"[A-Z]+ ", line)]
    copied = [step[1].split() for step in steps if step[0] == "COPY" and not step[1].startswith("--from")]

    assert all((ROOT / source).exists() for *sources, _ in copied for source in sources)
    assert "--require-hashes -r requirements.lock" in text
    names = [name for name, _ in steps]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert dict(steps)["USER"] == "kyra"
    assert {"HEALTHCHECK", "VOLUME"} <= set(names)
    assert yaml.safe_load(dict(steps)["CMD"]) == ["serve"]
    set_ = dict(pair.split("=", 1) for pair in dict(steps)["ENV"].split() if "=" in pair)
    written = {set_[name] for name in ("KYRA_HOME", "PREFECT_HOME", "PREFECT_UI_STATIC_DIRECTORY")}
    assert all(f"{folder}/".startswith(f"{dict(steps)['VOLUME']}/") for folder in written)
    assert yaml.safe_load(dict(steps)["HEALTHCHECK"].split("CMD ")[1])[1] in VERBS


def test_services_wait_for_healthy_ones_and_none_runs_as_root_or_listens_abroad(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert set(services) == {"postgres", "prefect", "runner", "metrics"}
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] == "service_started" or "healthcheck" in services[other]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name != "postgres":
            assert service["user"] == "kyra"
            assert service["cap_drop"] == ["ALL"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
    assert services["metrics"]["command"][0] in VERBS
    assert "flows.deployments" in services["runner"]["entrypoint"][-1]


def test_compose_keeps_what_is_large_off_memory_and_passwords_out_of_addresses(compose: dict[str, Any]) -> None:
    for name in ("runner", "metrics"):
        service = compose["services"][name]
        mounted = {volume.split(":")[1] for volume in service["volumes"]}
        assert service["tmpfs"] == ["/tmp"]
        assert service["environment"]["TMPDIR"] in mounted, "/tmp is memory, and a lake on S3 is staged in TMPDIR"
    for service in compose["services"].values():
        environment = service.get("environment", {})
        for address in (value for value in environment.values() if "postgresql" in value):
            assert "PASSWORD" not in address, "one with @ or / would break the address"
            assert "POSTGRES_PASSWORD" in environment["PGPASSWORD"]


def test_what_compose_asks_for_is_in_the_example_of_its_settings() -> None:
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "docker/compose.yaml").read_text()))
    lines = (DEPLOY / "docker/.env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    assert wanted <= set(given)
    assert {name: given[name] for name in given if re.search("PASSWORD|KEY", name)} == {
        "POSTGRES_PASSWORD": "",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
    }, "an example holds no secret"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_complete_and_run_verbs_that_exist(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())

    assert unit["Unit"]["Description"]
    if path.suffix == ".timer":
        assert path.with_suffix(".service").exists()
        assert unit["Install"]["WantedBy"] == "timers.target"
        return
    service = unit["Service"]
    assert service["ExecStart"].split()[1] in VERBS
    assert service["User"] == "kyra"
    assert service["NoNewPrivileges"] == "yes"


def test_the_documents_make_what_the_units_need_as_the_image_does() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    made = page.partition("### systemd")[2].partition("### Compose")[0]
    services = [path.read_text() for path in UNITS if path.suffix == ".service"]

    for text in services:
        assert f" {re.search(r'^User=(.+)$', text, re.MULTILINE)[1]}\n" in made.partition("useradd ")[2]  # type: ignore[index]
        home, program = re.search(r"^ExecStart=(/opt/kyra)/bin/(kyra) ", text, re.MULTILINE).groups()  # type: ignore[union-attr]
        assert f"python3 -m venv {home}\n" in made
        assert f"exec {home}/bin/{program} " in made, "by hand as by the unit"
        assert "KYRA_HOME=%S/kyra" in text
        assert "KYRA_HOME=/var/lib/kyra " in made
    steps = re.findall(r"/opt/kyra/bin/pip install .+", (DEPLOY / "docker/Dockerfile").read_text())
    assert re.findall(r"/opt/kyra/bin/pip install .+", made) == steps


def test_what_is_run_inside_compose_names_a_service_of_it(compose: dict[str, Any]) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    asked = re.findall(r"docker compose exec (?:-T )?(\w+) (\w+) (\w*)", page)

    assert {service for service, _, _ in asked} == {"runner"} <= set(compose["services"])
    assert {verb for _, program, verb in asked if program == "kyra"} <= VERBS
    assert "KYRA_STATE_URL" in compose["services"]["runner"]["environment"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_about_the_units(path: Path) -> None:
    ran = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    said = [line for line in ran.stderr.splitlines() if path.name in line and "not executable" not in line]

    assert [line for line in said if "No such file" not in line] == []


def test_cloudformation_s_own_schemas_take_the_template() -> None:
    cfnlint = pytest.importorskip("cfnlint.api")

    assert cfnlint.lint_file(DEPLOY / "customer/cloudformation.yaml") == []


def test_figures_can_be_scraped_from_beside_the_container_that_has_them(compose: dict[str, Any]) -> None:
    metrics = compose["services"]["metrics"]
    options = dict(zip(metrics["command"][1::2], metrics["command"][2::2], strict=True))

    assert options == {"--host": "0.0.0.0", "--port": "4201"}
    assert metrics["ports"] == ["127.0.0.1:4201:4201"]


def test_values_for_prefects_charts_name_the_pool_of_prefect_yaml() -> None:
    worker = yaml.safe_load((DEPLOY / "helm/prefect-worker.yaml").read_text())["worker"]
    pools = {one["work_pool"]["name"] for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}

    assert {worker["config"]["workPool"]} == pools
    assert worker["containerSecurityContext"]["runAsNonRoot"] is True
    assert yaml.safe_load((DEPLOY / "helm/prefect-server.yaml").read_text())["server"]["replicaCount"] == 1


def test_prefects_chart_for_workers_can_start_the_image_and_what_it_writes_is_mounted() -> None:
    image = (DEPLOY / "docker/Dockerfile").read_text().partition("\nFROM python")[2]
    worker = yaml.safe_load((DEPLOY / "helm/prefect-worker.yaml").read_text())["worker"]
    mounts = {one["mountPath"] for one in worker["extraVolumeMounts"]}

    # What the chart's templates/deployment.yaml has for a command: tini -g -- entrypoint, then the worker's arguments.
    assert "apt-get install --yes --no-install-recommends tini" in image
    assert "COPY deploy/docker/entrypoint.sh /opt/prefect/entrypoint.sh" in image
    started = subprocess.run([DEPLOY / "docker/entrypoint.sh", "echo", "a worker's", "start"], capture_output=True)
    assert started.stdout == b"a worker's start\n"

    user = re.search(r"useradd --uid (\d+)", image)
    contexts = worker["podSecurityContext"], worker["containerSecurityContext"]
    assert user is not None
    assert {context["runAsUser"] for context in contexts} == {int(user[1])}
    assert worker["containerSecurityContext"]["readOnlyRootFilesystem"] is True
    assert set(re.findall(r"^VOLUME (\S+)$", image, re.MULTILINE)) == mounts
    assert {one["name"] for one in worker["extraVolumeMounts"]} == {one["name"] for one in worker["extraVolumes"]}


def test_workers_take_the_flows_of_their_own_installation() -> None:
    steps = yaml.safe_load((ROOT / "prefect.yaml").read_text())["pull"]

    assert steps == [{"kyra_etl.resources.pull_flows": {}}]
    assert (Path(resources.pull_flows()["directory"]) / "flows/sync.py").exists()
