"""The bucket: is it there, may it be listed and read, is it laid out as CloudTrail does, are these log files."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import islice

from kyra_etl.aws.bucket import S3Bucket
from kyra_etl.check.asking import Layout, Look, NotAsked, Warned, several, span
from kyra_etl.cloudtrail import keys
from kyra_etl.cloudtrail.decode import Source, decode
from kyra_etl.errors import CollectError, ObjectError
from kyra_etl.model import LogFile
from kyra_etl.ports import LogBucket

STALE = timedelta(hours=24)
"""Age of the newest log file beyond which a trail is suspect; quiet regions are hours behind."""

_ACCOUNTS, _REGIONS = 12, 12
"""How many accounts, and regions of accounts, the search for the newest log file goes into."""

_SHOWN = 3
"""How many names an answer lists."""

_KMS_REASONS = ("kms_denied", "kms_unusable")


def bucket(look: Look) -> str | Warned:
    look.reachable()
    if not isinstance(look.bucket, S3Bucket):
        next(look.bucket.folders(""), None)  # says so when the folder is not there
        return f"{look.bucket.name} is there."
    region = look.bucket.region
    detail = f"{look.bucket.name} is in {region}."
    if look.integration.region in (None, region):
        return detail
    return Warned(f"{detail} The integration says {look.integration.region}.", f"`{look.change} --region {region}`.")


def list_(look: Look) -> str:
    look.reachable()
    look.needs("bucket")
    root = keys.logs_root(look.integration.prefix)
    next(look.bucket.folders(root), None)
    return f"{root} may be listed."


def layout(look: Look) -> str | Warned:
    look.reachable()
    look.needs("bucket", "list")
    integration, bucket = look.integration, look.bucket
    root = keys.logs_root(integration.prefix)
    folders = list(bucket.folders(root))
    account_folders = _accounts(bucket, folders)
    look.layout = _look(look, account_folders)
    look.layout.organizations = {_last(name) for name in folders if keys.is_organization_folder(name)}
    if not account_folders:
        raise _nothing(look, root, folders)
    _as_expected(look, root)
    if look.layout.newest is None:
        raise _no_log_file(look, root, account_folders)
    newest = look.layout.newest
    detail = f"{_count(look.layout)}; newest log file {newest.key}"
    if newest.last_modified is None:
        return f"{detail}."
    age = look.age(newest.last_modified)
    detail = f"{detail}, {span(age)} old."
    if look.session is None or age <= STALE:
        return detail
    return Warned(
        detail,
        "A trail delivers about every 5 minutes. Likeliest first: the trail was stopped or deleted (see the probe"
        " logging); it delivers to another bucket or prefix by now (see the probe trail); CloudTrail may no longer"
        " write here (see the probe delivery).",
    )


def read(look: Look) -> str:
    look.reachable()
    look.needs("bucket", "list", "layout")
    newest = look.newest()
    try:
        look.content = look.bucket.read(newest.key)
    except ObjectError as error:
        if error.reason not in _KMS_REASONS:
            raise
        look.failed["read"] = error
        raise NotAsked("Not known: S3 did not get past the KMS key; see the probe kms.") from None
    return f"{newest.key} may be fetched ({len(look.content):,} bytes)."


def decoded(look: Look) -> str | Warned:
    look.reachable()
    look.needs("bucket", "list", "layout", "read")
    newest = look.newest()
    source = Source(integration=look.integration.name, source_key=newest.key, batch_id="check")
    found, _ = decode(look.content or b"", source, now=look.now, max_bytes=look.max_bytes)
    detail = f"{several(found.records, 'record')}."
    if not found.malformed:
        return detail
    return Warned(
        f"{detail} {len(found.malformed):,} of them are malformed: {found.malformed[0].reason}.",
        "They are kept in the lake's malformed/ folder; nothing is lost.",
    )


def kms(look: Look) -> str:
    look.aws()
    look.reachable()
    look.needs("bucket", "list", "layout")
    newest, bucket = look.newest(), look.bucket
    refused = look.failed.get("read")
    if isinstance(refused, ObjectError) and refused.reason not in _KMS_REASONS:
        look.needs("read")
    key = _key(bucket, newest.key)
    if isinstance(refused, ObjectError):
        raise _with_key(refused, look, key)
    if key is None:
        return "S3's own keys encrypt the newest log file: nothing of KMS is needed."
    return f"KMS key {key} encrypts the newest log file, and the role may use it."


def _key(bucket: LogBucket, key: str) -> str | None:
    """The KMS key that encrypts an object, as far as it can be told."""
    try:
        return bucket.key_arn(key) if isinstance(bucket, S3Bucket) else None
    except (CollectError, ObjectError):
        return None


def _with_key(error: ObjectError, look: Look, key: str | None) -> ObjectError:
    """The same refusal, naming the key and the command that prints what it needs."""
    if key is None or error.reason != "kms_denied":
        return error
    prints = f"`kyra integration policy {look.integration.name} --kms-key-arn {key}` prints both statements."
    return ObjectError(error.reason, f"{error.message} The key is {key}.", f"{error.remedy} {prints}")


def _accounts(bucket: LogBucket, folders: list[str]) -> list[str]:
    """Folders of accounts among these, and in those of organizations."""
    inner = [each for name in folders if keys.is_organization_folder(name) for each in bucket.folders(name)]
    return [name for name in (*folders, *inner) if keys.account_of_folder(name)]


def _look(look: Look, account_folders: list[str]) -> Layout:
    """Accounts, their regions, and the newest log file; regions and files of the first few accounts only."""
    # One's own account first: in a large organization it may be beyond the first few.
    account_folders.sort(key=lambda name: keys.account_of_folder(name) != look.integration.account_id)
    found = Layout(
        accounts={account for name in account_folders if (account := keys.account_of_folder(name))},
        counted=len(account_folders) <= _ACCOUNTS,
    )
    region_folders = [name for one in account_folders[:_ACCOUNTS] for name in look.bucket.folders(f"{one}CloudTrail/")]
    found.regions = {_last(folder) for folder in region_folders}
    # us-east-1 has the global services' events: hardly ever quiet.
    region_folders.sort(key=lambda folder: _last(folder) not in ("us-east-1", look.integration.region))
    for folder in region_folders[:_REGIONS]:
        for file in _newest_day(look.bucket, folder):
            if found.newest is None or _delivered(file) > _delivered(found.newest):
                found.newest = file
    return found


def _as_expected(look: Look, root: str) -> None:
    """Raises CollectError where the layout is not the one the integration was added for."""
    wanted, found = look.integration.organization_id, look.layout
    if wanted is not None and wanted not in found.organizations:
        there = f"organization {_some(found.organizations)}" if found.organizations else _some(found.accounts)
        raise CollectError(
            f"There is no folder {root}{wanted}/ in {look.bucket.name}; instead there is {there}.",
            "Either the trail is not an organization's (`aws cloudtrail update-trail --is-organization-trail`, in the"
            f' management account), or the integration should not say so: `{look.change} --organization ""`.',
        )
    own, role = look.integration.account_id, look.integration.role_arn
    told = own is not None and (role is None or role.split(":")[4] != own)
    if wanted is None and told and own not in found.accounts:
        raise CollectError(
            f"There are no log files of account {own} under {root} in {look.bucket.name}; instead there is"
            f" {_some(found.accounts)}.",
            f"Correct the account, `{look.change} --account-id {min(found.accounts)}`, or the bucket, or take"
            f' --account-id back with "" if all accounts in the bucket are meant.',
        )


def _nothing(look: Look, root: str, folders: list[str]) -> CollectError:
    """Why there is no account's folder, by what there is instead."""
    where = f"under {root} in {look.bucket.name}"
    if folders:
        return CollectError(
            f"There is no account's folder {where}; instead there is {_some(_last(name) for name in folders)}.",
            "CloudTrail writes AWSLogs/<account>/CloudTrail/ or AWSLogs/<organization>/<account>/CloudTrail/. Copied"
            " log files have to keep these folders.",
        )
    elsewhere = _prefixes(look)
    if elsewhere:
        options = [f'--prefix "{one}"' for one in elsewhere]
        lie = _some(keys.logs_root(one) for one in elsewhere)
        return CollectError(
            f"There is nothing {where}; log files lie under {lie}.",
            f"`{look.change} {options[0]}`" + (f", or {' or '.join(options[1:])}." if options[1:] else "."),
        )
    try:
        there = sorted(islice(look.bucket.folders(""), 20))
    except CollectError:
        there = []
    instead = f"; instead there is {_some(there)}" if there else ": the bucket is empty" if look.session else ""
    return CollectError(
        f"There is nothing {where}{instead}.",
        "Likeliest first: the trail was made less than 15 minutes ago; --bucket or --prefix is not S3BucketName and"
        " S3KeyPrefix of `aws cloudtrail describe-trails`; the trail is not logging (see the probe logging); CloudTrail"
        " may not write to the bucket (see the probe delivery).",
    )


