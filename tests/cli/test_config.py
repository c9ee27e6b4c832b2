"""Settings: where they come from, which wins, and what a wrong one is told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from kyra_etl import config
from kyra_etl.errors import ConfigError
from kyra_etl.model import Limits


def load(home: Path, text: str = "", **environ: str) -> config.Config:
    home.mkdir(exist_ok=True)
    (home / "kyra.toml").write_text(text)
    return config.load({"KYRA_HOME": str(home), **environ})


def test_defaults_lie_in_the_home(tmp_path: Path) -> None:
    settings = config.load({"KYRA_HOME": str(tmp_path)})

    assert settings.lake == str(tmp_path / "lake")
    assert settings.state_url == str(tmp_path / "state.db")
    assert settings.detections.dirs == (tmp_path / "detections",)
    assert settings.limits == Limits()
    assert (settings.sync_seconds, settings.serve_port) == (300, 4200)


def test_home_is_dot_kyra_by_default() -> None:
    assert config.home_of({}) == Path("~/.kyra").expanduser()


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    text = 'lake = "s3://bucket/lake"\nbatch_files = 10\nlookback_days = 0'
    settings = load(tmp_path, text, KYRA_BATCH_FILES="20", KYRA_LAKE="")

    assert settings.lake == "s3://bucket/lake"
    assert (settings.limits.batch_files, settings.limits.lookback_days) == (20, 0)


def test_relative_paths_start_at_the_file_or_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"

    assert load(home, 'lake = "data"').lake == str(home / "data")
    assert load(home, KYRA_LAKE="data").lake == str(tmp_path / "data")
    assert load(home, 'state_url = "sqlite:///books.db"').state_url == f"sqlite:///{home}/books.db"
    assert load(home, KYRA_STATE_URL="sqlite:///books.db").state_url == f"sqlite:///{tmp_path}/books.db"


@pytest.mark.parametrize(
    "url", ["sqlite:////srv/kyra/state.db", "sqlite:///:memory:", "postgresql://db/kyra", "sqlite://"]
)
def test_addresses_that_depend_on_no_folder_stay_as_they_are(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f'state_url = "{url}"').state_url == url


def test_detections_are_set_up_by_tables(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[detections]\ndirs = ["more"]\ndisable = ["unusual_region"]\n[detections.mfa_disabled]\ntrusted = ["x"]\n',
    )

    assert settings.detections.dirs == (tmp_path / "detections", tmp_path / "more")
    assert settings.detections.disable == ("unusual_region",)
    assert settings.detections.params == {"mfa_disabled": {"trusted": ["x"]}}


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("lakes = 1", {}, "There is no setting lakes (in {home}/kyra.toml). Did you mean lake?"),
        (
            "",
            {"KYRA_STATE_URI": "x"},
            "There is no setting KYRA_STATE_URI (in the environment). Did you mean KYRA_STATE_URL?",
        ),
        ("[detections]\nfolders = []", {}, "There is no setting folders (in [detections] of {home}/kyra.toml)."),
        ("[detections]\ndirs = 'x'", {}, "detections.dirs in {home}/kyra.toml must be a list of texts."),
        ("detections = 1", {}, "detections in {home}/kyra.toml must be a table."),
        ("serve_port = 'x'", {}, "serve_port in {home}/kyra.toml must be a whole number from 1 to 65535."),
        ("serve_port = true", {}, "serve_port in {home}/kyra.toml must be a whole number"),
        ("serve_port = 1.5", {}, "serve_port in {home}/kyra.toml must be a whole number"),
        (
            "",
            {"KYRA_SERVE_PORT": "99999"},
            "KYRA_SERVE_PORT in the environment must be a whole number from 1 to 65535.",
        ),
        ("lake = ''", {}, "lake in {home}/kyra.toml must be a text that is not empty."),
        ("lake = ", {}, "{home}/kyra.toml is not valid TOML"),
    ],
)
def test_wrong_setting_is_told_with_its_place(tmp_path: Path, text: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)

    assert said.format(home=tmp_path) in str(caught.value)
    assert caught.value.remedy


def test_a_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffserve_port = 4300").serve_port == 4300


def test_variables_that_kubernetes_makes_are_let_be(tmp_path: Path) -> None:
    load(
        tmp_path,
        KYRA_SERVICE_HOST="10.0.0.1",
        KYRA_PORT="tcp://10.0.0.1:80",
        KYRA_PORT_80_TCP_ADDR="10.0.0.1",
        KYRA_WEB_SERVICE_PORT="80",
    )


def test_password_of_the_state_stays_out_of_repr(tmp_path: Path) -> None:
    settings = load(tmp_path, KYRA_STATE_URL="postgresql://kyra:secret@host/db")

    assert settings.state_url == "postgresql://kyra:secret@host/db"
    assert "secret" not in repr(settings)


def test_lake_on_s3_is_where_aws_clients_of_this_machine_go(tmp_path: Path) -> None:
    assert load(tmp_path, AWS_ENDPOINT_URL="http://localhost:9000").lake_endpoint_url == "http://localhost:9000"
    assert load(tmp_path, 'lake_endpoint_url = "http://a"', AWS_ENDPOINT_URL="http://b").lake_endpoint_url == "http://a"


def test_every_setting_says_what_it_is_and_has_a_field(tmp_path: Path) -> None:
    settings = config.load({"KYRA_HOME": str(tmp_path)})
    for setting in config.SETTINGS:
        assert setting.about
        assert hasattr(settings, setting.key) or hasattr(settings.limits, setting.key)
    tables = {"retain"}
    assert {limit.name for limit in fields(Limits)} <= {setting.key for setting in config.SETTINGS} | tables
