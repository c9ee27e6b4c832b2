"""When a quarantined log file is tried again: never given up, ever more rarely."""

from __future__ import annotations

from datetime import datetime, timedelta

_TRANSIENT = (timedelta(minutes=5), timedelta(hours=24))
_ACCESS = (timedelta(minutes=15), timedelta(hours=6))  # a person is fixing a policy: look again the same day
_PERMANENT = (timedelta(hours=24), timedelta(days=7))


def next_retry(now: datetime, reason: str, attempts: int, *, permanent: bool) -> datetime:
    """The time of the next try after `attempts` failed ones (1 = just failed for the first time).

    A refusal is told by its reason: `access_denied` and whatever else ends in `_denied`, `kms_unusable`, `access`.
    """
    if reason.endswith("_denied") or reason in ("access", "kms_unusable"):
        first, longest = _ACCESS
    else:
        first, longest = _PERMANENT if permanent else _TRANSIENT
    return now + min(first * (1 << min(max(attempts - 1, 0), 16)), longest)
