"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_CHANCE = random.SystemRandom()  # not the seeded one: two processes would ask for the same
_LOWEST, _HIGHEST = 12_000, 32_000


def free_port() -> int:
    """A port of this machine that nobody uses, for a server that takes a while to start.

    Not one that the system would give to anybody else who asks for any (from 32768 on, on Linux): in that while
    somebody does, and the server finds its port taken.
    """
    while True:
        port = _CHANCE.randint(_LOWEST, _HIGHEST)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
