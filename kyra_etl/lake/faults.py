"""Failures of a file system, in words: what was tried, and what to do next."""

from __future__ import annotations

import pyarrow as pa

from kyra_etl.errors import LakeError


class telling:
    """Turns failures of a file system into LakeErrors that say what was tried."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, pa.ArrowException)):
            raise LakeError(f"Could not {self._what}: {_short(error)}.", _remedy(error)) from error


def _short(error: BaseException) -> str:
    text = (getattr(error, "strerror", None) or str(error)).strip().splitlines()[0]
    return text[:200].rstrip(".")


def _remedy(error: BaseException) -> str:
    code = getattr(error, "errno", None)
    if code == 28:
        return "Free some space; the next run takes up where this one stopped."
    if code in (13, 30):
        return "Give this user write access to the lake's folder, or set `lake` in kyra.toml to another one."
    return "Nothing was lost; the next run takes up where this one stopped."
