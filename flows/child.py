"""`python -m flows.child MODULE [ARGUMENT…]`: a module as a program that ends when its parent does.

Its standard input is a pipe the parent holds open and never writes to. However the parent ends, the pipe closes, and
the child is told to stop; so nothing of `kyra serve` is ever left behind on its port.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from threading import Thread


def _stop_with_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    Thread(target=_stop_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
