-- ---
-- title        = "Snapshot Made By Newcomer"
-- severity     = "low"
-- attack       = [
--   { id = "T1578.001", why = "a snapshot is a copy of a disk or database that no guard of the original watches" },
-- ]
-- about        = "Somebody who never did that made snapshots or images of disks, machines or databases: the first step to carry them away."
-- benign       = ["A backup before a change, by hand"]
-- event_names  = [
--   "CreateSnapshot", "CreateSnapshots", "CreateImage", "CreateDBSnapshot", "CreateDBClusterSnapshot", "CreateClusterSnapshot",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Of what, and why? Ask the actor. SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND (event_name LIKE 'Create%Snapshot%' OR event_name = 'CreateImage') ORDER BY event_time.
-- 2. What happened to the snapshots? Look for sharing, copying, new volumes and restores by the same actor in the days after.
-- 3. If nobody owns it: delete the snapshots (keep the event as evidence), and cut the actor off.
-- """
-- references   = [
--   "https://attack.mitre.org/techniques/T1578/001/",
--   "https://docs.aws.amazon.com/ebs/latest/userguide/ebs-create-snapshot.html",
-- ]
--
-- [params.snapshots]
-- type    = "int"
-- default = 5
-- about   = "Different disks, machines or databases within an hour that are many: medium"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a snapshot is new for it; until then only many are a finding, and low"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of backup programs: no finding"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    coalesce(
      json_extract_string(request_parameters, '$.volumeId'),
      json_extract_string(request_parameters, '$.CreateSnapshotsRequest.InstanceSpecification.InstanceId'),
      json_extract_string(request_parameters, '$.instanceId'), json_extract_string(request_parameters, '$.dBInstanceIdentifier'),
      json_extract_string(request_parameters, '$.dBClusterIdentifier'), json_extract_string(request_parameters, '$.clusterIdentifier')) AS source
  FROM events
  WHERE (
      event_source = 'ec2.amazonaws.com' AND event_name IN ('CreateSnapshot', 'CreateSnapshots', 'CreateImage')
      OR event_source = 'rds.amazonaws.com' AND event_name IN ('CreateDBSnapshot', 'CreateDBClusterSnapshot')
      OR event_source = 'redshift.amazonaws.com' AND event_name = 'CreateClusterSnapshot')
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied)
    AND NOT list_contains(getvariable('snapshot_made_by_newcomer_trusted_principals'), principal)
),
habits AS MATERIALIZED (
  SELECT
    account, principal, min(first_seen) AS first_seen,
    min(first_seen) FILTER (success AND event_source IN ('ec2.amazonaws.com', 'rds.amazonaws.com', 'redshift.amazonaws.com') AND event_name IN (
      'CreateSnapshot', 'CreateSnapshots', 'CreateImage', 'CreateDBSnapshot', 'CreateDBClusterSnapshot', 'CreateClusterSnapshot')) AS first_snapshot
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM calls)
  GROUP BY ALL
),
new_ones AS (
  SELECT
    c.*,
    coalesce(h.first_seen > c.event_time - to_days(CAST(getvariable('snapshot_made_by_newcomer_learning_days') AS INT)), true) AS learning
  FROM calls AS c
  LEFT JOIN habits AS h USING (account, principal)
  WHERE NOT coalesce(h.first_snapshot < c.event_time - INTERVAL 1 HOUR, false)
),
counted AS (
  SELECT
    *,
    len(list_distinct(list(source) FILTER (success) OVER hour)) AS sources,
    list(event_id) OVER hour AS ids
  FROM new_ones
  WINDOW hour AS (PARTITION BY account, caller ORDER BY event_time RANGE BETWEEN INTERVAL 60 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(source, 'a snapshot') AS target,
  concat(last_part(caller), CASE WHEN success THEN ' made' ELSE ' was refused to make' END, ' a snapshot of ', coalesce(source, 'something'),
    ' for the first time', CASE WHEN coalesce(sources, 0) > 1 THEN concat(', of ', sources, ' within the hour') ELSE '' END) AS summary,
  CASE WHEN coalesce(sources, 0) >= getvariable('snapshot_made_by_newcomer_snapshots') AND NOT learning THEN 'medium' ELSE 'low' END AS severity,
  CASE WHEN coalesce(sources, 0) > 1 THEN ids ELSE [event_id] END AS event_ids,
  caller
FROM counted
WHERE NOT learning OR coalesce(sources, 0) >= getvariable('snapshot_made_by_newcomer_snapshots')
