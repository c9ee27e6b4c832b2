"""Take notices from the queue and turn them into hints: log files the ledger knows of before they are listed.

Nothing depends on it. A notice that is lost, comes twice or lies changes when a file is loaded, not whether: what it
names is looked up in the bucket, and listing finds what no notice named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kyra_etl import cadence
from kyra_etl.aws import notices
from kyra_etl.cloudtrail import keys
from kyra_etl.errors import CollectError
from kyra_etl.model import Integration, LogFile, Message
from kyra_etl.ports import Clock, LogBucket, NoticeQueue
from kyra_etl.state import State

WAIT_SECONDS = 2
"""How long an empty queue is waited at: long enough for SQS to ask all of its servers."""

TOGETHER = 500
"""Messages taken before what they name is looked up; well within a queue's usual visibility timeout."""

LISTEN = timedelta(minutes=5)
"""After this the rest of a full queue is left to the next run: listing is due too."""

PAGE = 1_000


@dataclass
class Heard:
    """What the queue said. `kinds` counts messages; `missing` are files named and not there."""

    kinds: Counter[str] = field(default_factory=Counter)
    hinted: int = 0
    missing: int = 0
    requests: int = 0
    problem: CollectError | None = None
    """Why the queue, or what it named, could not be asked; what was not settled comes again."""


def take_notices(
    run_id: str,
    integration: Integration,
    queue: NoticeQueue,
    *,
    bucket: LogBucket,
    state: State,
    clock: Clock,
) -> Heard:
    """Empty the queue into the ledger. A message is deleted when what it names is durable there."""
    heard = Heard()
    until = clock() + LISTEN
    try:
        for messages in _batches(queue, clock, until):
            _settle(run_id, integration, queue, messages, bucket, state, clock(), heard)
    except CollectError as problem:
        heard.problem = heard.problem or problem
    state.ledger.save_listing(integration.name, [], requests=heard.requests, day=clock().date())
    return heard


def _batches(queue: NoticeQueue, clock: Clock, until: datetime) -> Iterator[list[Message]]:
    seen: set[str] = set()
    messages: list[Message] = []
    while clock() < until:
        received = queue.receive(WAIT_SECONDS)
        # Those that stay in the queue come again and again within one run, if its visibility timeout is short.
        fresh = [message for message in received if message.id not in seen]
        seen.update(message.id for message in fresh)
        messages += fresh
        if not fresh:
            break
        if len(messages) >= TOGETHER:
            yield messages
            messages = []
    if messages:
        yield messages


def _settle(
    run_id: str,
    integration: Integration,
    queue: NoticeQueue,
    messages: Sequence[Message],
    bucket: LogBucket,
    state: State,
    now: datetime,
    heard: Heard,
) -> None:
    """Look up what the messages name, note it, delete them; in this order."""
    waiting: list[tuple[Message, tuple[str, ...]]] = []
    for message in messages:
        notice = notices.parse(message.body)
        if notice.kind == "confirmation" and not _confirmed(notice, integration, queue, heard):
            notice = replace(notice, kind="unknown")
        heard.kinds[notice.kind] += 1
        wanted = tuple(key for name, key in notice.files if name == bucket.name and _is_log(key, integration))
        if notice.kind != "unknown":
            waiting.append((message, wanted))
    found, unsure = _looked_up({key for _, wanted in waiting for key in wanted}, bucket, heard)
    for start in range(0, len(found), PAGE):
        page = found[start : start + PAGE]
        heard.hinted += state.ledger.observe(run_id, integration.name, integration.bucket, page, "hinted", now).linked
    done = [message for message, wanted in waiting if unsure.isdisjoint(wanted)]
    if done:
        queue.delete(done)


def _confirmed(notice: notices.Notice, integration: Integration, queue: NoticeQueue, heard: Heard) -> bool:
    if notice.topic_arn is None or notice.token is None or notice.topic_arn != integration.sns_topic_arn:
        return False
    try:
        queue.confirm(notice.topic_arn, notice.token)
    except CollectError as problem:
        heard.problem = heard.problem or problem
        return False
    return True


def _is_log(key: str, integration: Integration) -> bool:
    return key.startswith(keys.logs_root(integration.prefix)) and keys.parse_key(key).kind == "log"


def _looked_up(wanted: Iterable[str], bucket: LogBucket, heard: Heard) -> tuple[list[LogFile], set[str]]:
    """The files that are there, with etag and size, and the keys that could not be asked for.

    By listing each day's folder from the first key named to the last: one request for many notices.
    """
    found: list[LogFile] = []
    unsure: set[str] = set()
    for folder, named in _by_folder(wanted).items():
        left = set(named)
        passed = 0
        try:
            for file in bucket.files(folder, max(folder, named[0][:-1])):
                passed += 1
                if file.key in left:
                    left.discard(file.key)
                    info = keys.parse_key(file.key, file.size)
                    if info.kind == "log":
                        found.append(replace(file, account=info.account, region=info.region, day=info.day))
                if file.key >= named[-1]:
                    break
            heard.missing += len(left)
        except CollectError as problem:
            heard.problem = heard.problem or problem
            unsure |= left
        heard.requests += cadence.requests_for(passed)
    return found, unsure


def _by_folder(wanted: Iterable[str]) -> Mapping[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for key in sorted(wanted):
        folders.setdefault(key.rpartition("/")[0] + "/", []).append(key)
    return folders
