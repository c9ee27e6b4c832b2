-- ---
-- title         = "Request Hidden"
-- severity      = "medium"
-- attack        = [
--   { id = "T1685.002", why = "a request padded beyond 100 KB is recorded without its parameters: nobody sees what was asked for" },
-- ]
-- attack_legacy = ["T1562.008"]
-- about         = "CloudTrail left out the parameters of a call because they were too large, where no honest call is so large."
-- benign        = [
--   "Very large policies, templates or tags written by a program: list its role in trusted_principals",
-- ]
-- group_by      = ["account", "actor"]
-- group_window  = "6h"
-- runbook       = """
-- 1. What was changed? Ask the service itself, as the log does not say: aws iam get-account-authorization-details, aws s3api get-bucket-policy, aws kms get-key-policy.
-- 2. Policies padded with spaces are no accident: compare the stored document with its text in your repository.
-- 3. What else did the actor do? SELECT event_time, event_source, event_name, request_parameters FROM events WHERE account = '…' AND principal = '…' ORDER BY event_time.
-- 4. If it was not wanted: undo the change, take the actor's keys and sessions away.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html",
--   "https://permiso.io/blog/cloudtrail-logging-evasion-where-policy-size-matters",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that send large requests as their work: at most low"
--
-- [params.services]
-- type    = "list[str]"
-- default = ["iam", "sts", "organizations", "kms", "s3", "cloudtrail", "secretsmanager", "sso", "rolesanywhere", "ssm", "sns", "sqs", "ecr"]
-- about   = "Services whose requests are small, save for somebody who pads them; other services' are low"
-- ---
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  concat(split_part(event_source, '.', 1), ':', event_name) AS target,
  concat('The parameters of ', event_name, ' were too large to be recorded',
    CASE WHEN success THEN '' ELSE concat('; it failed with ', error_code) END) AS summary,
  CASE
    WHEN list_contains(getvariable('request_hidden_services'), split_part(event_source, '.', 1))
      AND NOT list_contains(getvariable('request_hidden_trusted_principals'), principal)
      THEN CASE WHEN success THEN 'medium' ELSE 'low' END
    ELSE 'low'
  END AS severity
FROM events
WHERE json_extract_string(request_parameters, '$.omitted') = 'true'
  AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
  AND is_write
  AND (success OR denied AND list_contains(getvariable('request_hidden_services'), split_part(event_source, '.', 1)))
