-- ---
-- title        = "Instances Terminated"
-- severity     = "high"
-- attack       = [
--   { id = "T1578.003", why = "machines are deleted with what was on them, evidence of the intrusion included" },
--   { id = "T1485", why = "disks that go with their instance cannot be brought back" },
-- ]
-- about        = "Many instances were terminated within half an hour by somebody who does not do that."
-- benign       = [
--   "Scalers and clean-up jobs: silent once they have terminated on an earlier day; autoscaling itself never counts",
--   "Environments that are torn down: list the role in trusted_principals",
-- ]
-- event_names  = ["TerminateInstances", "ModifyInstanceAttribute"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- needs        = "bursts"
-- lookback     = "30m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Take the actor's keys and sessions away before more is lost.
-- 2. What ran there? SELECT event_time, aws_region, request_parameters FROM events WHERE account = '…' AND event_name = 'RunInstances' AND contains(response_elements, 'i-…').
-- 3. Which disks are left? aws ec2 describe-volumes --filters Name=status,Values=available: take snapshots of them for the investigation.
-- 4. Did the same actor delete backups or stop services too? SELECT event_source, event_name, count(*) FROM events WHERE account = '…' AND principal = '…' AND is_write GROUP BY ALL.
-- 5. Switch termination protection on for what matters.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html",
--   "https://traildiscover.cloud/#EC2-TerminateInstances",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that tear down environments as their work: at most low"
--
-- [params.instances]
-- type    = "int"
-- default = 10
-- about   = "Instances terminated within half an hour; a third of them is enough if their protection was taken off first"
-- ---
WITH calls AS (
  SELECT
    *,
    instances_named(request_parameters) AS instances,
    event_name = 'ModifyInstanceAttribute' AS bared
  FROM events
  WHERE event_source = 'ec2.amazonaws.com'
    AND (event_name = 'TerminateInstances'
      OR event_name = 'ModifyInstanceAttribute' AND coalesce(lower(json_extract_string(request_parameters, '$.disableApiTermination.value')) = 'false', false))
    AND actor_kind <> 'aws_service'
    AND success
),
counted AS (
  SELECT
    *,
    len(list_distinct(flatten(list(instances) FILTER (NOT bared) OVER recent))) AS gone,
    list(event_id) FILTER (NOT bared) OVER recent AS ids,
    list(event_id) FILTER (bared) OVER recent AS bared_ids
  FROM calls
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
bursts AS (
  SELECT * FROM counted
  WHERE NOT bared
    AND (gone >= getvariable('instances_terminated_instances')
      OR bared_ids IS NOT NULL AND 3 * gone >= getvariable('instances_terminated_instances'))
),
judged AS (
  SELECT
    c.*,
    c.gone >= getvariable('instances_terminated_instances') AS many,
    is_by_hand(c.actor_kind, c.session_name)
      OR coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account) <= c.date - 14, false) AS telling
  FROM bursts AS c
  WHERE NOT EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = 'ec2.amazonaws.com'
        AND a.event_name = 'TerminateInstances' AND a.success AND a.date < c.date)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  instances[1] AS target,
  concat(gone, ' instances were terminated within 30 minutes',
    CASE WHEN bared_ids IS NOT NULL THEN ', after their protection was taken off' ELSE '' END) AS summary,
  CASE
    WHEN list_contains(getvariable('instances_terminated_trusted_principals'), principal) THEN 'low'
    WHEN many AND telling THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_concat(ids, coalesce(bared_ids, [])) AS event_ids
FROM judged
