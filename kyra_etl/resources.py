"""Where the files beside the code are: SQL, fixtures and flows, in a checkout and in an installed wheel.

A wheel carries them under `kyra_etl/_bundle`; a checkout has them beside the package.
"""

from __future__ import annotations

from pathlib import Path

from kyra_etl.errors import KyraError

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds `sql/`, `data/` and `flows/`."""
    bundle = _PACKAGE / "_bundle"
    # The bundle first: beside an installed package lies site-packages, where anybody may have put a folder "sql".
    return bundle if bundle.is_dir() else _PACKAGE.parent


def detections_dir() -> Path:
    """The built-in detections, `<group>/<id>.sql`."""
    return _folder("sql/detections")


def views_dir() -> Path:
    """The views and macros of an analyst's shell."""
    return _folder("sql/views")


def checks_dir() -> Path:
    """The checks of `kyra maintain check`."""
    return _folder("sql/checks")


def cases_dir() -> Path:
    """The cases of the built-in detections, `<group>/<id>.yaml`."""
    return _folder("data/fixtures/detections")


def demo_bucket() -> Path:
    """A small organization's bucket of CloudTrail log files, for `kyra demo`."""
    return _folder("data/fixtures/bucket")


def flows_root() -> Path:
    """The folder to run `python -m flows.serve` in."""
    return _folder("flows").parent


def pull_flows() -> dict[str, str]:
    """The pull step of `prefect.yaml`: a worker takes the flows of its own installation, whoever deployed them."""
    return {"directory": str(flows_root())}


def _folder(relative: str) -> Path:
    folder = root() / relative
    if not folder.is_dir():
        raise KyraError(f"kyra-etl is not complete: {folder} is missing.", "Install it again, or clone it again.")
    return folder
