-- ---
-- title        = "Region Or Quota Unlocked"
-- severity     = "medium"
-- attack       = [
--   { id = "T1535", why = "a region that was closed until now is one that nobody looks at" },
--   { id = "T1496.001", why = "whoever wants to mine at your cost needs larger quotas first" },
--   { id = "T1526", why = "quotas asked for in region after region show where there is room" },
-- ]
-- about        = "A region was enabled, a larger quota was asked for, or quotas of many regions were looked up at once."
-- benign       = [
--   "Planned growth, with a ticket",
--   "Quota monitors: they ask every day, so they are silent after the first; or list them in trusted_principals",
-- ]
-- event_names  = [
--   "EnableRegion", "RequestServiceQuotaIncrease", "PutServiceQuotaIncreaseRequestIntoTemplate",
--   "GetServiceQuota", "ListServiceQuotas", "ListAWSDefaultServiceQuotas", "GetAWSDefaultServiceQuota",
-- ]
-- group_by     = ["account", "actor", "kind"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Ask the actor: who needs this, for what?
-- 2. What runs in that region, or of that kind? SELECT aws_region, event_name, count(*) FROM events WHERE account = '…' AND is_write AND event_time > '…' GROUP BY ALL ORDER BY 3 DESC.
-- 3. Close the region again: aws account disable-region --region-name …; open requests: aws service-quotas list-requested-service-quota-change-history.
-- 4. Look at the cost of the last days by region and service.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/accounts/latest/reference/manage-acct-regions.html",
--   "https://docs.aws.amazon.com/servicequotas/latest/userguide/request-quota-increase.html",
--   "https://traildiscover.cloud/#ServiceQuotas-RequestServiceQuotaIncrease",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that plan capacity as their work: at most low"
--
-- [params.regions]
-- type    = "int"
-- default = 5
-- about   = "Regions whose quotas one principal looks up within ten minutes that are a sweep"
--
-- [params.costly_services]
-- type    = "list[str]"
-- default = ["ec2", "sagemaker", "bedrock", "ecs", "fargate", "batch", "elasticmapreduce", "lightsail", "ses"]
-- about   = "Service codes whose quotas are worth a medium; other services' are low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.serviceCode') AS service_code,
    CASE
      WHEN event_source = 'account.amazonaws.com' AND event_name = 'EnableRegion' THEN 'region'
      WHEN event_source = 'servicequotas.amazonaws.com' AND event_name IN ('RequestServiceQuotaIncrease', 'PutServiceQuotaIncreaseRequestIntoTemplate')
        THEN 'quota'
      WHEN event_source = 'servicequotas.amazonaws.com'
        AND event_name IN ('GetServiceQuota', 'ListServiceQuotas', 'ListAWSDefaultServiceQuotas', 'GetAWSDefaultServiceQuota') THEN 'sweep'
    END AS kind
  FROM events
  WHERE actor_kind <> 'aws_service'
    AND (success OR denied)
),
swept AS (
  SELECT
    *,
    list(event_id) OVER recent AS ids,
    list_sort(list_distinct(list(aws_region) OVER recent)) AS regions
  FROM calls AS c
  WHERE kind = 'sweep'
    AND NOT EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = 'servicequotas.amazonaws.com'
        AND NOT a.is_write AND a.date < c.date)
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
found AS (
  SELECT
    * EXCLUDE (ids, regions),
    coalesce(json_extract_string(request_parameters, '$.regionName'), json_extract_string(request_parameters, '$.RegionName'),
      concat_ws(' ', service_code, json_extract_string(request_parameters, '$.quotaCode'))) AS target,
    'medium' AS weight,
    concat(len(regions), ' regions'' quotas were looked up within 10 minutes: ', array_to_string(regions, ', ')) AS what,
    ids AS event_ids
  FROM swept
  WHERE len(regions) >= getvariable('region_or_quota_unlocked_regions')
  UNION ALL BY NAME
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.regionName'), json_extract_string(request_parameters, '$.RegionName'),
      nullif(concat_ws(' ', service_code, json_extract_string(request_parameters, '$.quotaCode')), ''), kind) AS target,
    CASE WHEN coalesce(NOT list_contains(getvariable('region_or_quota_unlocked_costly_services'), service_code), false)
      THEN 'low' ELSE 'medium' END AS weight,
    CASE kind WHEN 'region' THEN 'A region was enabled' ELSE concat('A larger quota of ', coalesce(service_code, 'a service'), ' was asked for') END AS what,
    [event_id] AS event_ids
  FROM calls
  WHERE kind IN ('region', 'quota')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  target,
  concat(what, CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN list_contains(getvariable('region_or_quota_unlocked_trusted_principals'), principal) THEN 'low'
    WHEN success OR kind = 'sweep' THEN weight
    ELSE one_below(weight)
  END AS severity,
  event_ids,
  kind
FROM found
WHERE success OR weight <> 'low'
