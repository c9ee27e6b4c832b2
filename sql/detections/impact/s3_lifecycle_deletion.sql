-- ---
-- title        = "S3 Lifecycle Deletion"
-- severity     = "high"
-- attack       = [
--   { id = "T1485.001", why = "AWS itself deletes the objects within days, and no call of the intruder's shows it" },
--   { id = "T1490", why = "earlier versions, which would bring objects back, are deleted too" },
-- ]
-- about        = "A lifecycle rule deletes everything in a bucket within days."
-- benign       = [
--   "Buckets of passing data: those with tmp, temp, scratch, cache, staging or results in their name are low; list others in passing_buckets",
--   "A bucket created within the last day by the same principal (medium)",
-- ]
-- event_names  = ["PutBucketLifecycle", "PutBucketLifecycleConfiguration", "CreateBucket"]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "24h"
-- runbook      = """
-- 1. Take the rule back at once: aws s3api get-bucket-lifecycle-configuration --bucket …; aws s3api delete-bucket-lifecycle --bucket …. Objects go at midnight UTC.
-- 2. Is there versioning or a copy? aws s3api get-bucket-versioning --bucket …; aws s3api list-object-versions --bucket …
-- 3. Who is the actor, and which other buckets did it touch? SELECT event_time, event_name, json_extract_string(request_parameters, '$.bucketName') FROM events WHERE account = '…' AND principal = '…' AND event_source = 's3.amazonaws.com' AND is_write ORDER BY event_time.
-- 4. Were objects read before? Look at data events and server access logs of the bucket.
-- 5. Deny s3:PutLifecycleConfiguration on buckets that matter to all but the pipeline.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.cloudtrail-lifecycle-rule/",
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-expire-general-considerations.html",
-- ]
--
-- [params.days]
-- type    = "int"
-- default = 3
-- about   = "Objects that live so many days or fewer are about to be lost"
--
-- [params.log_days]
-- type    = "int"
-- default = 7
-- about   = "The same for buckets of log files, by their name or by the last check of trails"
--
-- [params.passing_buckets]
-- type    = "list[str]"
-- default = []
-- about   = "Buckets whose objects are not meant to stay: no finding"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage buckets as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.bucketName') AS bucket,
    list_filter(json_items(request_parameters, '$.LifecycleConfiguration.Rule'),
      lambda r: coalesce(json_extract_string(r, '$.Status'), 'Enabled') = 'Enabled') AS rules
  FROM events
  WHERE event_source = 's3.amazonaws.com'
    AND event_name IN ('PutBucketLifecycle', 'PutBucketLifecycleConfiguration', 'CreateBucket')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
marked AS (
  SELECT
    *,
    coalesce(regexp_matches(lower(bucket), '(^|[-._])(logs?|logging|trail|audit)([-._]|$)|cloud-?trail'), false)
      OR EXISTS (SELECT 1 FROM trails AS t WHERE t.bucket = calls.bucket) AS of_logs,
    coalesce(regexp_matches(lower(bucket), 'te?mp|scratch|cache|staging|athena|results?([-._]|$)|artifacts?([-._]|$)'), false) AS passing
  FROM calls
  WHERE coalesce(NOT list_contains(getvariable('s3_lifecycle_deletion_passing_buckets'), bucket), true)
),
-- Days the objects still have, rule by rule; rules for a part of the bucket are everyday life.
judged AS (
  SELECT
    *,
    list_min(list_transform(
      list_filter(rules, lambda r:
        coalesce(json_extract_string(r, '$.Filter.Prefix'), json_extract_string(r, '$.Prefix'), '') IN ('', '*', '/')
        AND json_type(r, '$.Filter.Tag') IS NULL AND json_type(r, '$.Filter.And') IS NULL AND json_type(r, '$.Filter.ObjectSizeGreaterThan') IS NULL
        AND json_type(r, '$.Filter.ObjectSizeLessThan') IS NULL),
      lambda r: coalesce(
        TRY_CAST(json_extract_string(r, '$.Expiration.Days') AS INT),
        date_diff('day', event_time, TRY_CAST(json_extract_string(r, '$.Expiration.Date') AS TIMESTAMP))))) AS days
  FROM marked
),
calmed AS (
  SELECT
    j.*,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE c.event_name = 'CreateBucket' AND c.success
        AND c.account = j.account AND c.principal = j.principal AND c.bucket = j.bucket
        AND c.event_time BETWEEN j.event_time - INTERVAL 24 HOUR AND j.event_time) AS created
  FROM judged AS j
  WHERE j.days <= CASE WHEN j.of_logs THEN getvariable('s3_lifecycle_deletion_log_days') ELSE getvariable('s3_lifecycle_deletion_days') END
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(bucket, 'a bucket') AS target,
  concat('Everything in ', coalesce(bucket, 'a bucket'), ' is to be deleted after ', greatest(days, 0), ' days by a lifecycle rule',
    CASE WHEN created IS NOT NULL THEN ', set by whoever had just created it' WHEN success THEN ''
      ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN list_contains(getvariable('s3_lifecycle_deletion_trusted_principals'), principal) OR passing AND NOT of_logs THEN 'low'
    WHEN created IS NOT NULL OR NOT success THEN 'medium'
    ELSE 'high'
  END AS severity,
  list_append(coalesce(created, []), event_id) AS event_ids
FROM calmed