def _prefixes(look: Look) -> list[str]:
    """Prefixes of the bucket, at most two folders deep, under which there is AWSLogs/."""
    found = []
    try:
        for outer in islice(look.bucket.folders(""), 20):
            if outer == "AWSLogs/":
                found.append("")
                continue
            for inner in islice(look.bucket.folders(outer), 20):
                if _last(inner) == "AWSLogs":
                    found.append(outer.rstrip("/"))
                elif f"{inner}AWSLogs/" in islice(look.bucket.folders(inner), 20):
                    found.append(inner.rstrip("/"))
    except CollectError:
        return found  # a policy of one's own may let us list less
    return found[:_SHOWN]


def _no_log_file(look: Look, root: str, account_folders: list[str]) -> CollectError:
    """Why there is no log file, by what lies in the accounts' folders instead."""
    kinds = {_last(name) for one in account_folders[:_ACCOUNTS] for name in look.bucket.folders(one)}
    if kinds and "CloudTrail" not in kinds:
        return CollectError(
            f"The accounts' folders under {root} in {look.bucket.name} hold {_some(kinds)}, not CloudTrail.",
            "Compare --bucket and --prefix with S3BucketName and S3KeyPrefix of `aws cloudtrail describe-trails`.",
        )
    return CollectError(
        f"There is no log file yet under {root} in {look.bucket.name} ({_count(look.layout)}).",
        "Likeliest first: the trail was made less than 15 minutes ago; it is not logging (see the probe logging);"
        " a lifecycle rule of the bucket removes log files.",
    )


def _newest_day(bucket: LogBucket, region_folder: str) -> list[LogFile]:
    """Log files of the region's latest day folder."""
    folder = region_folder
    for _ in ("year", "month", "day"):
        latest = max((name for name in bucket.folders(folder) if _last(name).isdigit()), default=None)
        if latest is None:
            return []
        folder = latest
    return [file for file in bucket.files(folder) if keys.parse_key(file.key, file.size).kind == "log"]


def _delivered(file: LogFile) -> tuple[datetime, str]:
    return (file.last_modified or datetime.min, file.key)


def _last(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _count(found: Layout) -> str:
    regions = several(len(found.regions), "region")
    if not found.counted:
        regions = regions.replace(" ", "+ ", 1)
    organization = f"organization {_some(found.organizations)}, " if found.organizations else ""
    return f"{organization}{several(len(found.accounts), 'account')}, {regions}"


def _some(names: object) -> str:
    """The first few names, and how many more."""
    listed = sorted(names)  # type: ignore[call-overload]
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"
