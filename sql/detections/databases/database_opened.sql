-- ---
-- title        = "Database Opened"
-- severity     = "medium"
-- attack       = [
--   { id = "T1578.005", why = "the database was made reachable from the internet" },
--   { id = "T1098", why = "whoever sets the master password is the database's administrator" },
--   { id = "T1213.006", why = "a restored copy with a new password is read at leisure" },
-- ]
-- about        = "A database was made reachable from the internet, restored by somebody who never did that, or its master password was set; two of these for the same database within the hour are how its data is stolen."
-- benign       = [
--   "Databases for development that are public on purpose: list them in public_databases",
--   "A rotation of the master password: low",
--   "Restore tests: known after the first hour",
-- ]
-- event_names  = [
--   "ModifyDBInstance", "CreateDBInstance", "ModifyDBCluster", "CreateDBCluster", "RestoreDBInstanceFromDBSnapshot",
--   "RestoreDBInstanceFromS3", "RestoreDBInstanceToPointInTime", "RestoreDBClusterFromSnapshot", "RestoreDBClusterToPointInTime",
--   "CreateDBInstanceReadReplica", "ModifyCluster", "CreateCluster", "RestoreFromClusterSnapshot",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Close it: aws rds modify-db-instance --db-instance-identifier … --no-publicly-accessible --apply-immediately; see its security groups, too.
-- 2. Was it meant? Ask the actor; list all they did to databases: SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_source = 'rds.amazonaws.com' ORDER BY event_time.
-- 3. Who connected meanwhile? The database's own log, and flow logs of its network interface.
-- 4. If the password was set by nobody you know: set another one, look for users made in the database, and delete restored copies.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_VPC.WorkingWithRDSInstanceinaVPC.html",
--   "https://attack.mitre.org/techniques/T1213/006/",
-- ]
--
-- [params.public_databases]
-- type    = "list[str]"
-- default = []
-- about   = "Databases that may be reachable from the internet: low"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a restore is new for it; until then low"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(
      json_extract_string(request_parameters, '$.dBInstanceIdentifier'),
      json_extract_string(request_parameters, '$.targetDBInstanceIdentifier'),
      json_extract_string(request_parameters, '$.dBClusterIdentifier'),
      json_extract_string(request_parameters, '$.clusterIdentifier')) AS database,
    coalesce(lower(json_extract_string(request_parameters, '$.publiclyAccessible')) = 'true', false) AS opened,
    event_name IN ('ModifyDBInstance', 'ModifyDBCluster', 'ModifyCluster')
      AND coalesce(json_type(request_parameters, '$.masterUserPassword'), 'NULL') <> 'NULL' AS password,
    event_name IN ('RestoreDBInstanceFromDBSnapshot', 'RestoreDBInstanceFromS3', 'RestoreDBInstanceToPointInTime',
      'RestoreDBClusterFromSnapshot', 'RestoreDBClusterToPointInTime', 'RestoreFromClusterSnapshot') AS restored
  FROM events
  WHERE (
      event_source = 'rds.amazonaws.com' AND event_name IN (
        'ModifyDBInstance', 'CreateDBInstance', 'ModifyDBCluster', 'CreateDBCluster', 'RestoreDBInstanceFromDBSnapshot',
        'RestoreDBInstanceFromS3', 'RestoreDBInstanceToPointInTime', 'RestoreDBClusterFromSnapshot', 'RestoreDBClusterToPointInTime',
        'CreateDBInstanceReadReplica')
      OR event_source = 'redshift.amazonaws.com' AND event_name IN ('ModifyCluster', 'CreateCluster', 'RestoreFromClusterSnapshot'))
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied)
),
-- The steps to a database's data: a copy, a way in, a password.
stepped AS (
  SELECT
    c.*,
    (SELECT list(o.event_id ORDER BY o.event_time, o.event_id) FROM calls AS o
      WHERE o.success AND o.account = c.account AND o.database = c.database
        AND (o.opened OR o.password OR o.restored)
        AND (o.opened, o.password, o.restored) IS DISTINCT FROM (c.opened, c.password, c.restored)
        AND o.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time) AS earlier_ids
  FROM calls AS c
  WHERE c.opened OR c.password OR c.restored
),
habits AS MATERIALIZED (
  SELECT
    account, principal, min(first_seen) AS first_seen,
    min(first_seen) FILTER (success AND event_name LIKE 'Restore%' AND event_source IN ('rds.amazonaws.com', 'redshift.amazonaws.com')) AS first_restore
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM stepped)
  GROUP BY ALL
),
judged AS (
  SELECT
    s.*,
    coalesce(h.first_restore < s.event_time - INTERVAL 1 HOUR, false) AS known,
    coalesce(h.first_seen > s.event_time - to_days(CAST(getvariable('database_opened_learning_days') AS INT)), true) AS learning
  FROM stepped AS s
  LEFT JOIN habits AS h USING (account, principal)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(database, 'a database') AS target,
  concat('Database ', coalesce(database, 'unknown'),
    CASE WHEN success THEN ' was' ELSE ' should have been' END,
    CASE WHEN restored THEN CASE WHEN opened THEN ' restored, reachable from the internet' ELSE ' restored from a copy' END
      WHEN opened THEN ' made reachable from the internet' ELSE ' given a new master password' END,
    CASE WHEN opened AND password THEN ', with a new master password' ELSE '' END,
    CASE WHEN earlier_ids IS NOT NULL THEN ', one of several steps within the hour' ELSE '' END,
    CASE WHEN success THEN '' ELSE concat(': refused with ', error_code) END) AS summary,
  CASE
    WHEN NOT success OR list_contains(getvariable('database_opened_trusted_principals'), principal) THEN 'low'
    WHEN opened AND list_contains(getvariable('database_opened_public_databases'), database) THEN 'low'
    -- A copy needs a password of its own: two steps out of three, unless restoring and setting it is one's work.
    WHEN earlier_ids IS NOT NULL OR opened AND (password OR restored) THEN CASE WHEN known AND NOT opened THEN 'low' ELSE 'high' END
    WHEN opened THEN 'medium'
    WHEN restored THEN CASE WHEN known OR learning THEN 'low' ELSE 'medium' END
    ELSE 'low'
  END AS severity,
  list_append(coalesce(earlier_ids, []), event_id) AS event_ids
FROM judged
