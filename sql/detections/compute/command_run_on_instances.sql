-- ---
-- title        = "Command Run On Instances"
-- severity     = "medium"
-- attack       = [
--   { id = "T1651", why = "the instance agent runs what the caller says, as root" },
--   { id = "T1021.007", why = "a session on the machine without a key or an open port" },
-- ]
-- about        = "Somebody who never did so ran commands on instances, or opened a shell on them or in a container, through AWS."
-- benign       = [
--   "Administrators and deployment tools: known from the second day on, or list them in trusted_principals",
-- ]
-- event_names  = [
--   "SendCommand", "StartSession", "ResumeSession", "StartAutomationExecution", "ExecuteCommand",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was run, and where? SELECT event_time, event_name, json_extract_string(request_parameters, '$.documentName') AS document, json_extract(request_parameters, '$.instanceIds') AS instances FROM events WHERE event_name IN ('SendCommand', 'StartSession', 'ExecuteCommand') AND principal = '…' ORDER BY event_time.
-- 2. Read the command and its output: aws ssm list-command-invocations --command-id … --details. CloudTrail hides the parameters.
-- 3. Stop it: aws ssm cancel-command --command-id …; aws ssm terminate-session --session-id ….
-- 4. What did the instances' roles do afterwards? SELECT event_time, principal, event_name, source_ip_address FROM events WHERE session_name IN ('i-…') AND event_time > '…' ORDER BY event_time.
-- 5. If it was not wanted: take the actor its keys and sessions, isolate the instances, keep their disks as evidence.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.execution.ssm-send-command/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.execution.ssm-start-session/",
--   "https://docs.aws.amazon.com/systems-manager/latest/userguide/monitoring-cloudtrail-logs.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
--
-- [params.instances]
-- type    = "int"
-- default = 5
-- about   = "Instances within ten minutes that make it a campaign"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    list_distinct(list_filter(list_concat(
      json_texts(request_parameters, '$.instanceIds'),
      json_texts(request_parameters, '$.target'),
      list_transform(json_items(request_parameters, '$.targets'), lambda t: CAST(t AS VARCHAR)),
      json_texts(request_parameters, '$.task')), lambda i: i <> '')) AS places
  FROM events
  WHERE ((event_source = 'ssm.amazonaws.com' AND event_name IN ('SendCommand', 'StartSession', 'ResumeSession', 'StartAutomationExecution'))
      OR (event_source = 'ecs.amazonaws.com' AND event_name = 'ExecuteCommand'))
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
    AND NOT list_contains(getvariable('command_run_on_instances_trusted_principals'), principal)
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
    list_distinct(flatten(list(places) OVER recent)) AS reached,
    list(event_id) OVER recent AS ids
  FROM judged
  WHERE NOT habit
  WINDOW recent AS (
    PARTITION BY account, caller ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(places[1], json_extract_string(request_parameters, '$.documentName'), last_part(principal)) AS target,
  concat(last_part(caller), ' used ', event_name, CASE WHEN len(reached) > 1 THEN concat(' on ', len(reached), ' instances') ELSE coalesce(concat(' on ', places[1]), '') END,
    ', which is new for them', CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN 'low'
    WHEN len(reached) >= getvariable('command_run_on_instances_instances') THEN 'high'
    ELSE 'medium'
  END AS severity,
  CASE WHEN len(reached) >= getvariable('command_run_on_instances_instances') THEN ids ELSE [event_id] END AS event_ids,
  caller
FROM spread
