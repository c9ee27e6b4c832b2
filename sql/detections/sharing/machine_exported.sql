-- ---
-- title        = "Machine Exported"
-- severity     = "medium"
-- attack       = [
--   { id = "T1537", why = "the disk leaves as a file in a bucket that may be anybody's" },
--   { id = "T1530", why = "whoever reads the bucket reads the disk" },
-- ]
-- about        = "The disk of an instance or an image was written to a bucket as a file, or a bucket was set to copy itself into an account that is not yours."
-- benign       = [
--   "Moving machines to another cloud or data centre: list the principals in trusted_principals",
--   "Replication to an archive account: list it in trusted_accounts",
-- ]
-- event_names  = [
--   "CreateInstanceExportTask", "ExportImage", "CreateStoreImageTask", "PutBucketReplication",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- runbook      = """
-- 1. What, and to which bucket? SELECT event_time, event_name, request_parameters FROM events WHERE event_name IN ('CreateInstanceExportTask', 'ExportImage', 'CreateStoreImageTask', 'PutBucketReplication') AND principal = '…' ORDER BY event_time.
-- 2. Stop it: aws ec2 cancel-export-task --export-task-id …; aws s3api delete-bucket-replication --bucket ….
-- 3. Is the bucket yours, and who may read it? What lies on the disk (keys, data) counts as taken until that is known.
-- 4. What else did the actor do? SELECT event_time, event_source, event_name FROM events WHERE principal = '…' AND is_write ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/vm-import/latest/userguide/vmexport.html",
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/replication-walkthrough-2.html",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts you work with. Accounts of your integrations are trusted anyway"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    event_name = 'PutBucketReplication' AS replicated,
    list_transform(json_items(request_parameters, '$.ReplicationConfiguration.Rule'), lambda r: json_extract_string(r, '$.Destination.Account')) AS owners,
    coalesce(json_extract_string(request_parameters, '$.exportToS3.s3Bucket'), json_extract_string(request_parameters, '$.ExportImageRequest.S3ExportLocation.S3Bucket'),
      json_extract_string(request_parameters, '$.CreateStoreImageTaskRequest.Bucket'), json_extract_string(request_parameters, '$.bucket')) AS goal
  FROM events
  WHERE ((event_source = 'ec2.amazonaws.com' AND event_name IN ('CreateInstanceExportTask', 'ExportImage', 'CreateStoreImageTask'))
      OR (event_source = 's3.amazonaws.com' AND event_name = 'PutBucketReplication'))
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
    AND NOT list_contains(getvariable('machine_exported_trusted_principals'), principal)
),
judged AS (
  SELECT c.*, foreign_accounts(c.owners, c.account, known.own, getvariable('machine_exported_trusted_accounts')) AS strangers
  FROM calls AS c, known
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(json_extract_string(request_parameters, '$.bucketName'), json_extract_string(request_parameters, '$.instanceId'),
    json_extract_string(request_parameters, '$.ExportImageRequest.ImageId'), json_extract_string(request_parameters, '$.CreateStoreImageTaskRequest.ImageId'), 'an image') AS target,
  concat(CASE WHEN replicated THEN concat('A bucket is copied into account ', array_to_string(strangers, ', '))
      ELSE concat('A machine is written to bucket ', coalesce(goal, '(not told)'), ': ', event_name) END, CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE WHEN NOT success THEN 'low' WHEN replicated THEN 'high' ELSE 'medium' END AS severity
FROM judged
WHERE NOT replicated OR len(strangers) > 0
