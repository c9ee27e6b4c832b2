-- ---
-- title        = "Snapshot Shared"
-- severity     = "high"
-- attack       = [
--   { id = "T1537", why = "whoever may restore the snapshot has a copy of the disk or database in their own account" },
--   { id = "T1578.005", why = "the guard against public snapshots was taken off" },
-- ]
-- about        = "A snapshot of a disk or database may be restored by an account that is not yours, or by everybody."
-- benign       = [
--   "Copies for a backup account or a partner: list it in trusted_accounts",
--   "A job that shares snapshots again and again is low after three days",
-- ]
-- event_names  = [
--   "ModifySnapshotAttribute", "ModifyDBSnapshotAttribute", "ModifyDBClusterSnapshotAttribute", "AuthorizeSnapshotAccess",
--   "DisableSnapshotBlockPublicAccess",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Take it back: aws ec2 modify-snapshot-attribute --snapshot-id … --attribute createVolumePermission --operation-type remove --user-ids …; for databases: aws rds modify-db-snapshot-attribute --attribute-name restore --values-to-remove …
-- 2. Whose account is it? If nobody knows, treat everything in the snapshot as stolen: keys, password files, customers' data.
-- 3. What else did the actor copy or share? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_name LIKE '%Snapshot%' ORDER BY event_time.
-- 4. Was it used? SELECT * FROM events WHERE event_name IN ('SharedSnapshotCopyInitiated', 'SharedSnapshotVolumeCreated') ORDER BY event_time.
-- 5. Forbid it for good: block public access for snapshots, and a service control policy on these calls.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.ec2-share-ebs-snapshot/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.rds-share-snapshot/",
--   "https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html",
--   "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ShareSnapshot.html",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts that snapshots may be shared with: no finding. Accounts of your integrations are trusted anyway"
--
-- [params.habit_days]
-- type    = "int"
-- default = 3
-- about   = "Earlier days on which a principal shared snapshots that make it its work: low"
-- ---
WITH calls AS (
  SELECT
    *,
    event_name = 'DisableSnapshotBlockPublicAccess' AS guard,
    coalesce(
      json_extract_string(request_parameters, '$.snapshotId'),
      json_extract_string(request_parameters, '$.dBSnapshotIdentifier'),
      json_extract_string(request_parameters, '$.dBClusterSnapshotIdentifier'),
      json_extract_string(request_parameters, '$.snapshotIdentifier')) AS snapshot,
    list_concat(
      list_transform(json_items(request_parameters, '$.createVolumePermission.add.items'),
        lambda i: coalesce(json_extract_string(i, '$.userId'), json_extract_string(i, '$.group'))),
      CASE WHEN json_extract_string(request_parameters, '$.attributeName') = 'restore'
        THEN json_texts(request_parameters, '$.valuesToAdd') ELSE [] END,
      json_texts(request_parameters, '$.accountWithRestoreAccess')) AS given
  FROM events
  WHERE actor_kind <> 'aws_service' AND (success OR denied)
    AND (
      event_source = 'ec2.amazonaws.com' AND event_name IN ('ModifySnapshotAttribute', 'DisableSnapshotBlockPublicAccess')
      OR event_source = 'rds.amazonaws.com' AND event_name IN ('ModifyDBSnapshotAttribute', 'ModifyDBClusterSnapshotAttribute')
      OR event_source = 'redshift.amazonaws.com' AND event_name = 'AuthorizeSnapshotAccess')
),
known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
shared AS (
  SELECT
    c.*,
    foreign_accounts(c.given, c.account, k.own, getvariable('snapshot_shared_trusted_accounts')) AS strangers
  FROM calls AS c, known AS k
),
judged AS (
  SELECT
    s.*,
    list_contains(s.strangers, 'all') AS public,
    (SELECT count(DISTINCT a.date) FROM activity AS a
      WHERE a.account = s.account AND a.principal = s.principal AND a.event_source = s.event_source
        AND a.event_name = s.event_name AND a.success AND a.date < s.date) >= getvariable('snapshot_shared_habit_days') AS habit
  FROM shared AS s
  WHERE s.guard OR len(s.strangers) > 0
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  CASE WHEN guard THEN concat('snapshots in ', aws_region) ELSE coalesce(snapshot, 'a snapshot') END AS target,
  concat(
    CASE
      WHEN guard THEN concat('Snapshots in ', aws_region, ' may be made public')
      WHEN public THEN concat('Snapshot ', snapshot, ' was given to everybody')
      ELSE concat('Snapshot ', snapshot, ' was shared with ', array_to_string(strangers, ', '))
    END,
    CASE WHEN success THEN '' ELSE concat(': tried, and refused with ', error_code) END) AS summary,
  CASE
    WHEN guard THEN CASE WHEN success THEN 'medium' ELSE 'low' END
    WHEN public THEN CASE WHEN success THEN 'critical' ELSE 'high' END
    WHEN NOT success THEN 'medium'
    WHEN habit THEN 'low'
    ELSE 'high'
  END AS severity
FROM judged
