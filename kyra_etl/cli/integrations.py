"""`kyra integration …` and `kyra check`: customers' connections."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kyra_etl.cli.options import Json, Name, opened
from kyra_etl.cli.output import WIDTH, count, emit, facts, printable, say, show, table
from kyra_etl.errors import CollectError, KyraError, UsageError
from kyra_etl.model import Integration, Probe

if TYPE_CHECKING:
    from kyra_etl.wiring import Parts

app = typer.Typer(help="Connections to customers' buckets of log files.", no_args_is_help=True)

_MASK = "****"
_ANSWER = 9
"""Columns of a probe's answer."""


Bucket = Annotated[str, typer.Option(help="Bucket the trail delivers to, or file:///folder.")]
AccountId = Annotated[str | None, typer.Option(help="Account of the role; the role's own without it.")]
RoleArn = Annotated[str | None, typer.Option(help="Role to assume; without it, this machine's credentials.")]
ExternalId = Annotated[str | None, typer.Option(help="External id of the role; made up without it.")]
Region = Annotated[str | None, typer.Option(help="The bucket's region; found without it.")]
Prefix = Annotated[str | None, typer.Option(help="What stands before AWSLogs/ in the keys.")]
Organization = Annotated[
    str | None, typer.Option(help="Id of the organization (o-…), if the trail is an organization's.")
]
TopicArn = Annotated[str | None, typer.Option(help="Topic the trail notifies.")]
QueueUrl = Annotated[str | None, typer.Option(help="Queue that is subscribed to the topic.")]
Also = Annotated[
    list[str] | None,
    typer.Option(help="Optional permission the role has: event-selectors or public-keys; may be repeated."),
]


@app.command()
def add(
    name: Name,
    bucket: Bucket,
    account_id: AccountId = None,
    role_arn: RoleArn = None,
    external_id: ExternalId = None,
    region: Region = None,
    prefix: Prefix = None,
    organization: Organization = None,
    sns_topic_arn: TopicArn = None,
    queue_url: QueueUrl = None,
    also: Also = None,
    json: Json = False,
) -> None:
    """Add a connection. AWS is asked for the bucket's region, unless it is given.

    With a topic and a queue, the queue is subscribed.
    """
    from kyra_etl.integrations import make_integration

    with opened() as parts:
        made = make_integration(
            name,
            bucket=bucket,
            now=parts.clock(),
            account_id=account_id,
            role_arn=role_arn,
            external_id=external_id,
            region=region,
            prefix=prefix,
            sns_topic_arn=sns_topic_arn,
            queue_url=queue_url,
            organization_id=organization,
            additions=also or (),
        )
        made = _with_region(parts, made)
        parts.state.integrations.add(made, parts.clock())
        subscription, problem = None, None
        if made.sns_topic_arn and made.queue_url:
            try:
                subscription = _subscribe(parts, made)
            except KyraError as error:
                problem = error
    if json:
        emit({**_plain(made), "subscription": subscription, "subscription_problem": problem and str(problem)})
    else:
        show(f"Added {name}.")
        if subscription:
            show("Its queue is subscribed to the topic.")
    if problem:
        say(printable(f"Its queue is not subscribed to the topic: {problem}"))
        say(f"Then: kyra integration subscribe {name}. Until then listing finds every log file, only later.")
    if json:
        return
    if made.role_arn:
        say(f"Next: kyra integration policy {name}, which tells what to put in place; then kyra check {name}")
    else:
        say(f"Next: kyra check {name}, then kyra sync {name}")
    if not made.bucket.startswith("file:"):
        say(f"For the last 90 days at once, before any log file: kyra backfill {name} --from-history")


@app.command()
def change(
    name: Name,
    bucket: Annotated[str | None, typer.Option(help="Bucket the trail delivers to.")] = None,
    account_id: AccountId = None,
    role_arn: RoleArn = None,
    external_id: Annotated[str | None, typer.Option(help='External id of the role; "" makes a new one.')] = None,
    region: Region = None,
    prefix: Prefix = None,
    organization: Organization = None,
    sns_topic_arn: TopicArn = None,
    queue_url: QueueUrl = None,
    also: Also = None,
    json: Json = False,
) -> None:
    """Give a connection other values; what is not given stays, and "" takes a value back.

    What was loaded stays. Another bucket or prefix is listed from its beginning.
    """
    from kyra_etl.integrations import changed

    with opened() as parts:
        made = changed(
            parts.state.integrations.get(name),
            bucket=bucket,
            account_id=account_id,
            role_arn=role_arn,
            external_id=external_id,
            region="" if bucket and region is None else region,
            prefix=prefix,
            sns_topic_arn=sns_topic_arn,
            queue_url=queue_url,
            organization_id=organization,
            additions=None if also is None else [one for one in also if one],
        )
        made = _with_region(parts, made)
        parts.state.integrations.change(made)
    if json:
        emit(_plain(made))
    else:
        show(f"Changed {name}.")
        say(f"Next: kyra check {name}")


