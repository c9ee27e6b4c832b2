-- ---
-- title        = "Secrets Read In Bulk"
-- severity     = "high"
-- attack       = [
--   { id = "T1555.006", why = "passwords and keys are taken out of the secret store, one after the other or all at once" },
-- ]
-- about        = "Many secrets or encrypted parameters were read within minutes, or all that match, by somebody whose work that is not; or a person was refused again and again."
-- benign       = [
--   "Programs that fetch all their secrets at start: after three such days that is their habit, and low",
--   "A restore, or a migration to another store",
-- ]
-- event_names  = [
--   "GetSecretValue", "BatchGetSecretValue", "GetParameter", "GetParameters", "GetParametersByPath", "GetParameterHistory",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- needs        = "reads"
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Which ones? SELECT event_time, event_name, request_parameters, error_code FROM events WHERE principal = '…' AND event_name IN ('GetSecretValue', 'BatchGetSecretValue', 'GetParameter', 'GetParameters', 'GetParametersByPath') ORDER BY event_time.
-- 2. Is it a program's start, or somebody? Compare with the days before: SELECT date, sum(count) FROM activity WHERE principal = '…' AND event_name = 'GetSecretValue' GROUP BY date ORDER BY date.
-- 3. If nobody owns it: rotate every secret that was read, those of other systems and vendors first; each counts as known to a stranger.
-- 4. Cut the caller off: deactivate its key or revoke its sessions, and narrow its policy to the secrets it needs.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.credential-access.secretsmanager-retrieve-secrets/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.credential-access.secretsmanager-batch-retrieve-secrets/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.credential-access.ssm-retrieve-securestring-parameters/",
-- ]
--
-- [params.secrets]
-- type    = "int"
-- default = 10
-- about   = "Different secrets within ten minutes that are many"
--
-- [params.habit_days]
-- type    = "int"
-- default = 3
-- about   = "Earlier days of 30 with so many reads that make it the caller's work: low"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before it is unusual for it; until then at most medium"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: low"
-- ---
WITH reads AS (
  SELECT * FROM events
  WHERE (
      event_source = 'secretsmanager.amazonaws.com' AND event_name IN ('GetSecretValue', 'BatchGetSecretValue')
      OR event_source = 'ssm.amazonaws.com' AND event_name IN ('GetParameter', 'GetParameters', 'GetParametersByPath', 'GetParameterHistory')
        AND (lower(json_extract_string(request_parameters, '$.withDecryption')) = 'true' OR denied))
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied) AND principal IS NOT NULL
),
calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_source = 'secretsmanager.amazonaws.com' AS of_secrets,
    list_transform(
      list_concat(
        json_texts(request_parameters, '$.secretId'), json_texts(request_parameters, '$.secretIdList'),
        json_texts(request_parameters, '$.name'), json_texts(request_parameters, '$.names'),
        json_texts(request_parameters, '$.path'),
        CASE WHEN denied AND coalesce(request_parameters, 'null') = 'null'
          THEN [regexp_extract(error_message, 'on resource: ([^ ]+)', 1)] ELSE [] END),
      -- A secret may be asked for by its name or by its ARN, which ends in six characters of AWS's.
      lambda s: concat(aws_region, ' ', regexp_replace(regexp_extract(s, '([^:]+)$', 1),
        CASE WHEN contains(s, ':secret:') THEN '-[A-Za-z0-9]{6}$' ELSE '^$' END, ''))) AS things,
    event_name = 'BatchGetSecretValue' AND json_type(request_parameters, '$.secretIdList') IS NULL AS whatever_matches
  FROM reads
),
minutes AS (
  SELECT
    account, principal, caller, date_trunc('minute', event_time) AS minute,
    any_value(actor_kind) AS actor_kind,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    list(event_id ORDER BY event_time, event_id) AS ids,
    list_distinct(flatten(list(things))) AS things,
    coalesce(list_distinct(flatten(list(things) FILTER (success))), []) AS got,
    bool_or(of_secrets) AS of_secrets,
    count(*) FILTER (denied) AS refusals
  FROM calls
  GROUP BY ALL
),
windows AS (
  SELECT
    * EXCLUDE (ids, things, got, of_secrets, refusals),
    flatten(list(ids) OVER before) AS ids,
    list_filter(list_distinct(flatten(list(things) OVER before)), lambda t: NOT contains(t, ' /aws/service/')) AS things,
    list_filter(list_distinct(flatten(list(got) OVER before)), lambda t: NOT contains(t, ' /aws/service/')) AS got,
    bool_or(of_secrets) OVER before AS of_secrets,
    sum(refusals) OVER before AS refusals
  FROM minutes
  WINDOW before AS (
    PARTITION BY account, caller ORDER BY minute RANGE BETWEEN INTERVAL 9 MINUTE PRECEDING AND CURRENT ROW)
),
days AS MATERIALIZED (
  SELECT
    account, principal, date,
    sum(count) FILTER (success AND event_source IN ('secretsmanager.amazonaws.com', 'ssm.amazonaws.com')
      AND regexp_matches(event_name, '^(Batch)?Get(SecretValue|Parameter)')) AS reads,
    min(first_seen) FILTER (success AND event_source = 'secretsmanager.amazonaws.com' AND event_name = 'GetSecretValue') AS first_read,
    min(first_seen) FILTER (success AND event_source = 'secretsmanager.amazonaws.com' AND event_name = 'BatchGetSecretValue') AS first_batch,
    min(first_seen) AS first_seen
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM calls)
  GROUP BY ALL
),
found AS (
  SELECT
    'many' AS kind, account, principal, caller, event_id, event_time, aws_region, source_ip_address, ids, actor_kind, of_secrets,
    len(got) >= getvariable('secrets_read_in_bulk_secrets') AS worked,
    false AS catch_all,
    concat(len(things), ' secrets') AS target,
    concat(last_part(caller), CASE WHEN len(got) > 0 THEN ' read ' ELSE ' was refused ' END, len(things),
      CASE WHEN of_secrets THEN ' secrets' ELSE ' encrypted parameters' END, ' within ten minutes') AS summary
  FROM windows
  WHERE len(things) >= getvariable('secrets_read_in_bulk_secrets')
  UNION ALL BY NAME
  -- A program that is refused asks again for ever; a person who does so wants to get in.
  SELECT
    'refused' AS kind, account, principal, caller, event_id, event_time, aws_region, source_ip_address, ids, actor_kind, of_secrets,
    false AS worked, false AS catch_all,
    coalesce(split_part(things[1], ' ', 2), 'secrets') AS target,
    concat(last_part(caller), ' was refused ', CAST(refusals AS BIGINT), ' times within ten minutes, at ',
      array_to_string(list_sort(list_transform(things, lambda t: split_part(t, ' ', 2)))[:3], ', ')) AS summary
  FROM windows
  WHERE refusals >= getvariable('secrets_read_in_bulk_secrets') AND is_person(actor_kind)
  UNION ALL BY NAME
  SELECT
    'batch' AS kind, account, principal, caller, event_id, event_time, aws_region, source_ip_address, [event_id] AS ids, actor_kind,
    true AS of_secrets, success AS worked,
    -- Nothing but "all that are not called so" is a way to say: all.
    len(list_filter(flatten(list_transform(json_items(request_parameters, '$.filters'), lambda f: json_texts(f, '$.values'))),
      lambda v: NOT starts_with(v, '!'))) = 0 AS catch_all,
    'every secret that matches' AS target,
    concat(last_part(caller), CASE WHEN success THEN ' read' ELSE ' was refused' END, ' every secret that matches ',
      coalesce(nullif(array_to_string(flatten(list_transform(json_items(request_parameters, '$.filters'), lambda f: json_texts(f, '$.values'))), ', '), ''), 'anything')) AS summary
  FROM calls
  WHERE whatever_matches
  UNION ALL BY NAME
  SELECT
    'first' AS kind, account, principal, caller, event_id, event_time, aws_region, source_ip_address, [event_id] AS ids, actor_kind,
    true AS of_secrets, true AS worked, false AS catch_all,
    coalesce(split_part(things[1], ' ', 2), 'a secret') AS target,
    concat(last_part(caller), ' read a secret for the first time: ', split_part(things[1], ' ', 2)) AS summary
  FROM calls
  WHERE event_name = 'GetSecretValue' AND success AND is_person(actor_kind)
),
judged AS (
  SELECT
    f.*,
    h.habit,
    h.learning,
    CASE
      WHEN f.kind = 'batch' THEN h.first_batch < f.event_time - INTERVAL 1 HOUR
      ELSE h.first_read < f.event_time - INTERVAL 1 HOUR
    END AS known
  FROM found AS f
  LEFT JOIN LATERAL (
    SELECT
      count(*) FILTER (d.date < CAST(f.event_time AS DATE) AND d.reads >= getvariable('secrets_read_in_bulk_secrets'))
        >= getvariable('secrets_read_in_bulk_habit_days') AS habit,
      coalesce(min(d.first_seen) > f.event_time - to_days(CAST(getvariable('secrets_read_in_bulk_learning_days') AS INT)), true) AS learning,
      min(d.first_read) AS first_read,
      min(d.first_batch) AS first_batch
    FROM days AS d
    WHERE d.account = f.account AND d.principal = f.principal
  ) AS h ON true
),
rated AS (
  SELECT
    *,
    CASE
      WHEN kind = 'first' THEN CASE WHEN NOT coalesce(known, false) AND NOT learning THEN 'low' END
      WHEN kind = 'refused' OR kind = 'batch' AND NOT worked THEN 'low'
      WHEN kind = 'batch' AND coalesce(known, false) THEN CASE WHEN catch_all THEN 'low' END
      WHEN habit OR list_contains(getvariable('secrets_read_in_bulk_trusted_principals'), principal) THEN 'low'
      WHEN kind = 'batch' THEN CASE WHEN catch_all AND NOT learning THEN 'high' ELSE 'medium' END
      -- What was only tried counts a level less.
      ELSE severity_of(CASE WHEN of_secrets AND NOT learning THEN 4 ELSE 3 END - CASE WHEN worked THEN 0 ELSE 1 END)
    END AS severity
  FROM judged
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  target,
  summary,
  severity,
  ids AS event_ids,
  caller
FROM rated
WHERE severity IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY account, event_id ORDER BY severity_rank(severity) DESC, kind DESC) = 1
