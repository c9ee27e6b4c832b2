-- ---
-- title        = "Instance Entered"
-- severity     = "medium"
-- attack       = [
--   { id = "T1021.008", why = "a key is pushed to the instance, and the door opens for a minute" },
--   { id = "T1098.004", why = "an SSH key is added to the machine" },
-- ]
-- about        = "Somebody who never did so pushed an SSH key to an instance, or opened its serial console: a way in that needs no key pair."
-- benign       = [
--   "Administrators who log on this way: known from the second day on, or list them in trusted_principals",
-- ]
-- event_names  = [
--   "SendSSHPublicKey", "SendSerialConsoleSSHPublicKey", "EnableSerialConsoleAccess", "OpenTunnel",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. On which instances, as which user? SELECT event_time, event_name, json_extract_string(request_parameters, '$.instanceId') AS instance, json_extract_string(request_parameters, '$.instanceOSUser') AS os_user, source_ip_address FROM events WHERE event_source = 'ec2-instance-connect.amazonaws.com' AND principal = '…' ORDER BY event_time.
-- 2. Ask the actor. The key is valid for a minute, the session lasts: look for logged-on users (who, last) on the instance.
-- 3. Close the serial console again: aws ec2 disable-serial-console-access.
-- 4. What did the instance's role do afterwards? SELECT event_time, event_name, source_ip_address FROM events WHERE session_name = 'i-…' AND event_time > '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.lateral-movement.ec2-instance-connect/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.lateral-movement.ec2-serial-console-send-ssh-public-key/",
--   "https://docs.aws.amazon.com/ec2-instance-connect/latest/APIReference/API_SendSSHPublicKey.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
--
-- [params.instances]
-- type    = "int"
-- default = 2
-- about   = "Instances within an hour that make it a walk from one to the next"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    coalesce(json_extract_string(request_parameters, '$.instanceId'), refused_target(error_message)) AS instance
  FROM events
  WHERE ((event_source = 'ec2-instance-connect.amazonaws.com' AND event_name IN ('SendSSHPublicKey', 'SendSerialConsoleSSHPublicKey', 'OpenTunnel'))
      OR (event_source = 'ec2.amazonaws.com' AND event_name = 'EnableSerialConsoleAccess'))
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
    AND NOT list_contains(getvariable('instance_entered_trusted_principals'), principal)
),
judged AS (
  SELECT
    c.*,
    -- Known: whoever made the same call on a day before, and not only in vain.
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source
        AND a.event_name = c.event_name AND a.success AND a.date < c.date) AS habit
  FROM calls AS c
),
spread AS (
  SELECT
    *,
    list_distinct(list_filter(list(instance) OVER recent, lambda i: i IS NOT NULL)) AS reached,
    list(event_id) OVER recent AS ids
  FROM judged
  WHERE NOT habit
  WINDOW recent AS (
    PARTITION BY account, caller ORDER BY event_time RANGE BETWEEN INTERVAL 60 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(instance, 'the account') AS target,
  concat(
    CASE WHEN event_name = 'EnableSerialConsoleAccess' THEN 'The serial console of all instances was opened'
      ELSE concat(last_part(caller), ' let themselves into ', CASE WHEN len(reached) > 1 THEN concat(len(reached), ' instances') ELSE coalesce(instance, 'an instance') END) END,
    ', which is new for them', CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN success AND len(reached) >= getvariable('instance_entered_instances') THEN 'high'
    WHEN success OR len(reached) >= getvariable('instance_entered_instances') THEN 'medium'
    ELSE 'low'
  END AS severity,
  CASE WHEN len(reached) >= getvariable('instance_entered_instances') THEN ids ELSE [event_id] END AS event_ids,
  caller
FROM spread
