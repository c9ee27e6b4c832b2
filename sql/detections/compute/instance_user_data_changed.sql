-- ---
-- title        = "Instance User Data Changed"
-- severity     = "high"
-- attack       = [
--   { id = "T1651", why = "user data runs as root when the instance starts: a command without a session" },
--   { id = "T1059.009", why = "the machine is taken over by calls of the cloud's API alone" },
-- ]
-- about        = "The user data of an existing instance was changed, between a stop and a start of it most tellingly."
-- benign       = [
--   "A machine that is still mended by hand, with a ticket; new machines get their user data at launch",
--   "Infrastructure as code that stops, changes and starts: list its role in trusted_principals",
-- ]
-- event_names  = ["ModifyInstanceAttribute", "StopInstances", "StartInstances"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "60m"
-- runbook      = """
-- 1. Read it: aws ec2 describe-instance-attribute --instance-id … --attribute userData; CloudTrail does not record the text.
-- 2. If it was not wanted: isolate the instance, take snapshots of its disks, do not start it again.
-- 3. What did the instance's role do since? SELECT event_time, event_source, event_name, source_ip_address FROM events WHERE session_name = 'i-…' ORDER BY event_time.
-- 4. What else did the actor do? SELECT event_time, event_source, event_name, error_code FROM events WHERE account = '…' AND principal = '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.execution.ec2-user-data/",
--   "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that change user data as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.instanceId') AS instance,
    instances_named(request_parameters) AS instances
  FROM events
  WHERE event_source = 'ec2.amazonaws.com'
    AND event_name IN ('ModifyInstanceAttribute', 'StopInstances', 'StartInstances')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
changed AS (
  SELECT
    m.*,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE m.success AND c.success AND c.account = m.account AND list_contains(c.instances, m.instance)
        AND (c.event_name = 'StopInstances' AND c.event_time BETWEEN m.event_time - INTERVAL 60 MINUTE AND m.event_time
          OR c.event_name = 'StartInstances' AND c.event_time BETWEEN m.event_time AND m.event_time + INTERVAL 60 MINUTE)) AS around
  FROM calls AS m
  WHERE m.event_name = 'ModifyInstanceAttribute'
    AND (json_type(m.request_parameters, '$.userData') IN ('VARCHAR', 'OBJECT')
      OR json_extract_string(m.request_parameters, '$.attribute') = 'userData')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(instance, 'an instance') AS target,
  concat('User data of ', instance, ' was changed',
    CASE WHEN around IS NOT NULL THEN ' while it was stopped' WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success OR list_contains(getvariable('instance_user_data_changed_trusted_principals'), principal) THEN 'low'
    WHEN around IS NOT NULL THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_append(coalesce(around, []), event_id) AS event_ids
FROM changed
