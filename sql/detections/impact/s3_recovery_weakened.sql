-- ---
-- title        = "S3 Recovery Weakened"
-- severity     = "medium"
-- attack       = [
--   { id = "T1490", why = "without versions, copies or locks nothing brings back what is deleted or overwritten next" },
--   { id = "T1486", why = "a bucket whose default key lies in another account can be read only at that account's mercy" },
-- ]
-- about        = "A bucket's safety net was cut: versioning, the second factor for deletion, replication or lock; or its key is a stranger's."
-- benign       = [
--   "Versioning that is suspended to save cost, replication that moves elsewhere: with a ticket",
--   "A bucket that is torn down: the same principal deletes it within the hour (low)",
-- ]
-- event_names  = [
--   "PutBucketVersioning", "DeleteBucketReplication", "PutObjectLockConfiguration", "PutBucketEncryption",
--   "DeleteBucket",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "60m"
-- runbook      = """
-- 1. Switch it on again: aws s3api put-bucket-versioning --bucket … --versioning-configuration Status=Enabled; then replication and lock.
-- 2. What was deleted or overwritten since? Look at data events and server access logs; aws s3api list-object-versions --bucket …
-- 3. Who is the actor, and which other buckets did it touch? SELECT event_time, event_name, json_extract_string(request_parameters, '$.bucketName') FROM events WHERE account = '…' AND principal = '…' AND event_source = 's3.amazonaws.com' AND is_write ORDER BY event_time.
-- 4. If it was not wanted: take the actor's keys and sessions away before anything else is lost.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html",
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/MultiFactorAuthenticationDelete.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.impact.s3-ransomware-batch-deletion/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage buckets as their work: at most low"
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts whose keys may encrypt your buckets. Accounts of your integrations are trusted anyway"
--
-- [params.buckets]
-- type    = "int"
-- default = 3
-- about   = "Buckets weakened within half an hour by one principal that are high"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.bucketName') AS bucket,
    regexp_extract(request_parameters, '"KMSMasterKeyID"\s*:\s*"arn:aws[^:]*:kms:[^:]*:([0-9]{12}):', 1) AS key_account
  FROM events
  WHERE event_source = 's3.amazonaws.com'
    AND event_name IN ('PutBucketVersioning', 'DeleteBucketReplication', 'PutObjectLockConfiguration', 'PutBucketEncryption',
      'DeleteBucket')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    -- Tried in vain, nothing is weakened, and consoles and scanners try a lot.
    AND success
),
weakened AS (
  SELECT
    *,
    CASE
      WHEN json_extract_string(request_parameters, '$.VersioningConfiguration.MfaDelete') = 'Disabled' THEN 'deletion wants no second factor any more'
      WHEN event_name = 'PutBucketVersioning'
        AND json_extract_string(request_parameters, '$.VersioningConfiguration.Status') IN ('Suspended', 'Disabled')
        THEN 'versioning was suspended'
      WHEN event_name = 'DeleteBucketReplication' THEN 'replication was deleted'
      WHEN json_type(request_parameters, '$.ObjectLockConfiguration') = 'OBJECT'
        AND json_type(request_parameters, '$.ObjectLockConfiguration.Rule') IS NULL THEN 'the default lock was taken off'
      WHEN len(foreign_accounts([key_account], account, known.own, getvariable('s3_recovery_weakened_trusted_accounts'))) > 0
        THEN concat('it is encrypted with a key of account ', key_account)
    END AS how
  FROM calls, known
),
judged AS (
  SELECT
    *,
    count(DISTINCT bucket) OVER recent AS buckets,
    list(event_id) OVER recent AS ids
  FROM weakened
  WHERE how IS NOT NULL
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
calmed AS (
  SELECT
    j.*,
    j.buckets >= getvariable('s3_recovery_weakened_buckets') AS many,
    (SELECT list(c.event_id)
      FROM calls AS c
      WHERE c.event_name = 'DeleteBucket'
        AND c.account = j.account AND c.principal = j.principal AND c.bucket = j.bucket
        AND c.event_time BETWEEN j.event_time AND j.event_time + INTERVAL 60 MINUTE) AS torn_down
  FROM judged AS j
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(bucket, 'a bucket') AS target,
  concat('Bucket ', coalesce(bucket, '?'), ': ', how,
    CASE WHEN torn_down IS NOT NULL THEN ', and it was torn down' WHEN many THEN concat(', one of ', buckets, ' buckets within 30 minutes') ELSE '' END) AS summary,
  CASE
    WHEN torn_down IS NOT NULL OR list_contains(getvariable('s3_recovery_weakened_trusted_principals'), principal) THEN 'low'
    WHEN many OR event_name = 'PutBucketEncryption' THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_concat([event_id], coalesce(torn_down, []), CASE WHEN many THEN ids ELSE [] END) AS event_ids
FROM calmed
