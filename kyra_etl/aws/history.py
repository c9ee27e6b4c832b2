"""LookupEvents as a bucket of hours: what an account did before its log files were collected.

Each (account, region, closed hour) is read whole, page by page, and handed on as the document that LookupEvents makes
of it, records byte for byte. A page's NextToken lives as long as the reading of its hour: when it expires the hour is
read again from its beginning.
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import botocore.session
from botocore.exceptions import ClientError

from kyra_etl.aws.mapping import translated
from kyra_etl.aws.session import Identity, Session
from kyra_etl.cloudtrail import hours, keys
from kyra_etl.errors import AccessError, CollectError, ObjectError, ObjectGone, TransientError
from kyra_etl.model import LogFile
from kyra_etl.ports import Clock, LogBucket

EVERY = 0.5
"""Seconds between two requests to one region: AWS takes two a second for each account and region."""

PAGE = 50
"""Events in an answer, at most."""

ATTEMPTS = 8
"""How often a page is asked for while AWS says to slow down, each time after a longer wait."""

READINGS = 3
"""How often an hour is begun anew because its NextToken, or the credentials, expired on the way."""

_BEGIN_AGAIN = ("InvalidNextTokenException", "ExpiredTokenException", "ExpiredToken", "RequestExpired")
_NOT_HERE = (
    *("UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure", "OptInRequired"),
    *("RegionDisabledException", "UnsupportedOperationException", "OperationNotPermittedException"),
)
_PARTITIONS = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-northwest-1"}
"""Where each partition records what belongs to no region, such as IAM's events."""


class History:
    """A `ports.LogBucket` over LookupEvents. Safe to share between threads.

    `tick` and `sleep` are the clock and the wait of the pace.
    """

    name = hours.BUCKET

    def __init__(
        self,
        session: Session,
        *,
        clock: Clock,
        tick: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.session = session
        self._clock = clock
        self._pace = _Pace(tick, sleep)

    @cached_property
    def identity(self) -> Identity:
        """Whose events these are: the role's account's, or our own without one. Raises CollectError."""
        return self.session.role_identity()

    def regions(self, account: str, bucket: LogBucket, prefix: str) -> list[str]:
        """Where to look: the account's regions in the bucket and the one of global services, by name.

        Where the bucket shows none (or may not be listed), every region that botocore knows of the partition.
        """
        partition = self.identity.arn.split(":")[1]
        root = keys.logs_root(prefix)
        seen: set[str] = set()
        try:
            for folder in (root, *filter(keys.is_organization_folder, bucket.folders(root))):
                seen |= {one.rstrip("/").rpartition("/")[2] for one in bucket.folders(f"{folder}{account}/CloudTrail/")}
        except CollectError:
            pass
        if seen:
            return sorted({*seen, _PARTITIONS.get(partition, "us-east-1")})
        return sorted(botocore.session.Session().get_available_regions("cloudtrail", partition))

    def survey(self, regions: Sequence[str]) -> dict[str, str]:
        """Why regions cannot be asked, by name; empty text for those that can.

        Raises the CollectError of the first that refused when none can: then it is no matter of the region.
        """
        found: dict[str, str] = {}
        refusals: list[CollectError] = []
        request = {"MaxResults": 1, "EndTime": self._clock().replace(tzinfo=UTC)}
        with ThreadPoolExecutor(max(len(regions), 1), thread_name_prefix="survey") as pool:
            for region, refusal in zip(
                regions, pool.map(lambda one: self._refusal(one, request), regions), strict=True
            ):
                found[region] = refusal.message if refusal else ""
                refusals += [refusal] if refusal else []
        if refusals and all(found.values()):
            raise refusals[0]
        return found

    def _refusal(self, region: str, request: dict[str, Any]) -> CollectError | None:
        try:
            self._page(region, dict(request))
        except _Refused as refused:
            if refused.code in _NOT_HERE:
                return CollectError(
                    f"The account has not enabled {region}.", "Enable it, or leave it out of --regions."
                )
            return refused.said
        except AccessError as denied:  # by a service control policy, often for all regions but a few
            return denied
        return None

    def folders(self, prefix: str) -> Iterator[str]:
        """None: hours are not listed, they are known."""
        return iter(())

    def files(self, prefix: str, start_after: str = "") -> Iterator[LogFile]:
        """None: hours are not listed, they are known."""
        return iter(())

    def read(self, key: str) -> bytes:
        """An hour's events as one document. Raises CollectError, or ObjectGone for what is no hour any more."""
        hour = hours.parse(key)
        if hour is None or hour.start < self._clock() - timedelta(days=hours.DAYS):
            raise ObjectGone(f"{key} is beyond the {hours.DAYS} days that LookupEvents keeps.")
        if hour.account != (account := self.identity.account):
            raise ObjectError("other_account", f"{key} is of another account than {account}.", permanent=True)
        for left in reversed(range(READINGS)):
            try:
                return self._read(hour)
            except _Refused as refused:
                if refused.code not in _BEGIN_AGAIN or not left:
                    raise refused.said from None
        raise AssertionError  # the loop returns or raises

    def now(self) -> datetime:
        """The machine's clock."""
        return self._clock()

    def _read(self, hour: hours.Hour) -> bytes:
        last = hour.start + hours.HOUR - timedelta(seconds=1)  # both ends are included, times are whole seconds
        request: dict[str, Any] = {
            "StartTime": hour.start.replace(tzinfo=UTC),
            "EndTime": last.replace(tzinfo=UTC),
            "MaxResults": PAGE,
        }
        events: list[dict[str, str]] = []
        while True:
            answer = self._page(hour.region, request)
            # The record alone: what stands beside it repeats some of its fields, in other forms.
            events += [{"CloudTrailEvent": event.get("CloudTrailEvent", "")} for event in answer.get("Events", ())]
            token = answer.get("NextToken")
            if not token:
                break
            request["NextToken"] = token
        return json.dumps({"Events": events[::-1]} if events else {"Records": []}).encode()

    def _page(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(ATTEMPTS):
            self._pace.wait(region)
            try:
                return self._ask(region, request)
            except TransientError:
                if attempt == ATTEMPTS - 1:
                    raise
                self._pace.hold(region, min(2**attempt, 30))
        raise AssertionError  # the loop returns or raises

    def _ask(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        code = ""
        try:
            with translated("LookupEvents", f"events of {region}", self.session.secrets):
                try:
                    answer: dict[str, Any] = self.session.client("cloudtrail", region).lookup_events(**request)
                    return answer
                except ClientError as error:
                    code = str(error.response.get("Error", {}).get("Code"))
                    raise
        except CollectError as said:
            if code in (*_BEGIN_AGAIN, *_NOT_HERE):
                raise _Refused(code, said) from None
            raise


class _Refused(Exception):
    """An answer that reading an hour, or looking for regions, has its own reply to."""

    def __init__(self, code: str, said: CollectError) -> None:
        super().__init__(code)
        self.code, self.said = code, said


class _Pace:
    """Lets each region have a request every so often, whichever thread makes it."""

    def __init__(self, tick: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._tick, self._sleep = tick, sleep
        self._lock = threading.Lock()
        self._free: dict[str, float] = {}

    def wait(self, region: str) -> None:
        with self._lock:
            now = self._tick()
            turn = max(now, self._free.get(region, now))
            self._free[region] = turn + EVERY
        if turn > now:
            self._sleep(turn - now)

    def hold(self, region: str, seconds: float) -> None:
        with self._lock:
            self._free[region] = max(self._free.get(region, 0.0), self._tick() + seconds)
