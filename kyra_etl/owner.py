"""Who holds a lease: a name that others on the same machine can tell to be dead.

A lease ends by itself; knowing that its process is gone only spares the next run the wait. Where that cannot be known
(another machine, another container, a platform without /proc) nobody is called dead.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path


def owner_of(name: str) -> str:
    """The owner's name for what this process does: the run or the batch it works on, place, process."""
    return f"{name} {_place()} {os.getpid()} {_started(os.getpid())}"


def name_of(owner: str) -> str:
    """The run or batch an owner's name begins with."""
    return owner.partition(" ")[0]


def is_gone(owner: str) -> bool:
    """Whether the process behind the name is known to have ended."""
    parts = owner.split(" ")
    if len(parts) != 4 or parts[1] != _place() or not parts[2].isdigit() or not parts[3]:
        return False
    return _started(int(parts[2])) != parts[3]


@lru_cache(maxsize=1)
def _place() -> str:
    """This boot of this machine, as seen from this namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return f"{socket.gethostname()}/unknown"
    return f"{socket.gethostname()}/{boot}/{namespace}"


def _started(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty when it does not run or cannot be asked.

    Without it a process id that is in use again would pass for the old process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    # A zombie has ended; only its parent has not noticed yet.
    return "" if fields[0] in ("Z", "X") else fields[19]
