"""Prefect in tests: a home of its own, and silent, before anything imports it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

import flows  # noqa: F401  (sets the switches)

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="kyra-prefect-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server of the test session's own: flows are called as they are, and their artifacts can be read."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=400):
        yield
