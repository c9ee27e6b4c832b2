"""What a driver's error means to a person: one line that names the database, and the next step."""

from __future__ import annotations

from kyra_etl.errors import StateError

_MEANINGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("database is locked", "database table is locked", "lock timeout", "deadlock detected"),
        "is locked by another process",
        "Wait until the other run has ended, then run the command again.",
    ),
    (
        ("readonly database", "read-only transaction"),
        "is read-only",
        "Make the file and its folder writable for this user, or point KYRA_STATE_URL elsewhere.",
    ),
    (
        ("unable to open database file", "disk i/o error"),
        "cannot be opened",
        "Check that its disk has room, that the path is a file, and that this user may write it and its folder.",
    ),
    (
        ("file is not a database", "malformed", "file is encrypted"),
        "is not a database, or is damaged",
        "Check the path, or restore the file from a backup.",
    ),
    (("database or disk is full", "no space left"), "has no room left", "Free space on its disk, then try again."),
    (
        ("password authentication failed", "no password supplied", "no pg_hba.conf entry"),
        "refused the user or the password",
        "Check user and password in KYRA_STATE_URL.",
    ),
    (
        ("does not exist",),
        "does not exist, or lacks a table",
        "Create the database first, and check its name in KYRA_STATE_URL.",
    ),
    (("permission denied",), "refuses this user", "Grant the user the right to create and change tables in it."),
    (
        (
            "connection refused",
            "could not translate host",
            "failed to resolve",
            "timeout expired",
            "connection timeout",
            "connection failed",
            "server closed the connection",
            "connection is lost",
            "terminating connection",
            "no such file or directory",
            "starting up",
            "too many clients",
        ),
        "cannot be reached",
        "Check that the server runs and that host and port in KYRA_STATE_URL are right.",
    ),
)


def explain(error: Exception, where: str) -> StateError:
    """`error` in our words. Shows neither parameters nor passwords."""
    cause = getattr(error, "orig", None) or error
    text = str(cause).strip()
    lowered = text.lower()
    for signs, meaning, remedy in _MEANINGS:
        if any(sign in lowered for sign in signs):
            return StateError(f"The state database {where} {meaning}.", remedy)
    line = text.splitlines()[0] if text else type(cause).__name__
    return StateError(f"The state database {where} failed: {line}", "If it happens again, please report it.")