@app.command("list")
def list_(json: Json = False) -> None:
    """All connections."""
    with opened() as parts:
        found = parts.state.integrations.list()
    if json:
        emit([_plain(one) for one in found])
    elif found:
        rows = [(one.name, one.bucket, one.prefix, one.account_id, one.region, one.paused) for one in found]
        show(table(("integration", "bucket", "prefix", "account", "region", "paused"), rows, keep=("integration",)))
    else:
        say("There is no integration yet. Add one: kyra integration add NAME --bucket BUCKET")


@app.command("show")
def show_(name: Name, json: Json = False) -> None:
    """One connection, its last check and the trails that deliver to it. Secrets stay masked."""
    with opened() as parts:
        found = parts.state.integrations.get(name)
        check = parts.state.integrations.last_check(name)
        trails = parts.state.integrations.trails(name)
    if json:
        checked = check and {"checked_at": check[0], "probes": _rows(check[1])}
        emit({**_plain(found), "last_check": checked, "trails": trails})
        return
    show(facts([(key.replace("_", " "), value) for key, value in _plain(found).items()]))
    if trails:
        names = ("name", "home_region", "multi_region", "organization", "logging", "latest_delivery_at")
        show()
        show(table([column.replace("_", " ") for column in names], [[trail[key] for key in names] for trail in trails]))
    if check:
        show(f"\nChecked {check[0]:%Y-%m-%d %H:%M:%S}")
        show(_told(check[1]))


@app.command()
def remove(name: Name, json: Json = False) -> None:
    """Forget a connection. What it loaded stays in the lake and in the ledger."""
    with opened() as parts:
        parts.state.integrations.remove(name)
    if json:
        emit({"removed": name})
    else:
        show(f"Removed {name}. What it loaded stays in the lake.")


@app.command()
def pause(name: Name, json: Json = False) -> None:
    """Leave a connection out of syncs."""
    _pause(name, True, json)


@app.command()
def resume(name: Name, json: Json = False) -> None:
    """Take a paused connection into syncs again."""
    _pause(name, False, json)


@app.command()
def subscribe(name: Name, json: Json = False) -> None:
    """Subscribe the queue of a connection to its topic, as `add` tried to. Doing it again does no harm."""
    with opened() as parts:
        found = parts.state.integrations.get(name)
        if not found.queue_url:
            raise UsageError(f"{name} has no queue.", "Listing finds every log file without one.")
        subscription = _subscribe(parts, found)
    if json:
        emit({"name": name, "subscription": subscription})
    else:
        show(f"The queue of {name} is subscribed to the topic.")


@app.command()
def policy(
    name: Name,
    trusted: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT", help="Account whose role KYRACloudSensor assumes the role, or an ARN; ours without it."
        ),
    ] = None,
    kms_key_arn: Annotated[
        list[str] | None, typer.Option(metavar="ARN", help="Key that encrypts the log files; may be repeated.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="text (aws-cli commands), cloudformation or terraform.")
    ] = "text",
    json: Json = False,
) -> None:
    """The documents to put in place on the customer's side, and the aws-cli commands that do it.

    Or the same as a CloudFormation template or a Terraform file. Only here is the external id shown.
    """
    from kyra_etl.aws import commands, policies, templates

    if format_ not in ("text", "cloudformation", "terraform"):
        raise UsageError(f"--format cannot be {format_!r}.", "It is text, cloudformation or terraform.")
    with opened() as parts:
        found = parts.state.integrations.get(name)
        if found.bucket.startswith("file:"):
            raise UsageError(f"{name} reads a folder, which needs no permissions.", f"Go on with: kyra sync {name}")
        keys = kms_key_arn or sorted(
            {key for trail in parts.state.integrations.trails(name) if (key := trail["kms_key_id"])}
        )
        ours = trusted or (_our_account(parts, found) if found.role_arn else None)
    documents = policies.documents(found, trusted=ours, kms_key_arns=keys)
    sections = commands.sections(found, documents)
    values = templates.values(found, trusted=ours, kms_key_arns=keys)
    if json:
        emit(
            {
                "documents": documents,
                "commands": commands.commands(found, documents),
                "sections": [asdict(section) for section in sections],
                "additions": {name: asdict(one) for name, one in policies.ADDITIONS.items()},
                "cloudformation": templates.cloudformation(values),
                "terraform": templates.terraform(values),
            }
        )
    elif format_ == "cloudformation":
        show(templates.cloudformation(values).rstrip())
    elif format_ == "terraform":
        show(templates.terraform(values).rstrip())
    else:
        show(commands.script(sections))
        say(commands.left_out(documents))


