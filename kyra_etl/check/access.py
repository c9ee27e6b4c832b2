"""Who we are, what time it is, and whether the role lets us in, and nobody else."""

from __future__ import annotations

from datetime import timedelta

from kyra_etl.aws import anonymous
from kyra_etl.check.asking import Look, NotAsked, Warned, span
from kyra_etl.errors import CollectError

CLOCK_SKEW = timedelta(minutes=5)
"""AWS refuses requests that are 15 minutes off; a clock that is 5 minutes off gets there."""


def identity(look: Look) -> str:
    who = look.aws().identity()
    return f"This machine is {who.arn}."


def clock(look: Look) -> str:
    """Against the Date header of the S3 server, which answers callers without credentials too."""
    session = look.aws()
    try:
        headers = anonymous.head(look.bucket.name, session.region, endpoint_url=session.endpoint_url)
    except CollectError as error:
        raise NotAsked(f"Not known: {error.message}") from None
    look.server_now = anonymous.clock(headers)
    if look.server_now is None:
        raise NotAsked("Not known: S3 answered without a Date header.")
    skew = look.now - look.server_now
    if abs(skew) <= CLOCK_SKEW:
        return "This machine's clock agrees with S3's."
    off = f"{span(abs(skew))} {'ahead of' if skew > timedelta() else 'behind'}"
    raise CollectError(
        f"This machine's clock is {off} S3's; AWS refuses requests that are 15 minutes off.",
        "Set this machine's clock, and keep it set by NTP (chrony, systemd-timesyncd).",
    )


def assume_role(look: Look) -> str:
    session = look.aws()
    if look.integration.role_arn is None:
        raise NotAsked("Not asked: there is no role; this machine's own credentials read the bucket.")
    look.credentials()
    return f"Reading as {session.role_identity().arn}."


def external_id(look: Look) -> str | Warned:
    session = look.aws()
    if look.integration.role_arn is None:
        raise NotAsked("Not asked: there is no role.")
    look.credentials()
    look.needs("assume_role")
    try:
        wrong = session.lets_in_with_wrong_external_id()
        missing = session.lets_in_without_external_id()
    except CollectError as error:
        raise NotAsked(f"Not known: {error.message}") from None
    if not wrong and not missing:
        return "The role refuses callers with another external id, or with none."
    how = " and ".join(text for text, true in (("with a wrong external id", wrong), ("without one", missing)) if true)
    return Warned(
        f"Dangerous (confused deputy): the role can be assumed {how}, so whoever can make us assume it reads these"
        " logs.",
        "Add the condition StringEquals sts:ExternalId to the role's trust policy;"
        f" `kyra integration policy {look.integration.name}` prints it.",
    )
