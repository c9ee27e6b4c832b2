"""Notices of new log files: from the trail to the topic, from the topic to the queue."""

from __future__ import annotations

from kyra_etl.aws import mapping, policies
from kyra_etl.aws.queue import SqsQueue
from kyra_etl.check.asking import Look, NotAsked
from kyra_etl.errors import AccessError, CollectError


def topic(look: Look) -> str:
    look.aws()
    wanted = look.integration.sns_topic_arn
    if wanted is None:
        raise NotAsked("Not asked: the integration has no topic; listing finds every log file.")
    look.reachable()
    look.needs("trail")
    if not look.delivering:
        raise NotAsked("Not asked: no trail that delivers here can be seen from this account.")
    notifying = [one for one in look.delivering if one.topic_arn == wanted]
    if not notifying:
        one = look.delivering[0]
        if one.topic_arn:
            raise CollectError(
                f"Trail {one.name} notifies {one.topic_arn}, not {wanted}.",
                f"`{look.change} --sns-topic-arn {one.topic_arn}`, then"
                f" `kyra integration subscribe {look.integration.name}`.",
            )
        raise CollectError(
            f"Trail {one.name} notifies no topic.",
            f"`aws cloudtrail update-trail --region {one.home_region} --name {one.arn} --sns-topic-name {wanted}`.",
        )
    for one in notifying:
        if one.latest_notification_error:
            raise mapping.reported(one.latest_notification_error, "Notification", f"trail {one.name}")
    return f"Trail {notifying[0].name} notifies {wanted}."


def queue(look: Look) -> str:
    sqs = _queue(look)
    state = sqs.state()
    topic_arn = look.integration.sns_topic_arn
    sender, arn = ("sns.amazonaws.com", topic_arn) if topic_arn else (None, None)
    if not policies.lets_send(state.policy, sender, arn):
        raise CollectError(
            f"The queue of notices lets nobody send to it that is {topic_arn or 'S3 or SNS'}: its policy has no"
            " such statement.",
            "Allow sqs:SendMessage to sns.amazonaws.com with aws:SourceArn equal to the topic, in the queue's policy;"
            f" `kyra integration policy {look.integration.name}` prints policy and command.",
        )
    return f"The queue of notices lets the topic send; about {state.messages:,} messages wait."


def subscription(look: Look) -> str:
    sqs = _queue(look)
    topic_arn = look.integration.sns_topic_arn
    if topic_arn is None:
        raise NotAsked("Not asked: the integration has no topic.")
    if not sqs.is_ours:
        raise NotAsked("Not known: the queue is the customer's, and so is its subscription.")
    try:
        found = sqs.subscription()
    except AccessError as error:
        raise NotAsked(
            f"Not known: {error.message}", "Allow sns:ListSubscriptions to this machine's identity."
        ) from None
    if found is None:
        raise CollectError(
            f"The queue of notices is not subscribed to {topic_arn}.",
            f"`kyra integration subscribe {look.integration.name}`.",
        )
    if not found.startswith("arn:"):
        raise CollectError(
            "The subscription of the queue to the topic waits to be confirmed.",
            f"`kyra sync {look.integration.name}` confirms it.",
        )
    return "The queue is subscribed to the topic."


def _queue(look: Look) -> SqsQueue:
    session = look.aws()
    if look.integration.queue_url is None:
        raise NotAsked("Not asked: the integration has no queue; listing finds every log file.")
    look.credentials()
    sqs = SqsQueue(session)
    if not sqs.is_ours:
        look.reachable()
    return sqs
