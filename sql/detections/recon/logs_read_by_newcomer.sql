-- ---
-- title        = "Logs Read By Newcomer"
-- severity     = "low"
-- attack       = [
--   { id = "T1654", why = "what is logged tells a thief what was seen of them, and logs hold addresses, names and passwords" },
-- ]
-- about        = "The audit trail or application logs were searched by somebody who never did that."
-- benign       = ["Somebody looks into an incident or a bug for the first time"]
-- event_names  = ["LookupEvents", "StartQuery", "FilterLogEvents", "GetLogEvents", "StartLiveTail"]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was searched for? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_name IN ('LookupEvents', 'StartQuery', 'FilterLogEvents', 'GetLogEvents', 'StartLiveTail') ORDER BY event_time.
-- 2. A filter for the caller's own name or key, or for "password", "secret", "token", tells a lot.
-- 3. What else did the caller do that day, and from where? SELECT DISTINCT event_name, source_ip_address FROM events WHERE principal = '…'.
-- 4. If nobody owns it: cut the caller off, and rotate what stands in those logs.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html",
--   "https://attack.mitre.org/techniques/T1654/",
-- ]
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before anything is new for it"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH reads AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_source = 'cloudtrail.amazonaws.com' AS of_audit,
    -- Keys of programs, and instances, have no business in logs; people and pipelines may.
    access_key_kind = 'AKIA' OR is_instance_session(session_name) AS by_program
  FROM events
  WHERE (
      event_source = 'cloudtrail.amazonaws.com' AND event_name IN ('LookupEvents', 'StartQuery')
      OR event_source = 'logs.amazonaws.com' AND event_name IN ('FilterLogEvents', 'StartQuery', 'GetLogEvents', 'StartLiveTail'))
    AND actor_kind NOT IN ('aws_service', 'anonymous') AND (success OR denied)
    AND NOT list_contains(getvariable('logs_read_by_newcomer_trusted_principals'), principal)
),
habits AS MATERIALIZED (
  SELECT
    account, principal, event_source,
    min(first_seen) AS first_seen,
    min(first_seen) FILTER (success AND event_name IN ('LookupEvents', 'StartQuery', 'FilterLogEvents', 'GetLogEvents', 'StartLiveTail')) AS first_read
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM reads)
  GROUP BY ALL
),
judged AS (
  SELECT
    r.account, r.event_id,
    coalesce(min(h.first_read) FILTER (h.event_source = r.event_source) < r.event_time - INTERVAL 1 HOUR, false) AS known,
    coalesce(min(h.first_seen) > r.event_time - to_days(CAST(getvariable('logs_read_by_newcomer_learning_days') AS INT)), true) AS learning
  FROM reads AS r
  LEFT JOIN habits AS h USING (account, principal)
  GROUP BY r.account, r.event_id, r.event_time
)
SELECT
  r.event_id,
  r.event_time,
  r.account,
  r.aws_region AS region,
  r.principal AS actor,
  r.source_ip_address AS source_ip,
  coalesce(
    json_extract_string(r.request_parameters, '$.logGroupName'), json_extract_string(r.request_parameters, '$.logGroupIdentifier'),
    json_texts(r.request_parameters, '$.logGroupNames')[1],
    CASE WHEN r.of_audit THEN 'the audit trail' ELSE 'logs' END) AS target,
  concat(last_part(r.caller), CASE WHEN r.success THEN ' searched ' ELSE ' was refused to search ' END,
    CASE WHEN r.of_audit THEN 'the audit trail' ELSE 'logs' END, ' for the first time (', r.event_name, ')') AS summary,
  CASE WHEN r.by_program AND r.success THEN 'medium' ELSE 'low' END AS severity,
  r.caller
FROM reads AS r
JOIN judged AS j USING (account, event_id)
WHERE NOT j.known AND NOT j.learning
