"""Prefect in tests: a home of its own, and silent, before anything imports it."""

from __future__ import annotations

import os
import tempfile

import flows  # noqa: F401  (sets the switches)

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="kyra-prefect-")
