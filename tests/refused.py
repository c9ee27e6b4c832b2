"""Ways to refuse a real process what it needs: file permissions that hold for root too, and a disk that is full."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def held_to_permissions() -> list[str]:
    """What to put before a command so that file permissions hold for it; skips where root cannot be held to them."""
    if os.geteuid() != 0:
        return []
    tool = shutil.which("setpriv")
    if tool is None:
        pytest.skip("setpriv is not installed, and root may write anything")
    rights = "-dac_override,-dac_read_search"
    return [tool, f"--bounding-set={rights}", f"--inh-caps={rights}", "--"]


def on_a_small_disk(folder: Path, size: str) -> list[str]:
    """What to put before a command that finds a file system of `size` at `folder`, gone when it ends; skips without."""
    tool = shutil.which("unshare")
    become = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [str(tool), *become, "--mount", "--", "sh", "-c", f'mount -t tmpfs -o size={size} none "$0" && exec "$@"']
    command.append(str(folder))
    if tool is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return command


def close_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process may not look into folders of that name."""
    looking = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return looking(path)

    monkeypatch.setattr(os, "scandir", refused)
