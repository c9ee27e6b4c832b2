-- ---
-- title        = "Unusual Region"
-- severity     = "medium"
-- attack       = [
--   { id = "T1535", why = "work in a region that nobody looks at stays unseen" },
--   { id = "T1578.002", why = "instances were started there" },
--   { id = "T1496.001", why = "accelerated instances in a new region are most often somebody mining at your cost" },
-- ]
-- about        = "An account was used in a region where it is never used: not on two days of the last 30."
-- benign       = [
--   "A move into a new region: after two days of use it is usual; or list it in allowed_regions",
--   "The console's home page asks many regions at once (info); that makes none of them usual",
--   "Multi-region tools and stack sets",
-- ]
-- group_by     = ["account", "actor", "place"]
-- group_window = "24h"
-- needs        = "unsettled"
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. List everything in that region: SELECT * FROM events WHERE account = '…' AND aws_region = '…' ORDER BY event_time.
-- 2. Are instances, functions or stacks running there? Stop them; look at the cost.
-- 3. Is the actor who they should be? New addresses, new keys?
-- 4. Close regions nobody needs by a service control policy on aws:RequestedRegion.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_examples_general.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.organizations-leave/",
-- ]
--
-- [params.allowed_regions]
-- type    = "list[str]"
-- default = []
-- about   = "The only usual regions, of every account (eu-west-1) or one (111122223333:eu-west-1); empty means they are learned"
--
-- [params.days]
-- type    = "int"
-- default = 2
-- about   = "Days of use before a region is usual"
--
-- [params.learning_days]
-- type    = "int"
-- default = 14
-- about   = "Days of history an account needs before anything in it is unusual"
--
-- [params.sweep_regions]
-- type    = "int"
-- default = 5
-- about   = "Unusual regions one principal looks into within ten minutes that make a sweep; one question put to so many a day teaches none of them"
-- ---
WITH used AS (
  SELECT
    *,
    CASE
      WHEN event_source = 'sts.amazonaws.com' THEN false
      WHEN error_code LIKE '%OptInRequired' OR error_code IN ('AuthFailure', 'Client.AuthFailure', 'InvalidClientTokenId',
        'UnrecognizedClientException') THEN true
      ELSE is_write
    END AS weighty,
    coalesce(regexp_matches(user_agent, 'console\.amazonaws\.com|AWSConsole|aws-internal/3|signin\.aws'), false)
      OR coalesce(session_credential_from_console = 'true', false) AS by_console
  FROM events
  WHERE actor_kind NOT IN ('aws_service', 'anonymous')
    AND coalesce(event_type, 'AwsApiCall') NOT IN ('AwsServiceEvent', 'AwsConsoleSignIn', 'AwsVpceEvent', 'AwsCloudTrailInsight')
    AND NOT coalesce(contains(principal, 'AWSControlTowerExecution'), false)
    AND NOT is_global_call(event_source, event_name, aws_region)
),
places AS (
  SELECT account, aws_region, date, bool_or(is_write) AS written FROM used GROUP BY ALL
),
habits AS MATERIALIZED (
  SELECT
    account, date, CASE
      WHEN success AND actor_kind NOT IN ('aws_service', 'anonymous') AND NOT is_global_call(event_source, event_name, region)
        THEN region END AS region,
    bool_or(is_write OR NOT regexp_matches(event_name, '^(Describe|List|Get)')) AS worked
  FROM activity
  GROUP BY ALL
),
-- What the account's history said on the morning of that day.
mornings AS (
  SELECT
    p.account,
    p.aws_region,
    p.date,
    count(DISTINCT h.date) FILTER (h.region = p.aws_region) AS days,
    bool_or(p.written) AND count(DISTINCT h.date) FILTER (h.region = p.aws_region AND h.worked) < getvariable('unusual_region_days') AS doubtful,
    coalesce(min(h.date) > p.date - CAST(getvariable('unusual_region_learning_days') AS INT), true)
      -- Nor is anything unusual where nothing is usual yet.
      OR count(DISTINCT h.date) FILTER (h.region IS NOT NULL) < getvariable('unusual_region_days') AS learning
  FROM places AS p
  LEFT JOIN habits AS h ON h.account = p.account AND h.date < p.date AND h.date >= p.date - 30
  GROUP BY p.account, p.aws_region, p.date
),
unsettled AS (
  SELECT * FROM mornings
  WHERE len(getvariable('unusual_region_allowed_regions')) > 0 OR doubtful OR days < getvariable('unusual_region_days')
),
-- Where hardly anybody worked: one question put to many regions in a day, as the console's pages do, uses none of them.
questions AS (
  SELECT account, date, list(DISTINCT region) AS regions
  FROM activity
  WHERE account IN (SELECT account FROM unsettled WHERE doubtful AND days > 0)
    AND success AND NOT is_write AND actor_kind NOT IN ('aws_service', 'anonymous') AND NOT is_global_call(event_source, event_name, region)
  GROUP BY account, date, principal, event_source, event_name
  HAVING len(regions) < getvariable('unusual_region_sweep_regions')
),
uses AS (
  SELECT account, date, region FROM habits WHERE worked
  UNION
  SELECT account, date, unnest(regions) FROM questions
),
judged AS (
  SELECT
    m.*,
    CASE WHEN m.doubtful THEN (SELECT count(*) FROM uses AS u
      WHERE u.account = m.account AND u.region = m.aws_region AND u.date < m.date AND u.date >= m.date - 30) ELSE m.days END AS used_days
  FROM unsettled AS m
),
strange AS (
  SELECT
    u.*,
    j.learning,
    len(getvariable('unusual_region_allowed_regions')) > 0 AS by_list,
    json_extract_string(request_parameters, '$.instanceType') AS instance_type
  FROM used AS u
  JOIN judged AS j USING (account, aws_region, date)
  WHERE CASE
    WHEN len(getvariable('unusual_region_allowed_regions')) > 0 THEN
      NOT list_has_any(getvariable('unusual_region_allowed_regions'), [u.aws_region, concat(u.account, ':', u.aws_region)])
    WHEN j.learning THEN
      -- Still learning: only what hardly anybody does by chance in a region that was never used.
      j.used_days = 0 AND u.event_name = 'RunInstances' AND is_accelerated(json_extract_string(request_parameters, '$.instanceType'))
      AND EXISTS (SELECT 1 FROM habits AS h WHERE h.account = u.account AND h.date < u.date AND h.region IS NOT NULL)
    -- Whoever only looks need not know more than that others looked.
    ELSE CASE WHEN u.is_write THEN j.used_days ELSE j.days END < getvariable('unusual_region_days')
  END
),
-- Looking around comes in bursts: one finding for each region, caller and minute.
glances AS (
  SELECT
    account,
    principal,
    aws_region,
    date_trunc('minute', event_time) AS minute,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    list(event_id ORDER BY event_time, event_id) AS ids,
    bool_and(by_console) AS by_console,
    list(DISTINCT event_name) AS names,
    count(*) AS calls
  FROM strange
  WHERE NOT weighty
  GROUP BY ALL
),
swept AS (
  SELECT
    *,
    list_distinct(list(aws_region) OVER nearby) AS regions,
    len(list_distinct(flatten(list(names) OVER nearby))) AS kinds,
    list(event_id) OVER nearby AS others
  FROM glances
  WINDOW nearby AS (
    PARTITION BY account, principal ORDER BY minute RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND INTERVAL 10 MINUTE FOLLOWING)
),
found AS (
  SELECT
    account, principal, aws_region, event_id, event_time, source_ip_address,
    'reading' AS place,
    CASE WHEN len(regions) >= getvariable('unusual_region_sweep_regions') AND NOT (by_console AND kinds <= 2)
      THEN concat('Looked into ', len(regions), ' unusual regions within minutes: ', array_to_string(list_sort(regions), ', '))
      ELSE concat('Looked into ', aws_region, ', where the account is never used: ', array_to_string(list_sort(names)[:5], ', '))
    END AS summary,
    CASE
      WHEN by_console AND kinds <= 2 THEN 'info'
      WHEN len(regions) >= getvariable('unusual_region_sweep_regions') THEN 'medium'
      ELSE 'low'
    END AS severity,
    CASE WHEN len(regions) >= getvariable('unusual_region_sweep_regions') THEN list_distinct(list_concat(ids, others)) ELSE ids END AS event_ids
  FROM swept
  UNION ALL BY NAME
  SELECT
    account, principal, aws_region, event_id, event_time, source_ip_address,
    aws_region AS place,
    concat(event_name, ' in ', aws_region, ', where the account is never used',
      CASE WHEN is_accelerated(instance_type) THEN concat(' (', instance_type, ')') ELSE '' END,
      CASE WHEN success THEN '' ELSE concat(': failed with ', error_code) END) AS summary,
    CASE
      WHEN regexp_matches(coalesce(principal, ''), 'StackSetExecution|stacksets-exec') THEN 'low'
      WHEN NOT success THEN 'medium'
      WHEN event_name = 'RunInstances' AND is_accelerated(instance_type) THEN CASE WHEN learning AND NOT by_list THEN 'high' ELSE 'critical' END
      WHEN is_resource_call(event_name) THEN 'high'
      ELSE 'medium'
    END AS severity,
    [event_id] AS event_ids
  FROM strange
  WHERE weighty
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  aws_region AS target,
  summary,
  severity,
  event_ids,
  place
FROM found
