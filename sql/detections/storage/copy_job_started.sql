-- ---
-- title        = "Copy Job Started"
-- severity     = "medium"
-- attack       = [
--   { id = "T1119", why = "a service copies everything, without another call of the thief" },
--   { id = "T1537", why = "the copy may lie in another account, or outside of AWS" },
-- ]
-- about        = "Somebody who never did that had a service of AWS copy data in bulk: DataSync, S3 Batch Operations or a backup copy into a foreign account."
-- benign       = ["Migrations and the first run of a backup; known after the first hour"]
-- event_names  = [
--   "CreateTask", "StartTaskExecution", "CreateLocationS3", "CreateLocationObjectStorage", "CreateLocationAzureBlob", "CreateLocationNfs",
--   "CreateLocationSmb", "CreateLocationHdfs", "CreateJob", "StartCopyJob",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. From where to where? aws datasync describe-task, describe-location-…; aws s3control describe-job; aws backup describe-copy-job.
-- 2. Is the goal yours? A location outside of AWS, or a bucket or vault of an account nobody knows, is theft until somebody explains it.
-- 3. Stop it: aws datasync cancel-task-execution; aws s3control update-job-status --requested-job-status Cancelled; aws backup stop-backup-job.
-- 4. Which role does the job use, and who made it? SELECT event_time, principal, request_parameters FROM events WHERE event_name = 'CreateRole' ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/datasync/latest/userguide/logging-using-cloudtrail.html",
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops.html",
--   "https://attack.mitre.org/techniques/T1119/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts that backups may be copied to: no finding. Accounts of your integrations are trusted anyway"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: low"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    e.*,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_name IN ('CreateLocationObjectStorage', 'CreateLocationAzureBlob', 'CreateLocationNfs', 'CreateLocationSmb', 'CreateLocationHdfs') AS outside,
    event_name IN ('StartTaskExecution', 'CreateLocationS3') AS minor,
    foreign_accounts(
      [split_part(json_extract_string(request_parameters, '$.destinationBackupVaultArn'), ':', 5)],
      account, k.own, getvariable('copy_job_started_trusted_accounts'))[1] AS stranger,
    coalesce(
      json_extract_string(request_parameters, '$.serverHostname'), json_extract_string(request_parameters, '$.containerUrl'),
      json_extract_string(request_parameters, '$.s3BucketArn'), json_extract_string(request_parameters, '$.destinationBackupVaultArn'),
      json_extract_string(request_parameters, '$.destinationLocationArn'), json_extract_string(request_parameters, '$.taskArn')) AS goal
  FROM events AS e, known AS k
  WHERE (
      event_source = 'datasync.amazonaws.com' AND event_name IN (
        'CreateTask', 'StartTaskExecution', 'CreateLocationS3', 'CreateLocationObjectStorage', 'CreateLocationAzureBlob',
        'CreateLocationNfs', 'CreateLocationSmb', 'CreateLocationHdfs')
      OR event_source IN ('s3.amazonaws.com', 's3-control.amazonaws.com') AND event_name = 'CreateJob'
      OR event_source = 'backup.amazonaws.com' AND event_name = 'StartCopyJob')
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied)
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source AND a.event_name = c.event_name
        AND a.success AND a.first_seen < c.event_time - INTERVAL 1 HOUR) AS known
  FROM calls AS c
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(goal, split_part(event_source, '.', 1)) AS target,
  concat(last_part(caller), CASE WHEN success THEN ' called ' ELSE ' was refused ' END, split_part(event_source, '.', 1), ':', event_name,
    CASE WHEN stranger IS NOT NULL THEN concat(', into account ', stranger) WHEN outside THEN ', a place outside of S3'
      WHEN NOT known THEN ' for the first time' ELSE '' END,
    CASE WHEN goal IS NOT NULL THEN concat(': ', goal) ELSE '' END) AS summary,
  CASE
    WHEN NOT success OR minor OR list_contains(getvariable('copy_job_started_trusted_principals'), principal) THEN 'low'
    WHEN stranger IS NOT NULL THEN CASE WHEN known THEN 'medium' ELSE 'high' END
    ELSE 'medium'
  END AS severity,
  caller
FROM judged
WHERE CASE WHEN event_name = 'StartCopyJob' THEN stranger IS NOT NULL ELSE NOT known END
