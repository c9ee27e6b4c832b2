"""Every call on the customer's side, and none that changes anything there.

    session    who we are: ambient credentials, or an assumed role that refreshes itself
    bucket     LogBucket over S3
    trails     the trails of an account, and whether they deliver
    policies   the documents a customer puts in place, and the calls they allow
    mapping    an AWS error → what happened and what to do next

The other modules import boto3: only wiring opens them, and only when an integration needs AWS.
"""
