-- ---
-- title        = "S3 Bucket Public"
-- severity     = "high"
-- attack       = [
--   { id = "T1530", why = "anybody may read, or write, what is in the bucket" },
--   { id = "T1537", why = "the bucket was shared with an account that is not yours" },
--   { id = "T1578.005", why = "the guard against public access was taken off" },
-- ]
-- about        = "A bucket was opened to everyone by policy or access control list, or its guard against that was lifted."
-- benign       = [
--   "Static web sites and download areas: list their buckets in public_buckets",
--   "Sharing with a partner's account: list it in trusted_accounts",
-- ]
-- event_names  = [
--   "PutBucketPolicy", "PutBucketAcl", "CreateBucket", "PutObjectAcl", "PutObject", "PutAccessPointPolicy",
--   "PutBucketPublicAccessBlock", "DeleteBucketPublicAccessBlock", "PutPublicAccessBlock", "DeletePublicAccessBlock",
--   "PutAccountPublicAccessBlock", "DeleteAccountPublicAccessBlock", "PutBucketOwnershipControls",
-- ]
-- group_by     = ["account", "target", "variant"]
-- group_window = "24h"
-- only_named   = true
-- needs        = "calls"
-- lookback     = "60m"
-- runbook      = """
-- 1. Close it: aws s3api put-public-access-block with all four flags; then mend the policy or ACL.
-- 2. Confirm: aws s3api get-bucket-policy-status and get-public-access-block, also for the account.
-- 3. Who read it meanwhile? Server access logs and data events; here: actor_kind = 'anonymous'.
-- 4. Classify what was in it, and tell whom you have to.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.s3-backdoor-bucket-policy/",
-- ]
--
-- [params.public_buckets]
-- type    = "list[str]"
-- default = []
-- about   = "Buckets that are meant to be public: at most low"
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts a bucket may be shared with: no finding"
--
-- [params.aws_log_accounts]
-- type    = "list[str]"
-- default = [
--   "127311923021", "033677994240", "027434742980", "797873946194", "098369216593", "985666609251", "054676820928",
--   "156460612806", "652711504416", "635631232127", "009996457667", "897822967062", "754344448648", "582318560864",
--   "600734575887", "383597477331", "114774131450", "783225319266", "589379963580", "718504428378", "076674570225",
--   "507241528517",
-- ]
-- about   = "AWS's own accounts that deliver load balancers' logs, one a region"
-- ---
WITH calls AS (
  SELECT * FROM events
  WHERE event_source IN ('s3.amazonaws.com', 's3-outposts.amazonaws.com', 's3express.amazonaws.com')
    AND event_name IN (
      'PutBucketPolicy', 'PutBucketAcl', 'CreateBucket', 'PutObjectAcl', 'PutObject', 'PutAccessPointPolicy',
      'PutBucketPublicAccessBlock', 'DeleteBucketPublicAccessBlock', 'PutPublicAccessBlock', 'DeletePublicAccessBlock',
      'PutAccountPublicAccessBlock', 'DeleteAccountPublicAccessBlock', 'PutBucketOwnershipControls')
    AND (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    -- Objects are written all the time: only those that come with a list of their own matter.
    AND (event_name <> 'PutObject' OR regexp_matches(request_parameters, 'x-amz-(acl|grant-)|AccessControlPolicy'))
),
named AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.bucketName'), json_extract_string(request_parameters, '$.name')) AS bucket,
    event_name IN ('PutAccountPublicAccessBlock', 'DeleteAccountPublicAccessBlock') AS of_account,
    coalesce(
      json_object_at(request_parameters, '$.bucketPolicy'),
      json_object_at(request_parameters, '$.PutAccessPointPolicyRequest.Policy'),
      json_object_at(request_parameters, '$.policy'),
      json_object_at(request_parameters, '$.Policy')) AS policy
  FROM calls
),
read AS (
  SELECT
    *,
    CASE WHEN event_name IN ('PutBucketPolicy', 'PutAccessPointPolicy') THEN policy_public_statements(policy) END AS statements,
    CASE WHEN event_name IN ('PutBucketPolicy', 'PutAccessPointPolicy') THEN list_filter(policy_accounts(policy), lambda a:
      a <> account
      AND NOT list_contains(getvariable('s3_bucket_public_trusted_accounts'), a)
      AND NOT list_contains(getvariable('s3_bucket_public_aws_log_accounts'), a)) END AS strangers,
    CASE WHEN event_name IN ('PutBucketAcl', 'CreateBucket', 'PutObjectAcl', 'PutObject') THEN acl_public_grants(request_parameters) END AS grants,
    CASE
      WHEN event_name LIKE 'Delete%PublicAccessBlock' THEN ['all']
      -- A flag that is not sent is off.
      WHEN json_type(request_parameters, '$.PublicAccessBlockConfiguration') = 'OBJECT'
        THEN list_filter(['IgnorePublicAcls', 'RestrictPublicBuckets', 'BlockPublicAcls', 'BlockPublicPolicy'], lambda f:
          coalesce(lower(json_extract_string(request_parameters, '$.PublicAccessBlockConfiguration.' || f)), 'false') = 'false')
    END AS lifted
  FROM named
),
known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
classed AS (
  SELECT
    r.* EXCLUDE (strangers),
    list_filter(r.strangers, lambda a: NOT list_contains(coalesce(k.own, []), a)) AS strangers,
    CASE
      WHEN len(r.statements) > 0 THEN 'policy'
      WHEN len(r.grants) > 0 THEN 'acl'
      WHEN len(r.lifted) > 0 THEN 'guard'
      WHEN len(list_filter(r.strangers, lambda a: NOT list_contains(coalesce(k.own, []), a))) > 0 THEN 'shared'
      WHEN len(list_filter(json_items(r.request_parameters, '$.OwnershipControls.Rule'), lambda o:
        json_extract_string(o, '$.ObjectOwnership') = 'ObjectWriter')) > 0 THEN 'ownership'
    END AS variant
  FROM read AS r, known AS k
),
-- The guard was lifted and the bucket opened by the same hand within the hour.
chained AS (
  SELECT c.account, c.event_id, list(g.event_id) AS guard_ids
  FROM classed AS c
  JOIN classed AS g
    ON g.account = c.account AND g.principal = c.principal AND g.variant = 'guard' AND g.success
    AND (g.of_account OR g.bucket = c.bucket)
    AND g.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time
  WHERE c.variant IN ('policy', 'acl') AND c.success
  GROUP BY c.account, c.event_id
),
judged AS (
  SELECT
    *,
    CASE
      WHEN NOT success THEN CASE WHEN variant IN ('policy', 'acl') THEN 'medium' ELSE 'low' END
      WHEN guard_ids IS NOT NULL THEN 'critical'
      WHEN variant = 'policy' THEN CASE WHEN len(list_filter(statements, lambda s: statement_writes(s))) > 0 THEN 'critical' ELSE 'high' END
      WHEN variant = 'acl' THEN 'high'
      WHEN variant = 'guard' THEN CASE
        WHEN of_account THEN 'critical'
        -- These two make what is public already take effect; the others only allow it to be made so.
        WHEN list_has_any(lifted, ['all', 'IgnorePublicAcls', 'RestrictPublicBuckets']) THEN 'high'
        ELSE 'medium' END
      WHEN variant = 'shared' THEN 'medium'
      ELSE 'low'
    END AS rated
  FROM classed
  LEFT JOIN chained USING (account, event_id)
  WHERE variant IS NOT NULL
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  CASE WHEN of_account THEN account ELSE bucket END AS target,
  concat(
    CASE variant
      WHEN 'policy' THEN concat('The policy of ', bucket, ' lets everyone ',
        CASE WHEN len(list_filter(statements, lambda s: statement_writes(s))) > 0 THEN 'in to write' ELSE 'in to read' END)
      WHEN 'acl' THEN concat('The access control list of ',
        CASE WHEN event_name IN ('PutObject', 'PutObjectAcl') THEN 'an object in ' ELSE '' END, bucket,
        ' grants everyone ', array_to_string(grants, ', '))
      WHEN 'guard' THEN concat('The guard against public access of ', CASE WHEN of_account THEN 'the whole account' ELSE bucket END,
        ' was lifted', CASE WHEN list_contains(lifted, 'all') THEN '' ELSE concat(': ', array_to_string(lifted, ', ')) END)
      WHEN 'shared' THEN concat('The policy of ', bucket, ' shares it with ', array_to_string(strangers, ', '))
      ELSE concat('Access control lists were made effective on ', bucket)
    END,
    CASE WHEN guard_ids IS NOT NULL THEN ', right after its guard was lifted' WHEN success THEN '' ELSE '; it was refused' END) AS summary,
  CASE WHEN list_contains(getvariable('s3_bucket_public_public_buckets'), bucket) THEN at_most(rated, 'low') ELSE rated END AS severity,
  list_append(coalesce(guard_ids, []), event_id) AS event_ids,
  variant
FROM judged
