-- ---
-- title        = "Objects Copied To Foreign Bucket"
-- severity     = "medium"
-- attack       = [
--   { id = "T1074.002", why = "data is gathered in a bucket of another account" },
--   { id = "T1537", why = "within AWS a copy to another account passes no firewall" },
-- ]
-- about        = "Somebody of your account wrote objects into a bucket of an account that is not yours. Needs a trail with S3 data events."
-- benign       = ["Deliveries to a partner or vendor: list the account in trusted_accounts"]
-- event_names  = ["PutObject", "CopyObject", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"]
-- group_by     = ["account", "caller", "target"]
-- group_window = "24h"
-- only_named   = true
-- needs        = "abroad"
-- lookback     = "60m"
-- runbook      = """
-- 1. Whose account is it? It stands in the summary; ask the caller, and whoever knows your partners.
-- 2. What went there? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_name IN ('PutObject', 'CopyObject', 'UploadPartCopy') ORDER BY event_time.
-- 3. Where did it come from? For CopyObject see x-amz-copy-source; otherwise the GetObject calls before.
-- 4. Stop it: deny s3:PutObject where aws:ResourceOrgID is not yours (service control policy or endpoint policy); cut the caller off.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-understanding-s3-entries.html",
--   "https://attack.mitre.org/techniques/T1074/002/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts that data may go to: no finding. Accounts of your integrations are trusted anyway"
--
-- [params.objects]
-- type    = "int"
-- default = 100
-- about   = "Objects within an hour that are high"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
writes AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    json_extract_string(request_parameters, '$.bucketName') AS bucket,
    list_transform(
      list_filter(json_items(resources, '$'), lambda r: json_extract_string(r, '$.type') = 'AWS::S3::Bucket'),
      lambda r: {
        'bucket': last_part(coalesce(json_extract_string(r, '$.ARN'), json_extract_string(r, '$.arn'))),
        'owner': json_extract_string(r, '$.accountId')}) AS buckets
  FROM events
  WHERE event_source = 's3.amazonaws.com'
    AND event_name IN ('PutObject', 'CopyObject', 'UploadPart', 'UploadPartCopy', 'CompleteMultipartUpload')
    AND success AND actor_kind NOT IN ('aws_service', 'anonymous', 'cross_account') AND principal IS NOT NULL
    AND coalesce(user_account_id, account) = account
),
-- A copy has two buckets: the one that was written counts, or, if no name tells which it is, either of them.
owned AS (
  SELECT
    w.*,
    foreign_accounts(
      list_transform(
        CASE WHEN len(list_filter(w.buckets, lambda b: b.bucket = w.bucket)) > 0
          THEN list_filter(w.buckets, lambda b: b.bucket = w.bucket) ELSE w.buckets END,
        lambda b: b.owner),
      w.account, k.own, getvariable('objects_copied_to_foreign_bucket_trusted_accounts')) AS strangers
  FROM writes AS w, known AS k
),
abroad AS (
  SELECT * FROM owned WHERE len(strangers) > 0
),
minutes AS (
  SELECT
    account, principal, caller, bucket, date_trunc('minute', event_time) AS minute,
    arg_min(strangers[1], (event_time, event_id)) AS stranger,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    arg_min(event_id, (event_time, event_id), 20) AS ids,
    count(*) AS objects
  FROM abroad
  GROUP BY ALL
),
windows AS (
  SELECT
    * EXCLUDE (ids, objects),
    flatten(list(ids) OVER before) AS ids,
    sum(objects) OVER before AS objects
  FROM minutes
  WINDOW before AS (
    PARTITION BY account, caller, bucket ORDER BY minute RANGE BETWEEN INTERVAL 59 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(bucket, 'a bucket') AS target,
  concat(last_part(caller), ' wrote ', objects, CASE objects WHEN 1 THEN ' object' ELSE ' objects' END,
    ' into ', bucket, ', a bucket of account ', stranger) AS summary,
  CASE
    -- Buckets in which AWS's own agents leave their reports.
    WHEN regexp_matches(bucket, '^(aws-|amazon-|cloudformation-custom-resource-response-|elasticbeanstalk-|appstream)') THEN 'low'
    WHEN objects >= getvariable('objects_copied_to_foreign_bucket_objects') THEN 'high'
    ELSE 'medium'
  END AS severity,
  ids AS event_ids,
  caller
FROM windows
