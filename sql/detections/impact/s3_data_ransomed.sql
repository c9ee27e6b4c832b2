-- ---
-- title        = "S3 Data Ransomed"
-- severity     = "high"
-- attack       = [
--   { id = "T1485", why = "objects are deleted in bulk, with all their versions" },
--   { id = "T1486", why = "objects are overwritten with a key that only the intruder holds" },
--   { id = "T1490", why = "deleted versions are what objects could have been brought back from" },
-- ]
-- about        = "Objects of a bucket were deleted or encrypted in bulk, or a ransom note was left. Needs S3 data events."
-- benign       = [
--   "Programs that delete as their work: silent once they have done so on an earlier day",
--   "A bucket that is emptied to be torn down: deleted within ten minutes (low)",
--   "Applications that encrypt with keys of their own: list their buckets in customer_key_buckets",
-- ]
-- event_names  = ["DeleteObject", "DeleteObjects", "PutObject", "CopyObject", "CreateMultipartUpload", "ListObjectVersions", "ListBucketVersions", "DeleteBucket"]
-- group_by     = ["account", "target"]
-- group_window = "6h"
-- only_named   = true
-- needs        = "minutes"
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Take the actor's keys and sessions away now: deactivate the key, or revoke the role's sessions.
-- 2. What is left? aws s3api list-object-versions --bucket …: where versioning is on, delete the delete markers to bring objects back.
-- 3. Stop lifecycle rules of that bucket, so that no version expires while you work.
-- 4. What was read before? SELECT principal, source_ip_address, count(*) FROM events WHERE event_name = 'GetObject' AND contains(request_parameters, '…') GROUP BY ALL.
-- 5. Look for the same actor in other buckets: SELECT json_extract_string(request_parameters, '$.bucketName') AS bucket, event_name, count(*) FROM events WHERE principal = '…' AND event_source = 's3.amazonaws.com' GROUP BY ALL.
-- 6. Keep the note; do not pay before you have talked to your lawyers and the police.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.impact.s3-ransomware-batch-deletion/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.impact.s3-ransomware-individual-deletion/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.impact.s3-ransomware-client-side-encryption/",
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html",
-- ]
--
-- [params.objects]
-- type    = "int"
-- default = 30
-- about   = "Objects deleted within ten minutes by somebody who did not delete any on an earlier day"
--
-- [params.encrypted_objects]
-- type    = "int"
-- default = 10
-- about   = "Objects written within ten minutes with a key of the caller's own, or of a stranger's account"
--
-- [params.customer_key_buckets]
-- type    = "list[str]"
-- default = []
-- about   = "Buckets in which objects are encrypted with keys of the caller's own as a rule"
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts whose keys may encrypt your objects. Accounts of your integrations are trusted anyway"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that empty buckets as their work: at most low, unless a note is left"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.bucketName') AS bucket,
    json_extract_string(request_parameters, '$.key') AS object_key,
    CASE
      WHEN event_name = 'DeleteObject' THEN 1
      -- CloudTrail does not say which or how many objects a bulk deletion names; its body takes some 100 bytes for each.
      WHEN event_name = 'DeleteObjects' THEN
        greatest(1, coalesce(TRY_CAST(json_extract_string(additional_event_data, '$.bytesTransferredIn') AS DOUBLE) // 100, 1))
      ELSE 0
    END AS deleted,
    event_name IN ('PutObject', 'CopyObject', 'CreateMultipartUpload') AS written
  FROM events
  WHERE event_source = 's3.amazonaws.com'
    AND event_name IN ('DeleteObject', 'DeleteObjects', 'PutObject', 'CopyObject', 'CreateMultipartUpload', 'ListObjectVersions', 'ListBucketVersions', 'DeleteBucket')
    AND actor_kind <> 'aws_service'
    AND success
),
told AS (
  SELECT
    c.*,
    coalesce(json_header(c.request_parameters, '$."x-amz-server-side-encryption-customer-algorithm"') IS NOT NULL
        AND NOT list_contains(getvariable('s3_data_ransomed_customer_key_buckets'), c.bucket)
      OR len(foreign_accounts(
        [regexp_extract(json_header(c.request_parameters, '$."x-amz-server-side-encryption-aws-kms-key-id"'), '^arn:aws[^:]*:kms:[^:]*:([0-9]{12}):', 1)],
        c.account, known.own, getvariable('s3_data_ransomed_trusted_accounts'))) > 0, false) AS locked,
    coalesce(c.written AND regexp_matches(lower(last_part(c.object_key)),
      '(ransom|decrypt|encrypted|deleted|locked|recover|restore|hostage|hacked|stolen|your.?(files|data)|bitcoin|warning|read.?me.?now).*\.(txt|html?|md|hta|pdf)$'), false) AS note
  FROM calls AS c, known
),
-- One row a minute: thousands of deletions make few findings.
minutes AS (
  SELECT
    account, principal, bucket, date,
    date_trunc('minute', event_time) AS minute,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    bool_or(is_by_hand(actor_kind, session_name)) AS by_hand,
    sum(deleted) AS deleted,
    count(*) FILTER (event_name = 'DeleteObjects') AS bulks,
    count(*) FILTER (locked) AS locked,
    count(*) FILTER (note) AS notes,
    count(*) FILTER (event_name IN ('ListObjectVersions', 'ListBucketVersions')) AS listings,
    list(event_id ORDER BY event_time, event_id) AS ids
  FROM told
  WHERE deleted > 0 OR locked OR note OR event_name IN ('ListObjectVersions', 'ListBucketVersions')
  GROUP BY account, principal, bucket, date, minute
),
recent AS (
  SELECT
    account, principal, bucket, date, event_id, event_time, aws_region, source_ip_address, minute,
    bool_or(by_hand) OVER w AS by_hand,
    sum(deleted) OVER w AS deleted,
    sum(bulks) OVER w AS bulks,
    sum(locked) OVER w AS locked,
    sum(notes) OVER w AS notes,
    sum(listings) OVER w AS listings,
    flatten(list(ids) OVER w) AS ids
  FROM minutes
  WINDOW w AS (PARTITION BY account, principal, bucket ORDER BY minute RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
judged AS (
  SELECT
    r.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = r.account AND a.principal = r.principal AND a.event_source = 's3.amazonaws.com'
        AND a.event_name IN ('DeleteObject', 'DeleteObjects') AND a.success AND a.date < r.date) AS habit,
    coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = r.account) <= r.date - 14, false) AS mature,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE c.event_name = 'DeleteBucket' AND c.account = r.account AND c.principal = r.principal AND c.bucket = r.bucket
        AND c.event_time BETWEEN r.event_time AND r.event_time + INTERVAL 10 MINUTE) AS torn_down
  FROM recent AS r
),
rated AS (
  SELECT
    *,
    CASE
      WHEN notes > 0 AND (bulks > 0 OR deleted >= 3 OR locked > 0) THEN 'critical'
      WHEN locked >= getvariable('s3_data_ransomed_encrypted_objects') THEN 'high'
      WHEN habit THEN NULL
      WHEN deleted >= getvariable('s3_data_ransomed_objects') THEN CASE WHEN by_hand THEN 'high' WHEN mature THEN 'medium' ELSE 'low' END
      -- Every version looked up and deleted in bulk: nothing is to come back.
      WHEN listings > 0 AND bulks > 0 AND by_hand THEN 'medium'
    END AS weight
  FROM judged
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  bucket AS target,
  concat(
    CASE WHEN locked > 0 AND deleted > 0 THEN concat(locked, ' objects were encrypted with a foreign key and about ', CAST(deleted AS BIGINT), ' deleted')
      WHEN locked > 0 THEN concat(locked, ' objects were encrypted with a foreign key')
      ELSE concat('About ', CAST(deleted AS BIGINT), ' objects were deleted') END,
    ' in ', bucket, ' within 10 minutes',
    CASE WHEN notes > 0 THEN ', and a note was left' WHEN torn_down IS NOT NULL THEN ', and the bucket with them' ELSE '' END) AS summary,
  CASE
    WHEN weight <> 'critical' AND (list_contains(getvariable('s3_data_ransomed_trusted_principals'), principal)
      OR torn_down IS NOT NULL AND locked = 0) THEN 'low'
    ELSE weight
  END AS severity,
  list_concat(ids, coalesce(torn_down, [])) AS event_ids
FROM rated
WHERE weight IS NOT NULL
