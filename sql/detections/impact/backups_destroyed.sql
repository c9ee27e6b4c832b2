-- ---
-- title        = "Backups Destroyed"
-- severity     = "high"
-- attack       = [
--   { id = "T1490", why = "without backups, snapshots and images nothing can be brought back" },
--   { id = "T1485", why = "databases were deleted, or left without the copies that could restore them" },
--   { id = "T1489", why = "what worked with a deleted database stands still, copy or not" },
-- ]
-- about        = "Backups, snapshots, images or the rules that make and keep them were deleted, or a database, above all without a last copy."
-- benign       = [
--   "Clean-up jobs: silent once they have deleted on an earlier day",
--   "Environments that are torn down: list the role in trusted_principals",
-- ]
-- event_names  = [
--   "DeleteBackupVaultLockConfiguration", "DeleteRule", "UnlockRule", "UnlockSnapshot",
--   "DeleteBackupVault", "DeleteBackupPlan", "DeleteBackupSelection", "DeleteLifecyclePolicy", "DeleteRecoveryPoint",
--   "DeleteDBSnapshot", "DeleteDBClusterSnapshot", "DeleteDBInstanceAutomatedBackup", "DeleteDBClusterAutomatedBackup",
--   "DeleteSnapshot", "DeregisterImage", "DeleteBackup", "DeleteClusterSnapshot",
--   "DeleteDBInstance", "DeleteDBCluster", "ModifyDBInstance", "ModifyDBCluster", "UpdateContinuousBackups", "PutBackupPolicy",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- needs        = "telling"
-- lookback     = "30m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Take the actor's keys and sessions away before more is lost.
-- 2. What can be brought back? aws rbin list-rules; aws ec2 list-snapshots-in-recycle-bin; aws ec2 list-images-in-recycle-bin; aws backup list-recovery-points-by-backup-vault; copies in other accounts and regions.
-- 3. What was deleted? SELECT event_time, event_source, event_name, request_parameters FROM events WHERE account = '…' AND principal = '…' AND event_name LIKE 'De%' ORDER BY event_time.
-- 4. Were the data copied or shared before? Look at alerts of Snapshot Shared, Machine Image Shared and S3 Bucket Public.
-- 5. Lock what is left: a vault lock in compliance mode, recycle bin rules with a lock, deletion protection.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/",
--   "https://docs.aws.amazon.com/aws-backup/latest/devguide/vault-lock.html",
--   "https://docs.aws.amazon.com/ebs/latest/userguide/recycle-bin.html",
--   "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_DeleteInstance.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that delete backups or tear down environments as their work: at most low"
--
-- [params.deletions]
-- type    = "int"
-- default = 3
-- about   = "Backups deleted within half an hour by somebody who did not delete any on an earlier day"
-- ---
WITH calls AS (
  SELECT
    *,
    last_part(list_filter(json_extract_string(request_parameters, [
      '$.recoveryPointArn', '$.backupVaultName', '$.snapshotId', '$.imageId', '$.dBSnapshotIdentifier', '$.dBClusterSnapshotIdentifier',
      '$.dBInstanceIdentifier', '$.dBClusterIdentifier', '$.backupArn', '$.identifier', '$.tableName']), lambda t: t IS NOT NULL)[1]) AS thing,
    CASE
      WHEN event_source = 'backup.amazonaws.com' AND event_name = 'DeleteBackupVaultLockConfiguration'
        OR event_source = 'rbin.amazonaws.com' AND event_name IN ('DeleteRule', 'UnlockRule')
        OR event_source = 'ec2.amazonaws.com' AND event_name = 'UnlockSnapshot' THEN 'lock'
      WHEN event_source = 'backup.amazonaws.com' AND event_name IN ('DeleteBackupVault', 'DeleteBackupPlan', 'DeleteBackupSelection')
        OR event_source = 'dlm.amazonaws.com' AND event_name = 'DeleteLifecyclePolicy'
        OR event_source = 'rds.amazonaws.com' AND event_name IN ('ModifyDBInstance', 'ModifyDBCluster')
          AND json_extract_string(request_parameters, '$.backupRetentionPeriod') = '0'
        OR event_source = 'dynamodb.amazonaws.com' AND event_name = 'UpdateContinuousBackups'
          AND json_is_false(request_parameters, '$.pointInTimeRecoverySpecification.pointInTimeRecoveryEnabled')
        OR event_source = 'elasticfilesystem.amazonaws.com' AND event_name = 'PutBackupPolicy'
          AND regexp_matches(request_parameters, '"(DISABLED|DISABLING)"') THEN 'rule'
      WHEN event_source = 'rds.amazonaws.com' AND event_name IN ('ModifyDBInstance', 'ModifyDBCluster')
        AND json_is_false(request_parameters, '$.deletionProtection') THEN 'protection'
      WHEN event_source = 'rds.amazonaws.com' AND event_name IN ('DeleteDBInstance', 'DeleteDBCluster') THEN 'database'
      WHEN event_source = 'backup.amazonaws.com' AND event_name = 'DeleteRecoveryPoint'
        OR event_source = 'rds.amazonaws.com' AND event_name IN (
          'DeleteDBSnapshot', 'DeleteDBClusterSnapshot', 'DeleteDBInstanceAutomatedBackup', 'DeleteDBClusterAutomatedBackup')
        OR event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteSnapshot'
        OR event_source IN ('dynamodb.amazonaws.com', 'fsx.amazonaws.com') AND event_name = 'DeleteBackup'
        OR event_source = 'redshift.amazonaws.com' AND event_name = 'DeleteClusterSnapshot'
        OR event_source = 'elasticache.amazonaws.com' AND event_name = 'DeleteSnapshot' THEN 'backup'
      WHEN event_source = 'ec2.amazonaws.com' AND event_name = 'DeregisterImage' THEN 'image'
    END AS kind
  FROM events
  WHERE actor_kind <> 'aws_service'
    AND (success OR denied)
),
counted AS (
  SELECT
    *,
    -- Setting up and taking off rules is no deletion of a copy.
    count(DISTINCT coalesce(thing, event_id)) FILTER (success AND kind IN ('backup', 'image', 'database')) OVER recent AS deletions,
    list(event_id) FILTER (success AND kind IN ('backup', 'image', 'database')) OVER recent AS deletion_ids,
    list(event_id) FILTER (success AND kind = 'protection') OVER recent AS unprotected
  FROM calls
  WHERE kind IS NOT NULL
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
-- A single copy deleted is everyday life.
telling AS (
  SELECT * FROM counted WHERE kind <> 'backup' OR deletions >= getvariable('backups_destroyed_deletions')
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.success AND a.date < c.date
        AND a.event_source IN ('backup.amazonaws.com', 'rds.amazonaws.com', 'ec2.amazonaws.com', 'dynamodb.amazonaws.com',
          'fsx.amazonaws.com', 'redshift.amazonaws.com', 'elasticache.amazonaws.com')
        AND a.event_name IN ('DeleteRecoveryPoint', 'DeleteDBSnapshot', 'DeleteDBClusterSnapshot', 'DeleteDBInstanceAutomatedBackup',
          'DeleteDBClusterAutomatedBackup', 'DeleteSnapshot', 'DeregisterImage', 'DeleteBackup', 'DeleteClusterSnapshot',
          'DeleteDBInstance', 'DeleteDBCluster')) AS habit,
    is_by_hand(c.actor_kind, c.session_name) AS by_hand,
    coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account) <= c.date - 14, false) AS mature
  FROM telling AS c
),
rated AS (
  SELECT
    *,
    coalesce(success AND kind IN ('backup', 'image', 'database') AND NOT habit
      AND deletions >= getvariable('backups_destroyed_deletions'), false) AS many,
    kind = 'database' AND success AND unprotected IS NOT NULL AS forced,
    kind = 'database' AND coalesce(json_extract_string(request_parameters, '$.skipFinalSnapshot') = 'true', false) AS without_copy
  FROM judged
),
weighed AS (
  SELECT
    *,
    CASE
      WHEN kind = 'lock' THEN 'high'
      WHEN many THEN CASE WHEN by_hand OR mature THEN 'high' ELSE 'medium' END
      WHEN kind = 'rule' THEN 'medium'
      WHEN kind = 'protection' THEN 'low'
      -- A last copy keeps the data; what worked with the database stands still all the same.
      WHEN kind = 'database' THEN CASE WHEN without_copy AND forced THEN 'high' WHEN NOT habit THEN 'medium' ELSE 'low' END
      WHEN kind = 'image' AND by_hand AND NOT habit THEN 'medium'
    END AS weight
  FROM rated
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(thing, 'backups') AS target,
  concat(
    CASE WHEN many THEN concat(deletions, ' backups, images or databases were deleted within 30 minutes, ', coalesce(thing, 'one'), ' among them')
      ELSE concat(event_name, ' on ', coalesce(thing, 'something')) END,
    CASE WHEN forced THEN ', right after its protection was taken off' ELSE '' END,
    CASE WHEN without_copy THEN ', without a last copy' ELSE '' END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN one_below(weight)
    WHEN list_contains(getvariable('backups_destroyed_trusted_principals'), principal) THEN 'low'
    ELSE weight
  END AS severity,
  list_concat([event_id], CASE WHEN many THEN deletion_ids ELSE [] END, CASE WHEN forced THEN unprotected ELSE [] END) AS event_ids
FROM weighed
WHERE weight IS NOT NULL AND (success OR weight <> 'low' AND kind <> 'database')