def check(name: Name, json: Json = False) -> None:
    """Test a connection: one probe for each thing that has to work, with its remedy."""
    from kyra_etl import wiring
    from kyra_etl.examine import examine

    with opened() as parts:
        found, now = parts.state.integrations.get(name), parts.clock()
        bucket = wiring.bucket_of(parts, found, waiting=True)
        probes, _ = examine(found, bucket=bucket, lake=parts.lake, state=parts.state, clock=lambda: now)
    failed = [probe for probe in probes if probe.passed is False]
    if json:
        emit({"integration": name, "checked_at": now, "probes": _rows(probes)})
    else:
        show(_told(probes))
    warned = [probe for probe in probes if probe.warning]
    also = f" {count(len(warned), 'warning')}." if warned else ""
    say(f"{count(len(failed), 'probe')} failed.{also}" if failed else f"Connected.{also}")
    raise typer.Exit(1 if failed else 0)


def _rows(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    return [{**asdict(probe), "warning": probe.warning} for probe in probes]


def _told(probes: Sequence[Probe]) -> str:
    """A paragraph a probe: its answer, its name, what was found, and what to do."""
    wide = max(len(probe.name) for probe in probes)
    indent = " " * (_ANSWER + wide + 2)
    lines = []
    for probe in probes:
        head = f"{_answer(probe):<{_ANSWER}}{probe.name:<{wide}}  "
        lines.append(_wrapped(probe.detail, head, indent))
        if probe.remedy:
            lines.append(_wrapped(f"→ {probe.remedy}", indent, f"{indent}  "))
            if probe.passed is False and probe.permission:
                lines.append(f"{indent}  needs {probe.permission}")
    return "\n".join(lines)


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(printable(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _answer(probe: Probe) -> str:
    if probe.passed is None:
        return "-"
    if not probe.passed:
        return "FAILED"
    return "warning" if probe.warning else "ok"


def _pause(name: str, paused: bool, json: bool) -> None:
    with opened() as parts:
        parts.state.integrations.pause(name, paused)
    if json:
        emit({"name": name, "paused": paused})
    else:
        show(f"{name} is {'paused' if paused else 'in syncs again'}.")


def _subscribe(parts: Parts, integration: Integration) -> str:
    """The ARN of the queue's subscription, made if there is none. Raises KyraError."""
    from kyra_etl.aws.queue import SqsQueue
    from kyra_etl.aws.session import Session

    return SqsQueue(Session(integration, endpoint_url=parts.config.aws_endpoint_url)).subscribe()


def _our_account(parts: Parts, integration: Integration) -> str | None:
    """The account this machine's credentials belong to."""
    from kyra_etl.aws.session import Session

    try:
        return Session(integration, endpoint_url=parts.config.aws_endpoint_url).identity().account
    except CollectError as error:
        say(
            printable(
                f"The trust policy is left out: {error.message} Give --trusted ACCOUNT, the account kyra runs in."
            )
        )
        return None


def _with_region(parts: Parts, integration: Integration) -> Integration:
    """With the bucket's region where none was given and AWS tells it; else it is found when it is first read."""
    from kyra_etl import wiring

    return integration if integration.region else replace(integration, region=wiring.region_of(parts, integration))


def _plain(integration: Integration) -> dict[str, Any]:
    """Every field, secrets masked."""
    values = asdict(integration)
    return {key: _MASK if value and key in ("external_id", "queue_url") else value for key, value in values.items()}
