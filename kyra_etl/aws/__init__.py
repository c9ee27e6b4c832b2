"""Every call on the customer's side, and none that changes anything there but our own subscription.

    session    who we are: ambient credentials, or an assumed role that refreshes itself
    bucket     LogBucket over S3: through obstore (quick), and boto3 where that fails
    queue      NoticeQueue over SQS, and its subscription to the customer's topic
    notices    a message of that queue → the log files it names
    trails     the trails of an account, and whether they deliver
    policies   the documents a customer puts in place, and the calls they allow
    mapping    an AWS error → what happened and what to do next, by the table in failures

The other modules import boto3: only wiring opens them, and only when an integration needs AWS.
"""
