-- ---
-- title         = "CloudTrail Disabled"
-- severity      = "high"
-- attack        = [
--   { id = "T1685.002", why = "the trail stops recording, records less, or its files are lost" },
--   { id = "T1485.001", why = "a lifecycle rule deletes the log files within days" },
-- ]
-- attack_legacy = ["T1562.008"]
-- about         = "A trail was stopped, deleted or narrowed, or its bucket was turned against it: later calls leave no record."
-- benign        = [
--   "A trail, or its bucket, created within a day by the same principal and deleted again (low)",
--   "A short stop: logging starts again within ten minutes (low)",
--   "A planned move to a new trail: list the role in trusted_principals for that time",
-- ]
-- event_names   = [
--   "StopLogging", "StartLogging", "DeleteTrail", "CreateTrail", "UpdateTrail",
--   "PutEventSelectors", "PutInsightSelectors", "DeleteEventDataStore", "StopEventDataStoreIngestion", "DeleteChannel",
--   "DeregisterOrganizationDelegatedAdmin", "DeregisterDelegatedAdministrator", "DisableAWSServiceAccess",
--   "DeleteServiceLinkedRole", "CreateBucket", "DeleteBucket", "DeleteBucketPolicy", "PutBucketPolicy",
--   "PutBucketLifecycle", "PutBucketLifecycleConfiguration", "DeleteObject", "DisableKey", "ScheduleKeyDeletion",
-- ]
-- group_by      = ["account", "target", "variant"]
-- group_window  = "1h"
-- only_named    = true
-- lookback      = "24h"
-- runbook       = """
-- 1. Start logging again first, or your own containment goes unrecorded: aws cloudtrail start-logging --name …
-- 2. Fill the gap: the event history of the last 90 days (LookupEvents) does not depend on a trail.
-- 3. Compare the event selectors, the bucket's policy and lifecycle rules, and GetTrailStatus with what they should be.
-- 4. Review what the actor did before, and everything after it.
-- 5. Deny these calls by a service control policy.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/best-practices-security.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.cloudtrail-stop/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage trails as their work: at most low"
--
-- [params.least_retention_days]
-- type    = "int"
-- default = 7
-- about   = "A lifecycle rule that deletes log files within so many days is high"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(last_part(json_extract_string(request_parameters, '$.name')),
      last_part(json_extract_string(request_parameters, '$.trailName')),
      last_part(json_extract_string(request_parameters, '$.eventDataStore')),
      last_part(json_extract_string(request_parameters, '$.channel'))) AS named,
    json_extract_string(request_parameters, '$.bucketName') AS bucket_named,
    json_extract_string(request_parameters, '$.s3BucketName') AS log_bucket
  FROM events
  WHERE event_source IN ('cloudtrail.amazonaws.com', 's3.amazonaws.com', 'kms.amazonaws.com', 'iam.amazonaws.com', 'organizations.amazonaws.com')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND event_name IN (
      'StopLogging', 'StartLogging', 'DeleteTrail', 'CreateTrail', 'UpdateTrail',
      'PutEventSelectors', 'PutInsightSelectors', 'DeleteEventDataStore', 'StopEventDataStoreIngestion', 'DeleteChannel',
      'DeregisterOrganizationDelegatedAdmin', 'DeregisterDelegatedAdministrator', 'DisableAWSServiceAccess',
      'DeleteServiceLinkedRole', 'CreateBucket', 'DeleteBucket', 'DeleteBucketPolicy', 'PutBucketPolicy',
      'PutBucketLifecycle', 'PutBucketLifecycleConfiguration', 'DeleteObject', 'DisableKey', 'ScheduleKeyDeletion')
),
-- Buckets that hold log files: by the last check, or by what was done to trails around it.
log_buckets AS (
  SELECT DISTINCT bucket, CAST(NULL AS VARCHAR) AS account, CAST(NULL AS VARCHAR) AS told_by FROM trails
  UNION
  SELECT log_bucket, account, arg_min(event_id, (event_time, event_id)) FROM calls WHERE success GROUP BY ALL
),
-- PutEventSelectors, selector by selector: does any still record management events, writes among them?
selectors AS (
  SELECT
    account,
    event_id,
    json_items(request_parameters, '$.eventSelectors') AS basic,
    list_filter(json_items(request_parameters, '$.eventSelectors'), lambda s:
      NOT json_is_false(s, '$.includeManagementEvents')) AS recording,
    json_items(request_parameters, '$.advancedEventSelectors') AS advanced,
    list_filter(json_items(request_parameters, '$.advancedEventSelectors'), lambda s:
      len(list_filter(json_items(s, '$.fieldSelectors'), lambda f:
        json_extract_string(f, '$.field') = 'eventCategory' AND list_contains(json_texts(f, '$.equals'), 'Management'))) > 0) AS managing
  FROM calls
  WHERE event_name = 'PutEventSelectors'
),
selected AS (
  SELECT
    account,
    event_id,
    CASE
      WHEN len(basic) > 0 AND len(recording) = 0 OR len(advanced) > 0 AND len(managing) = 0 THEN 'no management events are recorded'
      WHEN len(recording) > 0 AND len(list_filter(recording, lambda s: coalesce(json_extract_string(s, '$.readWriteType'), 'All') <> 'ReadOnly')) = 0
        THEN 'only reading is recorded'
      WHEN len(list_filter(managing, lambda s: len(list_filter(json_items(s, '$.fieldSelectors'), lambda f:
          json_extract_string(f, '$.field') = 'readOnly' AND list_contains(json_texts(f, '$.equals'), 'true'))) = 0)) = 0
        AND len(managing) > 0 THEN 'only reading is recorded'
      WHEN len(list_filter(managing, lambda s: len(list_filter(json_items(s, '$.fieldSelectors'), lambda f:
          starts_with(json_extract_string(f, '$.field'), 'userIdentity.') OR json_extract_string(f, '$.field') = 'sessionCredentialFromConsole')) > 0)) > 0
        THEN 'somebody is left out'
    END AS grave,
    CASE
      WHEN len(list_filter(recording, lambda s: len(json_texts(s, '$.excludeManagementEventSources')) > 0)) > 0
        THEN 'services are left out'
      WHEN len(list_filter(managing, lambda s: len(list_filter(json_items(s, '$.fieldSelectors'), lambda f:
          json_extract_string(f, '$.field') IN ('eventSource', 'eventName') AND len(json_texts(f, '$.notEquals')) > 0)) > 0)) > 0
        THEN 'services are left out'
    END AS slight,
    -- AWS itself proposes to leave out the noisy key and data services.
    len(list_filter(managing, lambda s: len(list_filter(json_items(s, '$.fieldSelectors'), lambda f:
      json_extract_string(f, '$.field') IN ('eventSource', 'eventName')
      AND len(list_filter(json_texts(f, '$.notEquals'), lambda v: v NOT IN ('kms.amazonaws.com', 'rdsdata.amazonaws.com'))) > 0)) > 0)) > 0 AS unusual
  FROM selectors
),
updated AS (
  SELECT
    c.account,
    c.event_id,
    CASE
      WHEN json_is_false(request_parameters, '$.isMultiRegionTrail') THEN 'to one region'
      WHEN json_is_false(request_parameters, '$.includeGlobalServiceEvents') THEN 'to leave out global services'
      WHEN json_is_false(request_parameters, '$.isOrganizationTrail') THEN 'to one account'
      WHEN json_is_false(request_parameters, '$.enableLogFileValidation')
        OR json_is_false(request_parameters, '$.logFileValidationEnabled') THEN 'to skip validation'
      WHEN json_extract_string(request_parameters, '$.cloudWatchLogsLogGroupArn') = '' THEN 'to leave CloudWatch'
      WHEN regexp_extract(json_extract_string(request_parameters, '$.kmsKeyId'), '^arn:aws[^:]*:kms:[^:]*:([0-9]{12}):', 1) NOT IN ('', c.account)
        THEN 'to a key of another account'
    END AS narrowed,
    CASE
      WHEN c.log_bucket IS NULL OR c.log_bucket = coalesce(t.bucket, b.log_bucket) THEN NULL
      WHEN coalesce(t.bucket, b.log_bucket) IS NOT NULL THEN 'high'
      ELSE 'medium'
    END AS moved,
    CASE WHEN t.bucket IS NULL THEN b.told_by END AS told_by
  FROM calls AS c
  LEFT JOIN (SELECT name, any_value(bucket) AS bucket FROM trails GROUP BY name) AS t ON t.name = c.named
  LEFT JOIN LATERAL (
    SELECT
      arg_max(p.log_bucket, (p.event_time, p.event_id)) AS log_bucket,
      arg_max(p.event_id, (p.event_time, p.event_id)) FILTER (p.log_bucket IS NOT NULL) AS told_by
    FROM calls AS p
    WHERE p.account = c.account AND p.named = c.named AND p.success AND p.event_time < c.event_time
  ) AS b ON true
  WHERE c.event_name = 'UpdateTrail'
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM log_buckets AS l WHERE l.bucket = c.bucket_named AND coalesce(l.account, c.account) = c.account)
      OR regexp_matches(lower(c.bucket_named), 'cloud-?trail') AS of_trail,
    EXISTS (SELECT 1 FROM trails AS t
      WHERE last_part(t.kms_key_id) = last_part(json_extract_string(c.request_parameters, '$.keyId'))) AS key_of_trail,
    EXISTS (SELECT 1 FROM trails AS t WHERE t.name = c.named AND (t.multi_region OR t.organization)) AS of_many,
    -- What told where log files are belongs to the finding: it may come late.
    coalesce(u.told_by,
      (SELECT min(l.told_by) FROM log_buckets AS l WHERE l.bucket = c.bucket_named AND l.account = c.account)) AS told_by,
    u.narrowed, u.moved, s.grave, s.slight, s.unusual
  FROM calls AS c
  LEFT JOIN updated AS u USING (account, event_id)
  LEFT JOIN selected AS s USING (account, event_id)
),
found AS (
  SELECT
    *,
    CASE
      WHEN event_source = 'cloudtrail.amazonaws.com' AND event_name IN ('StopLogging', 'StopEventDataStoreIngestion') THEN 'stopped'
      WHEN event_source = 'cloudtrail.amazonaws.com' AND event_name IN ('DeleteTrail', 'DeleteEventDataStore', 'DeleteChannel') THEN 'deleted'
      WHEN event_name = 'UpdateTrail' AND (narrowed IS NOT NULL OR moved IS NOT NULL
        OR json_extract_string(request_parameters, '$.kmsKeyId') IS NOT NULL OR denied) THEN 'narrowed'
      WHEN grave IS NOT NULL OR slight IS NOT NULL THEN 'selectors'
      WHEN event_name = 'PutInsightSelectors' AND json_type(request_parameters, '$.insightSelectors') = 'ARRAY'
        AND json_array_length(request_parameters, '$.insightSelectors') = 0 THEN 'insights'
      WHEN event_source = 's3.amazonaws.com' AND (
        of_trail AND event_name IN ('DeleteBucket', 'DeleteBucketPolicy')
        OR of_trail AND event_name = 'PutBucketPolicy' AND NOT regexp_matches(request_parameters, 'cloudtrail\.amazonaws\.com')
          AND json_type(request_parameters, '$.bucketPolicy') IS NOT NULL
        OR (of_trail OR regexp_matches(lower(request_parameters), 'cloud-?trail')) AND event_name LIKE 'PutBucketLifecycle%' AND len(list_filter(
          json_items(request_parameters, '$.LifecycleConfiguration.Rule'), lambda r:
            coalesce(json_extract_string(r, '$.Status'), 'Enabled') = 'Enabled'
            AND TRY_CAST(json_extract_string(r, '$.Expiration.Days') AS INT) <= getvariable('cloudtrail_disabled_least_retention_days'))) > 0
        OR event_name = 'DeleteObject' AND regexp_matches(json_extract_string(request_parameters, '$.key'), '(^|/)AWSLogs/.*/CloudTrail/')
      ) THEN 'log files'
      WHEN event_source = 'kms.amazonaws.com' AND event_name IN ('DisableKey', 'ScheduleKeyDeletion') AND key_of_trail THEN 'key'
      WHEN event_name = 'DeregisterOrganizationDelegatedAdmin' AND event_source = 'cloudtrail.amazonaws.com'
        OR event_source = 'organizations.amazonaws.com' AND event_name IN ('DisableAWSServiceAccess', 'DeregisterDelegatedAdministrator')
          AND json_extract_string(request_parameters, '$.servicePrincipal') = 'cloudtrail.amazonaws.com'
        OR event_source = 'iam.amazonaws.com' AND event_name = 'DeleteServiceLinkedRole'
          AND regexp_matches(json_extract_string(request_parameters, '$.roleName'), 'AWSServiceRoleForCloudTrail')
        THEN 'organization'
    END AS variant
  FROM judged
),
calmed AS (
  SELECT
    f.*,
    r.restarted,
    p.created
  FROM found AS f
  LEFT JOIN LATERAL (
    SELECT list(c.event_id) AS restarted
    FROM calls AS c
    WHERE f.event_name = 'StopLogging' AND c.event_name = 'StartLogging' AND c.success
      AND c.account = f.account AND c.named = f.named
      AND c.event_time BETWEEN f.event_time AND f.event_time + INTERVAL 10 MINUTE
  ) AS r ON true
  LEFT JOIN LATERAL (
    SELECT list(c.event_id) AS created
    FROM calls AS c
    WHERE c.success AND c.account = f.account AND c.principal = f.principal
      AND (f.event_name = 'DeleteTrail' AND c.event_name = 'CreateTrail' AND c.named = f.named
        OR f.event_name = 'DeleteBucket' AND c.event_name = 'CreateBucket' AND c.bucket_named = f.bucket_named)
      AND c.event_time BETWEEN f.event_time - INTERVAL 24 HOUR AND f.event_time
  ) AS p ON true
  WHERE f.variant IS NOT NULL
    AND (f.success OR f.denied OR f.error_code LIKE '%NotFoundException')
    AND (f.success OR f.variant IN ('stopped', 'deleted', 'narrowed', 'selectors', 'log files', 'organization'))
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(named, bucket_named, last_part(json_extract_string(request_parameters, '$.keyId')), 'CloudTrail') AS target,
  concat(
    CASE variant
      WHEN 'stopped' THEN concat('Trail ', named, ' was stopped')
      WHEN 'deleted' THEN concat('Trail ', named, ' was deleted')
      WHEN 'narrowed' THEN concat('Trail ', named, ' was changed ', coalesce(narrowed, CASE WHEN moved IS NOT NULL THEN concat('to deliver into ', log_bucket) END, 'to another key'))
      WHEN 'selectors' THEN concat('Event selectors of trail ', named, ': ', coalesce(grave, slight))
      WHEN 'insights' THEN concat('Insights of trail ', named, ' were switched off')
      WHEN 'log files' THEN concat('Log files in ', bucket_named, ' were put at risk by ', event_name)
      WHEN 'key' THEN concat('The key of a trail''s log files is to go: ', event_name)
      ELSE concat('CloudTrail of the organization was cut off by ', event_name)
    END,
    CASE WHEN restarted IS NOT NULL THEN ', and started again' WHEN created IS NOT NULL THEN ' by whoever had just created it'
      WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN CASE WHEN variant IN ('stopped', 'deleted') THEN 'medium' ELSE 'low' END
    WHEN restarted IS NOT NULL OR created IS NOT NULL
      OR list_contains(getvariable('cloudtrail_disabled_trusted_principals'), principal) THEN 'low'
    WHEN variant IN ('stopped', 'deleted') THEN CASE WHEN of_many THEN 'critical' ELSE 'high' END
    WHEN variant = 'narrowed' THEN CASE
      -- The console sends every field of the form, so a false there may not be new.
      WHEN narrowed IS NOT NULL THEN CASE WHEN session_credential_from_console = 'true' THEN 'medium' ELSE 'high' END
      ELSE coalesce(moved, 'low') END
    WHEN variant = 'selectors' THEN CASE WHEN grave IS NOT NULL THEN 'high' WHEN unusual THEN 'medium' ELSE 'low' END
    WHEN variant = 'insights' THEN 'low'
    ELSE 'high'
  END AS severity,
  list_concat([event_id], coalesce(restarted, []), coalesce(created, []),
    CASE WHEN told_by IS NOT NULL AND (moved IS NOT NULL OR variant = 'log files') THEN [told_by] ELSE [] END) AS event_ids,
  variant
FROM calmed
