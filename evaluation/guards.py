"""What keeps detections quiet about everyday noise: take it away, and there are alerts.

A guard is a piece of a detection's SQL. Where it is replaced by `instead`, the source of noise it holds back must make
alerts of medium or above; as it stands, none. So neither the noise nor the guard is there for show.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from evaluation.organization import records
from evaluation.road import Played, only, play
from kyra_etl.detection.rule import Corpus


@dataclass(frozen=True, slots=True)
class Guard:
    """`written` in the SQL of `detection` holds back `source`; `history` is what else the detection must have seen."""

    source: str
    detection: str
    what: str
    written: str
    instead: str
    account: str = "development"
    days: Collection[int] = (0,)
    history: Collection[str] = ()

    def __str__(self) -> str:
        return f"{self.source}-{self.detection}"


GUARDS = (
    Guard(
        "fan_out",
        "unusual_region",
        "Services record and deploy in all regions; what they do is nobody's choice of a region.",
        "WHERE actor_kind NOT IN ('aws_service', 'anonymous')\n",
        "WHERE true\n",
        account="production",
        days=range(17),
        history=("programs",),
    ),
    Guard(
        "scaling",
        "instances_terminated",
        "Instances that an Auto Scaling group takes down by its service-linked role.",
        "AND actor_kind <> 'aws_service'",
        "",
        account="production",
    ),
    Guard(
        "backups",
        "backups_destroyed",
        "Copies past their time, deleted by the service that made them.",
        "WHERE actor_kind <> 'aws_service'",
        "WHERE true",
        account="production",
    ),
    Guard(
        "console",
        "console_login_without_mfa",
        "Single sign-on asks for the second factor itself; AWS records that it asked for none.",
        "AND actor_kind = 'iam_user'",
        "",
    ),
    Guard(
        "console",
        "denied_calls_burst",
        "The console's first page asks for what most people may not see.",
        "OR b.by_console",
        "",
    ),
    Guard(
        "terraform",
        "cloudtrail_disabled",
        "A trail and its bucket, deleted by whoever created them that morning.",
        "OR created IS NOT NULL\n",
        "\n",
    ),
    Guard(
        "terraform",
        "kms_key_destruction",
        "A key, scheduled for deletion by whoever created it that morning.",
        "OR created IS NOT NULL\n",
        "\n",
    ),
    Guard(
        "terraform",
        "log_source_removed",
        "A flow log that goes with its network, both made that morning by the same role.",
        "WHEN kind = 'flow logs' AND own IS NULL THEN 'medium'",
        "WHEN kind = 'flow logs' THEN 'medium'",
    ),
    Guard(
        "terraform",
        "security_group_open",
        "A web server is there to be reached on 443.",
        "list_contains(getvariable('security_group_open_low_ports'), r.from_port)",
        "false",
    ),
    Guard(
        "delivery",
        "access_key_leaked",
        "A machine that is rented for one run never comes from where the last one came.",
        "WHEN roaming AND refusals = 0 THEN 'low'",
        "",
        account="shared",
        days=range(10),
    ),
    Guard(
        "programs",
        "secrets_read_in_bulk",
        "Many tasks that start at once read the same few secrets.",
        "list_distinct(flatten(",
        "list_reverse(flatten(",
        account="production",
    ),
)


def tried(guard: Guard, corpus: Corpus, *, guarded: bool) -> Played:
    """The guard's source of noise before its detection, with the guard or without."""
    detection = corpus.get(guard.detection)
    if guard.written not in detection.sql:
        raise ValueError(f"{guard.detection} does not say {guard.written!r} any more: mend evaluation/guards.py")
    sql = detection.sql if guarded else detection.sql.replace(guard.written, guard.instead)
    alone = replace(only(corpus, [guard.detection]), detections=(replace(detection, sql=sql),))
    noise = records(accounts=(guard.account,), days=guard.days, sources=(guard.source, *guard.history))
    return play(noise, alone)
