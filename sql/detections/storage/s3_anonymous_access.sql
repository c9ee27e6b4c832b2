-- ---
-- title        = "S3 Anonymous Access"
-- severity     = "medium"
-- attack       = [
--   { id = "T1530", why = "somebody without any credentials reads what is in the bucket" },
--   { id = "T1619", why = "somebody without any credentials lists what is in the bucket" },
-- ]
-- about        = "A bucket was written, listed or read by somebody without credentials, and it worked. Needs a trail with S3 data events."
-- benign       = ["Public web sites and download areas: list their buckets in public_buckets; reading is known after the first hour"]
-- event_names  = [
--   "GetObject", "HeadObject", "GetObjectAcl", "ListObjects", "ListObjectVersions", "ListMultipartUploads", "GetBucketAcl",
--   "GetBucketPolicy", "PutObject", "PutObjectAcl", "PutBucketAcl", "PutBucketPolicy", "DeleteObject", "DeleteObjects", "CopyObject",
--   "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
-- ]
-- group_by     = ["account", "target", "kind"]
-- group_window = "24h"
-- needs        = "calls"
-- baseline     = "30d"
-- runbook      = """
-- 1. Why is it open? aws s3api get-bucket-policy-status --bucket …; aws s3api get-bucket-acl --bucket …; and who opened it: SELECT * FROM events WHERE event_name IN ('PutBucketPolicy', 'PutBucketAcl') ORDER BY event_time.
-- 2. Close it, unless it is meant to be public: aws s3api put-public-access-block with all four flags.
-- 3. Who came, and for what? SELECT source_ip_address, event_name, json_extract_string(request_parameters, '$.key') AS key, count(*) FROM events WHERE actor_kind = 'anonymous' GROUP BY ALL ORDER BY 4 DESC.
-- 4. After writing: look for what was put there (scripts of web pages, packages) and restore it from its versions.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html",
--   "https://attack.mitre.org/techniques/T1619/",
-- ]
--
-- [params.public_buckets]
-- type    = "list[str]"
-- default = []
-- about   = "Buckets that everybody may read and list: only writing is a finding, and medium"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of S3 data events an account needs before reading by strangers is new; until then low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.bucketName') AS bucket,
    CASE
      WHEN event_name IN ('PutObject', 'PutObjectAcl', 'PutBucketAcl', 'PutBucketPolicy', 'DeleteObject', 'DeleteObjects', 'CopyObject',
        'CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload') THEN 'written'
      WHEN event_name IN ('GetObject', 'HeadObject') THEN 'read'
      ELSE 'listed'
    END AS kind
  FROM events
  WHERE event_source = 's3.amazonaws.com' AND actor_kind = 'anonymous' AND success
    AND event_name IN (
      'GetObject', 'HeadObject', 'GetObjectAcl', 'ListObjects', 'ListObjectVersions', 'ListMultipartUploads', 'GetBucketAcl',
      'GetBucketPolicy', 'PutObject', 'PutObjectAcl', 'PutBucketAcl', 'PutBucketPolicy', 'DeleteObject', 'DeleteObjects', 'CopyObject',
      'CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload')
),
habits AS MATERIALIZED (
  SELECT
    account,
    min(first_seen) AS first_seen,
    min(first_seen) FILTER (actor_kind = 'anonymous' AND success AND event_name IN ('GetObject', 'HeadObject')) AS first_read,
    min(first_seen) FILTER (actor_kind = 'anonymous' AND success AND event_name IN (
      'GetObjectAcl', 'ListObjects', 'ListObjectVersions', 'ListMultipartUploads', 'GetBucketAcl', 'GetBucketPolicy')) AS first_list
  FROM activity
  WHERE event_source = 's3.amazonaws.com' AND event_name IN ('GetObject', 'HeadObject', 'PutObject', 'DeleteObject', 'ListObjects', 'GetObjectAcl',
      'ListObjectVersions', 'ListMultipartUploads', 'GetBucketAcl', 'GetBucketPolicy')
  GROUP BY ALL
),
judged AS (
  SELECT
    c.*,
    list_contains(getvariable('s3_anonymous_access_public_buckets'), c.bucket) AS meant,
    coalesce(CASE c.kind WHEN 'read' THEN h.first_read ELSE h.first_list END < c.event_time - INTERVAL 1 HOUR, false) AS known,
    coalesce(h.first_seen > c.event_time - to_days(CAST(getvariable('s3_anonymous_access_learning_days') AS INT)), true) AS learning
  FROM calls AS c
  LEFT JOIN habits AS h ON h.account = c.account
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  'anonymous' AS actor,
  source_ip_address AS source_ip,
  coalesce(bucket, 'a bucket') AS target,
  concat('Bucket ', bucket, ' was ', kind, ' by somebody without credentials from ', source_ip_address, ' (', event_name, ')') AS summary,
  CASE
    WHEN kind = 'written' THEN CASE WHEN meant THEN 'medium' ELSE 'high' END
    WHEN kind = 'read' AND learning THEN 'low'
    ELSE 'medium'
  END AS severity,
  kind
FROM judged
WHERE kind = 'written' OR NOT meant AND NOT known
