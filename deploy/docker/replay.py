"""The image's steps without an engine: `make image` replays the Dockerfile below a folder of its own.

Packages are fetched as pip is set up here, so PIP_NO_INDEX and PIP_FIND_LINKS make it work offline. `COPY . .` takes
what is committed. The image's user and Debian's packages are left out: all runs as whoever starts it, on what there is.
The health check has to succeed at last.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def steps(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Instruction and argument of each step, in order."""
    for line in re.sub(r"\\\n\s*", " ", dockerfile).splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, _, argument = line.partition(" ")
            yield instruction, argument


def variables(argument: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What an ENV step sets."""
    pairs = (word.partition("=") for word in shlex.split(argument))
    return {name: re.sub(r"\$(\w+)", lambda found: environ.get(found[1], ""), value) for name, _, value in pairs}


def replay(root: Path) -> None:
    """Build below `root`, then run the health check as the image would. Raises CalledProcessError."""
    env, folder, image = {**os.environ, "PYTHONNOUSERSITE": "1"}, root, False
    home = root / "var/lib/kyra"
    for instruction, argument in steps((ROOT / "deploy/docker/Dockerfile").read_text()):
        here = argument.replace("/opt/", f"{root}/opt/").replace("/var/", f"{root}/var/")
        print(f"{instruction} {argument}", flush=True)
        if instruction == "FROM":
            image = not argument.endswith(" AS build")
        elif instruction == "ENV":
            env |= variables(here, env)
        elif instruction == "WORKDIR":
            folder = root / argument.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY" and argument == ". .":
            files = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x"], cwd=folder, check=True, input=files)
        elif instruction == "COPY" and not image:
            (folder / argument.split()[0]).write_bytes((ROOT / argument.split()[0]).read_bytes())
        elif instruction == "COPY" and not argument.startswith("--from"):
            source, target = argument.split()
            (root / target.lstrip("/")).parent.mkdir(parents=True)
            shutil.copy(ROOT / source, root / target.lstrip("/"))
        elif instruction == "RUN" and argument.startswith("useradd "):
            home.mkdir(parents=True)
        elif instruction == "RUN" and argument.startswith("apt-get "):
            pass
        elif instruction == "RUN":
            command = here.replace("python -m", f"{sys.executable} -m", 1) if here.startswith("python ") else here
            subprocess.run(shlex.split(command), cwd=folder, env=env, check=True)
        elif instruction == "HEALTHCHECK":
            check = json.loads(argument.partition("CMD ")[2])
            program = shutil.which(check[0], path=env["PATH"])
            subprocess.run([program, *check[1:]], cwd=home, env={**env, "HOME": str(home)}, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kyra-image-") as made:
        replay(Path(made).resolve())
    print("The image's steps work, and its health check succeeds.")
