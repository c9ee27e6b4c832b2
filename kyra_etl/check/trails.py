"""The trails: does one write here, what of, is it logging, does it get its files delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from kyra_etl.aws import mapping
from kyra_etl.aws.bucket import S3Bucket
from kyra_etl.aws.session import Session
from kyra_etl.aws.trails import Selection, Trail, describe_trails, look_up, selection, with_status
from kyra_etl.check.asking import Look, NotAsked, Warned, span
from kyra_etl.check.files import STALE
from kyra_etl.cloudtrail import keys
from kyra_etl.errors import AccessError, CollectError, ObjectError, TransientError

_FIRST_DELIVERY = timedelta(minutes=15)

_ALL = """'[{"ReadWriteType":"All","IncludeManagementEvents":true,"DataResources":[]}]'"""


def trail(look: Look) -> str | Warned:
    session = look.aws()
    look.reachable()
    visible = _visible(look, session)
    here = [one for one in visible if one.bucket == look.integration.bucket]
    if not here:
        return _no_trail(look, visible)
    wanted = look.integration.prefix.strip("/")
    look.delivering = [one for one in here if one.prefix == wanted]
    if not look.delivering:
        prefix = here[0].prefix
        raise CollectError(
            f"Trail {here[0].name} delivers to the bucket under {keys.logs_root(prefix)}, not under"
            f" {keys.logs_root(wanted)}.",
            f'`{look.change} --prefix "{prefix}"`.',
        )
    names = " and ".join(_about(one) for one in look.delivering)
    verb = "delivers" if len(look.delivering) == 1 else "deliver"
    if stranger := _organization_s(look):
        return Warned(
            f"{names} {verb} here, and belongs to account {stranger.account}; the role may not read the bucket.",
            "Make the role in the account that owns the bucket, or let the bucket's policy name the role:"
            " a member account sees its organization's trail, but may not read its bucket.",
        )
    return f"{names} {verb} here."


def regions(look: Look) -> str | Warned:
    _known(look)
    if any(one.multi_region for one in look.delivering):
        return "The trail records all regions."
    one = look.delivering[0]
    return Warned(
        f"Trail {one.name} records {one.home_region} only: what happens in other regions is not seen.",
        f"`aws cloudtrail update-trail --region {one.home_region} --name {one.arn} --is-multi-region-trail`.",
    )


def validation(look: Look) -> str | Warned:
    _known(look)
    without = [one for one in look.delivering if not one.validation]
    if not without:
        return "Digest files are written, which prove that log files are genuine."
    one = without[0]
    return Warned(
        f"Trail {one.name} writes no digest files: nobody could prove that its log files were not altered.",
        f"`aws cloudtrail update-trail --region {one.home_region} --name {one.arn} --enable-log-file-validation`.",
    )


def logging(look: Look) -> str:
    session = _known(look)
    try:
        look.delivering = [with_status(session, one) for one in look.delivering]
    finally:
        if look.save_trails is not None:
            look.save_trails([asdict(one) for one in look.delivering])
    silent = [one for one in look.delivering if not one.logging]
    if len(silent) == len(look.delivering):
        one = silent[0]
        raise CollectError(
            f"Trail {one.name} is not logging.",
            f"`aws cloudtrail start-logging --region {one.home_region} --name {one.arn}`.",
        )
    working = next(one for one in look.delivering if one.logging)
    return f"Trail {working.name} is logging."


def delivery(look: Look) -> str | Warned:
    _known(look)
    if isinstance(look.failed.get("logging"), CollectError) and look.delivering[0].logging is None:
        look.needs("logging")
    for one in look.delivering:
        if one.latest_delivery_error:
            raise mapping.reported(one.latest_delivery_error, "Delivery", f"trail {one.name}")
    last = max((one.latest_delivery_at for one in look.delivering if one.latest_delivery_at), default=None)
    if last is not None:
        return f"Last delivery {last:%Y-%m-%d %H:%M} UTC, {span(look.age(last))} ago, without an error."
    look.needs("logging")
    started = min((one.started_at for one in look.delivering if one.started_at), default=None)
    if started is not None and look.age(started) <= _FIRST_DELIVERY:
        raise NotAsked("Not known: the trail has just started; its first log file comes within 15 minutes.")
    raise CollectError(
        f"Trail {look.delivering[0].name} has never delivered a log file.",
        "Likeliest first: CloudTrail may not write to the bucket (bucket policy: s3:GetBucketAcl and s3:PutObject for"
        " cloudtrail.amazonaws.com); nothing has happened in the account yet. The bucket policy is in"
        f" `kyra integration policy {look.integration.name}`.",
    )


def selectors(look: Look) -> str | Warned:
    session = _known(look)
    if "event-selectors" not in look.integration.additions:
        if not any(one.selective for one in look.delivering):
            return "The trail has no event selectors of its own: it records all management events."
        raise NotAsked(
            "Not asked: the trail has event selectors of its own, and the role was not given the right to read them.",
            f"To know whether they leave something out: `{look.change} --also event-selectors`, then"
            f" `kyra integration policy {look.integration.name}`.",
        )
    found = [selection(session, one) for one in look.delivering]
    if not any(one.writes for one in found):
        raise _blind(look, found)
    without = {name for one in found for name in one.without}
    if any(one.writes and not one.without for one in found):
        without = set()
    detail = "All management events that change something are recorded"
    detail += "." if any(one.reads for one in found) else "; reads are not, so scouting is not seen."
    if not without:
        return detail
    return Warned(
        f"Management events are recorded, but not all: without {', '.join(sorted(without))}.",
        f"Unless that is meant: `aws cloudtrail put-event-selectors --trail-name {look.delivering[0].arn}"
        f" --event-selectors {_ALL}`, which replaces the selectors there are.",
    )


def lookup(look: Look) -> str:
    session = look.aws()
    look.reachable()
    region = look.delivering[0].home_region if look.delivering else session.region
    try:
        latest = look_up(session, region or session.region)
    except TransientError as error:
        raise NotAsked(f"Not known: {error.message}") from None
    return f"The event history of {region} may be read{f' (latest: {latest})' if latest else ''}."


def _known(look: Look) -> Session:
    """The session, where trails that deliver here were found."""
    session = look.aws()
    look.reachable()
    look.needs("trail")
    if not look.delivering:
        raise NotAsked("Not asked: no trail that delivers here can be seen from this account.")
    return session


def _visible(look: Look, session: Session) -> list[Trail]:
    """Trails seen from the bucket's region; where none delivers here, from all regions that have log files."""
    near = session.region
    if "bucket" not in look.failed and isinstance(look.bucket, S3Bucket):
        near = look.bucket.region
    found = describe_trails(session, [near])
    if any(one.bucket == look.integration.bucket for one in found):
        return found
    return describe_trails(session, [near, *sorted(look.layout.regions)])


