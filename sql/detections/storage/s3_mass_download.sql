-- ---
-- title        = "S3 Mass Download"
-- severity     = "high"
-- attack       = [
--   { id = "T1530", why = "object after object is read out of a bucket" },
--   { id = "T1119", why = "nobody reads a thousand objects by hand" },
-- ]
-- about        = "One caller read more objects of a bucket within an hour than it ever read on a day of the last two weeks. Needs a trail with S3 data events."
-- benign       = ["A new program, a migration or a restore: list its role in trusted_principals"]
-- event_names  = ["GetObject"]
-- group_by     = ["account", "caller", "target"]
-- group_window = "24h"
-- only_named   = true
-- needs        = "bursts"
-- lookback     = "60m"
-- baseline     = "15d"
-- runbook      = """
-- 1. What was read, and how much? SELECT json_extract_string(request_parameters, '$.key') AS key, event_time, source_ip_address FROM events WHERE principal = '…' AND event_name = 'GetObject' ORDER BY event_time.
-- 2. Compare with other days: SELECT date, sum(count) FROM activity WHERE principal = '…' AND event_name = 'GetObject' GROUP BY date ORDER BY date.
-- 3. Is the address one of the caller's? An address outside of your networks and of AWS means that the data has left.
-- 4. Stop it: deny the caller in the bucket's policy, deactivate its key or revoke its sessions.
-- 5. Classify what was in the bucket, and tell whom you have to.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html",
--   "https://attack.mitre.org/techniques/T1530/",
-- ]
--
-- [params.objects]
-- type    = "int"
-- default = 1000
-- about   = "Objects of one bucket within an hour that are many"
--
-- [params.gigabytes]
-- type    = "float"
-- default = 10.0
-- about   = "Gigabytes of one bucket within an hour that are many"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs; until then people are medium and roles low"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH minutes AS (
  SELECT
    account, principal, caller_of(principal, actor_kind, session_name) AS caller,
    coalesce(json_extract_string(request_parameters, '$.bucketName'), 'a bucket') AS bucket,
    date_trunc('minute', event_time) AS minute,
    any_value(is_person(actor_kind) OR actor_kind = 'cross_account') AS person,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    arg_min(event_id, (event_time, event_id), 20) AS ids,
    count(*) AS objects,
    coalesce(sum(TRY_CAST(json_extract_string(additional_event_data, '$.bytesTransferredOut') AS DOUBLE)), 0) AS bytes
  FROM events
  WHERE event_source = 's3.amazonaws.com' AND event_name = 'GetObject' AND success
    AND actor_kind NOT IN ('aws_service', 'anonymous')
    AND NOT list_contains(getvariable('s3_mass_download_trusted_principals'), principal)
  GROUP BY ALL
),
windows AS (
  SELECT
    * EXCLUDE (ids, objects, bytes),
    flatten(list(ids) OVER before) AS ids,
    sum(objects) OVER before AS objects,
    sum(bytes) OVER before AS bytes
  FROM minutes
  WINDOW before AS (
    PARTITION BY account, caller, bucket ORDER BY minute RANGE BETWEEN INTERVAL 59 MINUTE PRECEDING AND CURRENT ROW)
),
bursts AS (
  SELECT * FROM windows
  WHERE objects >= getvariable('s3_mass_download_objects') OR bytes >= getvariable('s3_mass_download_gigabytes') * 1e9
),
days AS MATERIALIZED (
  SELECT
    account, principal, date, min(first_seen) AS first_seen,
    sum(count) FILTER (success AND event_source = 's3.amazonaws.com' AND event_name = 'GetObject') AS objects
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM bursts)
  GROUP BY ALL
),
judged AS (
  SELECT
    b.account, b.event_id,
    coalesce(max(d.objects) FILTER (d.date < CAST(b.event_time AS DATE) AND d.date >= CAST(b.event_time AS DATE) - 14), 0) AS most,
    coalesce(min(d.first_seen) > b.event_time - to_days(CAST(getvariable('s3_mass_download_learning_days') AS INT)), true) AS learning
  FROM bursts AS b
  LEFT JOIN days AS d USING (account, principal)
  GROUP BY b.account, b.event_id, b.event_time
)
SELECT
  b.event_id,
  b.event_time,
  b.account,
  b.aws_region AS region,
  b.principal AS actor,
  b.source_ip_address AS source_ip,
  b.bucket AS target,
  concat(last_part(b.caller), ' read ', b.objects, ' objects (', printf('%.1f', b.bytes / 1e9), ' GB) of ', b.bucket,
    ' within an hour; at most ', j.most, ' on a day before') AS summary,
  CASE
    WHEN j.learning THEN CASE WHEN b.person THEN 'medium' ELSE 'low' END
    WHEN b.objects >= 5 * j.most THEN 'high'
    ELSE 'medium'
  END AS severity,
  b.ids AS event_ids,
  b.caller
FROM bursts AS b
JOIN judged AS j USING (account, event_id)
WHERE b.objects > j.most
