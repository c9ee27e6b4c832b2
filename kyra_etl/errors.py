"""Every failure kyra-etl knows, and what its user can do about it.

    KyraError                       says what happened (message) and what to do next (remedy)
    ├── UsageError                  the command or a setting is wrong                       exit 2
    │   ├── ConfigError             kyra.toml or a KYRA_* variable
    │   ├── QueryError              a search or an SQL statement
    │   └── UnknownName             no such integration, alert, detection …
    ├── DetectionError              a detection file cannot be read, or its SQL fails
    ├── StateError                  the state database
    │   ├── CommitRefused           somebody else owns the batch by now: drop the work
    │   └── VersionMismatch         a partition moved since deduplication read it: deduplicate again
    ├── LakeError                   the lake's directory or bucket
    │   └── DamagedFile             one committed file of it cannot be read; the others can
    ├── CollectError                talking to the customer's side
    │   ├── TransientError          throttled, timed out, 5xx: the same call may work later
    │   └── AccessError             refused: somebody has to change a permission
    └── ObjectError                 one log file cannot be had or read; the others go on
        ├── ObjectGone              it no longer exists
        └── DecodeError             its bytes are not a CloudTrail log file

Exit codes: 0 done, 1 failed, 2 usage, 3 done with something quarantined.
"""

from __future__ import annotations

from typing import Any


class KyraError(Exception):
    """What happened, in one line, and the next step. Never shown with a traceback."""

    exit_code = 1
    report: Any = None
    """The RunReport of a run that did all that could be done and counts as failed all the same."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        # Decoding processes send errors back; by default an exception is made again from its message alone.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[KyraError], arguments: tuple[object, ...], state: dict[str, object]) -> KyraError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class UsageError(KyraError):
    """The command, a setting or an argument is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """kyra.toml or a KYRA_* variable cannot be used."""


class QueryError(UsageError):
    """A search or an SQL statement cannot be run."""


class UnknownName(UsageError):
    """There is no integration, alert or detection of that name."""


class DetectionError(KyraError):
    """A detection file cannot be read, or its SQL fails; names file and line."""


class StateError(KyraError):
    """The state database refused or cannot be reached."""


class CommitRefused(StateError):
    """The batch belongs to a later attempt, or is committed already; nothing was written."""


class VersionMismatch(StateError):
    """A partition was changed by another commit since deduplication read it; nothing was written."""


class LakeError(KyraError):
    """The lake's directory or bucket cannot be read or written."""


class DamagedFile(LakeError):
    """A committed file of the lake cannot be read, although the lake answers."""


class CollectError(KyraError):
    """A call on the customer's side failed."""


class TransientError(CollectError):
    """Throttled, timed out or failed on the server's side: the same call may work later."""


class AccessError(CollectError):
    """Refused for want of a permission: somebody has to change a setting."""


class ObjectError(KyraError):
    """One log file cannot be had or read. `reason` is the quarantine's word for it."""

    def __init__(self, reason: str, message: str, remedy: str = "", *, permanent: bool = False) -> None:
        super().__init__(message, remedy)
        self.reason = reason
        self.permanent = permanent


class ObjectGone(ObjectError):
    """The log file no longer exists in the bucket."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__("vanished", message, remedy, permanent=True)


class DecodeError(ObjectError):
    """The bytes are not a CloudTrail log file; reading them again will not help."""

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(reason, message, remedy, permanent=True)
