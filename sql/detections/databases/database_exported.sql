-- ---
-- title        = "Database Exported"
-- severity     = "medium"
-- attack       = [
--   { id = "T1213.006", why = "whole tables are taken out of the database" },
--   { id = "T1537", why = "the export lies in a bucket, perhaps of another account, or in another region" },
-- ]
-- about        = "A database's snapshot or table was exported to a bucket or copied to another region, or a table was scanned by a person who never did that."
-- benign       = [
--   "Exports for analysis: low after three days",
--   "Copies to a second region for disaster recovery: after the first hour no finding",
-- ]
-- event_names  = ["StartExportTask", "ExportTableToPointInTime", "CopyDBSnapshot", "CopyDBClusterSnapshot", "Scan", "ExecuteStatement"]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Where does it go? For an export see s3BucketName and s3BucketOwner in request_parameters; is the bucket yours, and who may read it?
-- 2. Stop it: aws rds cancel-export-task --export-task-identifier …; delete the copy: aws rds delete-db-snapshot. DynamoDB exports cannot be stopped: close the bucket.
-- 3. Who is the actor, and what else did they take? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' ORDER BY event_time.
-- 4. Which key encrypts the export? A key of another account means that it is theirs to read.
-- 5. Classify what was in the table, and tell whom you have to.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ExportSnapshot.html",
--   "https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.HowItWorks.html",
--   "https://attack.mitre.org/techniques/T1213/006/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts whose buckets exports may go to. Accounts of your integrations are trusted anyway"
--
-- [params.habit_days]
-- type    = "int"
-- default = 3
-- about   = "Earlier days of 30 with such a call that make it the principal's work: low"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a scan is new for it"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    e.*,
    coalesce(
      last_part(json_extract_string(request_parameters, '$.sourceArn')), last_part(json_extract_string(request_parameters, '$.tableArn')),
      last_part(json_extract_string(request_parameters, '$.sourceDBSnapshotIdentifier')),
      last_part(json_extract_string(request_parameters, '$.sourceDBClusterSnapshotIdentifier')),
      json_extract_string(request_parameters, '$.tableName')) AS source,
    coalesce(json_extract_string(request_parameters, '$.s3BucketName'), json_extract_string(request_parameters, '$.s3Bucket')) AS bucket,
    foreign_accounts(
      [json_extract_string(request_parameters, '$.s3BucketOwner'),
       nullif(regexp_extract(coalesce(json_extract_string(request_parameters, '$.kmsKeyId'), json_extract_string(request_parameters, '$.s3SseKmsKeyId')),
         '^arn:aws[^:]*:kms:[^:]*:([0-9]{12}):', 1), '')],
      account, k.own, getvariable('database_exported_trusted_accounts'))[1] AS stranger,
    CASE
      WHEN event_name IN ('StartExportTask', 'ExportTableToPointInTime') THEN 'export'
      WHEN event_name IN ('CopyDBSnapshot', 'CopyDBClusterSnapshot') THEN 'copy'
      ELSE 'scan'
    END AS kind
  FROM events AS e, known AS k
  WHERE (
      event_source = 'rds.amazonaws.com' AND event_name IN ('StartExportTask', 'CopyDBSnapshot', 'CopyDBClusterSnapshot')
      OR event_source = 'dynamodb.amazonaws.com' AND (event_name = 'ExportTableToPointInTime'
        OR event_name IN ('Scan', 'ExecuteStatement') AND (is_person(actor_kind) OR is_instance_session(session_name))))
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied)
),
travelled AS (
  SELECT
    *,
    -- The call is made where the copy goes to.
    coalesce(json_extract_string(request_parameters, '$.sourceRegion'),
      nullif(split_part(coalesce(json_extract_string(request_parameters, '$.sourceDBSnapshotIdentifier'),
        json_extract_string(request_parameters, '$.sourceDBClusterSnapshotIdentifier')), ':', 4), ''), aws_region) AS from_region
  FROM calls
),
days AS MATERIALIZED (
  SELECT
    account, principal, event_source, event_name, date, min(first_seen) AS first_seen,
    bool_or(success) AS worked
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM travelled)
  GROUP BY ALL
),
judged AS (
  SELECT
    t.account, t.event_id,
    count(DISTINCT d.date) FILTER (d.event_source = t.event_source AND d.event_name = t.event_name AND d.worked AND d.date < t.date)
      >= getvariable('database_exported_habit_days') AS habit,
    count(*) FILTER (d.event_source = t.event_source AND d.event_name = t.event_name AND d.worked
      AND d.first_seen < t.event_time - INTERVAL 1 HOUR) > 0 AS known,
    coalesce(min(d.first_seen) > t.event_time - to_days(CAST(getvariable('database_exported_learning_days') AS INT)), true) AS learning
  FROM travelled AS t
  LEFT JOIN days AS d USING (account, principal)
  GROUP BY t.account, t.event_id, t.event_time, t.event_source, t.event_name, t.date
)
SELECT
  t.event_id,
  t.event_time,
  t.account,
  t.aws_region AS region,
  t.principal AS actor,
  t.source_ip_address AS source_ip,
  coalesce(t.source, 'a database') AS target,
  concat(
    CASE t.kind
      WHEN 'export' THEN concat(coalesce(t.source, 'A database'), ' was exported to bucket ', coalesce(t.bucket, 'unknown'))
      WHEN 'copy' THEN concat('Snapshot ', coalesce(t.source, 'unknown'), ' was copied from ', t.from_region, ' to ', t.aws_region)
      ELSE concat('Table ', coalesce(t.source, 'unknown'), ' was scanned by ', last_part(t.principal), ', for the first time') END,
    CASE WHEN t.stranger IS NOT NULL THEN concat(', of or with a key of account ', t.stranger) ELSE '' END,
    CASE WHEN t.success THEN '' ELSE concat(': tried, and refused with ', t.error_code) END) AS summary,
  CASE
    WHEN NOT t.success THEN CASE WHEN t.stranger IS NOT NULL THEN 'medium' ELSE 'low' END
    WHEN t.stranger IS NOT NULL THEN 'high'
    WHEN t.kind = 'scan' THEN CASE WHEN t.access_key_kind = 'AKIA' OR is_instance_session(t.session_name) THEN 'medium' ELSE 'low' END
    WHEN j.habit THEN 'low'
    WHEN t.kind = 'export' AND NOT j.known AND NOT j.learning THEN 'high'
    ELSE 'medium'
  END AS severity
FROM travelled AS t
JOIN judged AS j USING (account, event_id)
WHERE t.stranger IS NOT NULL OR CASE t.kind
  WHEN 'export' THEN true
  WHEN 'copy' THEN t.from_region <> t.aws_region AND NOT j.known
  ELSE NOT j.known AND NOT j.learning
END
