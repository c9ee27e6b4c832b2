-- ---
-- title        = "Unusual Instances Started"
-- severity     = "high"
-- attack       = [
--   { id = "T1496.001", why = "graphics and giant machines are started to mine coins at your cost" },
--   { id = "T1578.002", why = "instances nobody asked for" },
-- ]
-- about        = "Somebody who does not start such machines started, or tried to start, accelerated or very large instances, or a great many at once."
-- benign       = [
--   "Machine learning and rendering: known from the second day on, or list the principals in trusted_principals",
--   "Load tests that start many instances",
-- ]
-- event_names  = [
--   "RunInstances", "RequestSpotInstances", "RequestSpotFleet", "CreateFleet", "CreateNotebookInstance",
--   "CreateTrainingJob",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- needs        = "remarkable"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was started? SELECT event_time, aws_region, event_name, error_code, json_extract_string(request_parameters, '$.instanceType') AS type FROM events WHERE event_name IN ('RunInstances', 'RequestSpotInstances', 'CreateFleet') AND principal = '…' ORDER BY event_time.
-- 2. Look in every region, then stop them: aws ec2 describe-instances --region …; aws ec2 terminate-instances --instance-ids ….
-- 3. Were quotas raised or regions opened before? SELECT event_time, event_name, request_parameters FROM events WHERE event_name IN ('RequestServiceQuotaIncrease', 'EnableRegion') ORDER BY event_time.
-- 4. Take the actor its keys and sessions; close regions and types nobody needs by a service control policy on ec2:InstanceType.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.execution.ec2-launch-unusual-instances/",
--   "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
--
-- [params.count]
-- type    = "int"
-- default = 20
-- about   = "Instances asked for in one call that are a great many"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    regexp_replace(coalesce(
      json_extract_string(request_parameters, '$.instanceType'),
      json_extract_string(request_parameters, '$.launchSpecification.instanceType'),
      json_extract_string(request_parameters, '$.resourceConfig.instanceType'),
      regexp_extract(CAST(request_parameters AS VARCHAR), '"[iI]nstanceType"\s*:\s*"([a-z0-9.-]+)"', 1)), '^ml\.', '') AS kind,
    coalesce(
      TRY_CAST(json_extract_string(request_parameters, '$.instancesSet.items[0].maxCount') AS INT),
      TRY_CAST(json_extract_string(request_parameters, '$.instanceCount') AS INT),
      TRY_CAST(json_extract_string(request_parameters, '$.CreateFleetRequest.TargetCapacitySpecification.TotalTargetCapacity') AS INT),
      TRY_CAST(json_extract_string(request_parameters, '$.spotFleetRequestConfig.targetCapacity') AS INT), 1) AS wanted
  FROM events
  WHERE ((event_source = 'ec2.amazonaws.com' AND event_name IN ('RunInstances', 'RequestSpotInstances', 'RequestSpotFleet', 'CreateFleet'))
      OR (event_source = 'sagemaker.amazonaws.com' AND event_name IN ('CreateNotebookInstance', 'CreateTrainingJob')))
    AND actor_kind <> 'aws_service'
    -- A dry run asks whether one might; every other failure means that somebody wanted them.
    AND coalesce(error_code, '') NOT LIKE '%DryRunOperation'
    AND NOT list_contains(getvariable('unusual_instances_started_trusted_principals'), principal)
),
heavy AS (
  SELECT
    *,
    is_accelerated(kind) OR coalesce(regexp_matches(lower(kind), '^(u-|u7|x[0-9]|hpc)|\.(metal|(16|18|24|32|48|56|96|112)xlarge)'), false) AS costly,
    wanted >= getvariable('unusual_instances_started_count') AS many
  FROM calls
),
remarkable AS (
  SELECT * FROM heavy WHERE costly OR many
),
judged AS (
  SELECT
    h.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = h.account AND a.principal = h.principal AND a.event_source = h.event_source
        AND a.event_name = h.event_name AND a.success AND a.date < h.date) AS habit
  FROM remarkable AS h
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(nullif(kind, ''), 'instances') AS target,
  concat(last_part(caller), ' asked for ', wanted, ' × ', coalesce(nullif(kind, ''), 'some instance'),
    CASE WHEN habit THEN '' ELSE ', and never started instances before' END, CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN habit THEN CASE WHEN success AND costly THEN 'low' ELSE 'info' END
    WHEN success THEN CASE WHEN costly THEN 'high' ELSE 'medium' END
    WHEN costly THEN 'medium'
    ELSE 'low'
  END AS severity,
  caller
FROM judged
