-- ---
-- title        = "Denied Calls Burst"
-- severity     = "high"
-- attack       = [
--   { id = "T1580", why = "somebody tries what the credentials can do with machines and networks" },
--   { id = "T1526", why = "somebody tries service after service" },
--   { id = "T1087.004", why = "most lists of what to try begin with the account's users and roles" },
-- ]
-- about        = "One caller was refused many different calls within minutes: it does not know what it may do, as a thief does not."
-- benign       = [
--   "A new program or role whose policy is not finished: at most medium while it is new",
--   "Console pages that ask for more than one may see: low",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- needs        = "bursts"
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was tried, and what worked? SELECT event_time, event_source, event_name, error_code FROM events WHERE principal = '…' ORDER BY event_time.
-- 2. Is the address one of the caller's? SELECT DISTINCT source_net FROM activity WHERE principal = '…' AND date < '…'.
-- 3. An alphabetical or systematic order, or a tool in the user agent, tells that somebody tries a list.
-- 4. If nobody owns it: deactivate the key or revoke the role's sessions, then look for where the credentials were taken.
-- 5. If it is a program: mend its policy; its refusals hide real ones.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html",
--   "https://attack.mitre.org/techniques/T1580/",
-- ]
--
-- [params.denied]
-- type    = "int"
-- default = 10
-- about   = "Refused calls within ten minutes that are many"
--
-- [params.kinds]
-- type    = "int"
-- default = 5
-- about   = "Different calls that have to be among them"
--
-- [params.habit_days]
-- type    = "int"
-- default = 3
-- about   = "Earlier days of 30 with so many refused calls that make it the caller's way: low"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs; until then at most medium"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of security scanners: low"
-- ---
WITH refused AS (
  SELECT
    account, principal, caller_of(principal, actor_kind, session_name) AS caller, event_id, event_time, aws_region, source_ip_address,
    concat(split_part(event_source, '.', 1), ':', event_name) AS call,
    coalesce(session_credential_from_console = 'true', false) AS by_console
  FROM events
  WHERE denied AND actor_kind NOT IN ('aws_service', 'anonymous') AND principal IS NOT NULL
    -- Data of buckets and tables: a wrong path is no search.
    AND coalesce(event_category, 'Management') = 'Management'
),
minutes AS (
  SELECT
    account, principal, caller, date_trunc('minute', event_time) AS minute,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    arg_min(event_id, (event_time, event_id), 200) AS ids,
    list(DISTINCT call) AS calls,
    count(*) AS refusals,
    bool_and(by_console) AS by_console
  FROM refused
  GROUP BY ALL
),
windows AS (
  SELECT
    * EXCLUDE (ids, calls, refusals, by_console),
    flatten(list(ids) OVER before) AS ids,
    list_sort(list_distinct(flatten(list(calls) OVER before))) AS calls,
    sum(refusals) OVER before AS refusals,
    bool_and(by_console) OVER before AS by_console
  FROM minutes
  WINDOW before AS (
    PARTITION BY account, caller ORDER BY minute RANGE BETWEEN INTERVAL 9 MINUTE PRECEDING AND CURRENT ROW)
),
bursts AS (
  SELECT * FROM windows
  WHERE refusals >= getvariable('denied_calls_burst_denied') AND len(calls) >= getvariable('denied_calls_burst_kinds')
),
days AS MATERIALIZED (
  SELECT
    account, principal, date, min(first_seen) AS first_seen,
    sum(count) FILTER (NOT success) AS failures,
    count(DISTINCT event_name) FILTER (NOT success) AS kinds
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM bursts)
  GROUP BY ALL
),
judged AS (
  SELECT
    b.account, b.event_id,
    count(*) FILTER (d.date < CAST(b.event_time AS DATE)
      AND d.failures >= getvariable('denied_calls_burst_denied') AND d.kinds >= getvariable('denied_calls_burst_kinds'))
      >= getvariable('denied_calls_burst_habit_days') AS habit,
    coalesce(min(d.first_seen) > b.event_time - to_days(CAST(getvariable('denied_calls_burst_learning_days') AS INT)), true) AS learning
  FROM bursts AS b
  LEFT JOIN days AS d ON d.account = b.account AND d.principal = b.principal
  GROUP BY b.account, b.event_id, b.event_time
)
SELECT
  b.event_id,
  b.event_time,
  b.account,
  b.aws_region AS region,
  b.principal AS actor,
  b.source_ip_address AS source_ip,
  last_part(b.caller) AS target,
  concat(last_part(b.caller), ' was refused ', b.refusals, ' calls of ', len(b.calls), ' kinds within ten minutes: ',
    array_to_string(b.calls[:6], ', ')) AS summary,
  CASE
    WHEN j.habit OR b.by_console OR list_contains(getvariable('denied_calls_burst_trusted_principals'), b.principal) THEN 'low'
    WHEN j.learning THEN 'medium'
    ELSE 'high'
  END AS severity,
  b.ids AS event_ids,
  b.caller
FROM bursts AS b
JOIN judged AS j USING (account, event_id)