def _no_trail(look: Look, visible: Sequence[Trail]) -> str:
    newest = look.layout.newest
    if newest is not None and newest.last_modified is not None and look.age(newest.last_modified) <= STALE:
        raise NotAsked("Not known: log files arrive from a trail that cannot be seen from this account.")
    others = sorted({one.bucket for one in visible if one.bucket})
    elsewhere = f" (trails deliver to {', '.join(others[:3])})" if others else ""
    raise CollectError(
        f"No trail that can be seen from this account delivers to {look.bucket.name}{elsewhere}.",
        f"`{look.change} --bucket {others[0]}`, or make a multi-region trail that delivers to this one."
        if others
        else "Make a multi-region trail that delivers to it; the commands are in"
        f" `kyra integration policy {look.integration.name}`.",
    )


def _organization_s(look: Look) -> Trail | None:
    """The trail of an organization, if the role sees it and is refused by its bucket."""
    refused = any(isinstance(look.failed.get(name), AccessError | ObjectError) for name in ("list", "read"))
    role_account = (look.integration.role_arn or "::::").split(":")[4]
    return next((one for one in look.delivering if refused and one.organization and one.account != role_account), None)


def _blind(look: Look, found: Sequence[Selection]) -> CollectError:
    what = "reads only (ReadOnly)" if any(one.reads for one in found) else "no management events"
    return CollectError(
        f"Trail {look.delivering[0].name} records {what}: nothing that changes something is seen, which most"
        " detections look for.",
        f"`aws cloudtrail put-event-selectors --trail-name {look.delivering[0].arn} --event-selectors {_ALL}`, which"
        " replaces the selectors there are.",
    )


def _about(one: Trail) -> str:
    kind = "organization trail" if one.organization else "trail"
    return f"{kind.capitalize()} {one.name} ({one.home_region})"
