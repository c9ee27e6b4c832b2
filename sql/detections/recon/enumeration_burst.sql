-- ---
-- title        = "Enumeration Burst"
-- severity     = "medium"
-- attack       = [
--   { id = "T1580", why = "machines, disks, networks and databases are listed, service after service" },
--   { id = "T1087.004", why = "users and roles are listed" },
--   { id = "T1069.003", why = "groups and policies are listed" },
-- ]
-- about        = "Somebody listed what there is, in many services within minutes, with calls they never made before; or an instance's role did, which has its own narrow work."
-- benign       = [
--   "A first run of an inventory or security tool: list its role in trusted_principals",
--   "The console opens many pages at once: low",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- needs        = "curious"
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. See the tour: SELECT event_time, event_source, event_name, error_code FROM events WHERE principal = '…' ORDER BY event_time.
-- 2. For an instance's role: who was on the instance? Look for StartSession and SendCommand on it, and at what it serves to the internet.
-- 3. Is the address one of the caller's? SELECT DISTINCT source_net FROM activity WHERE principal = '…' AND date < '…'.
-- 4. What came next? Writes and denied calls of the same caller in the hours after show what was wanted.
-- 5. If nobody owns it: deactivate the key or revoke the role's sessions.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.discovery.ec2-enumerate-from-instance/",
--   "https://attack.mitre.org/techniques/T1580/",
-- ]
--
-- [params.calls]
-- type    = "int"
-- default = 20
-- about   = "Different reading calls within five minutes that are many"
--
-- [params.services]
-- type    = "int"
-- default = 5
-- about   = "Services that have to be among them"
--
-- [params.instance_calls]
-- type    = "int"
-- default = 4
-- about   = "Different questions about the account, in three services within ten minutes, that are many for an instance's role"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a call is new for it; until then low, for instances medium"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of inventory and security tools: low"
-- ---
WITH reads AS (
  SELECT
    account, principal, caller_of(principal, actor_kind, session_name) AS caller, is_instance_session(session_name) AS of_instance,
    event_id, event_time, aws_region, source_ip_address, session_name,
    split_part(event_source, '.', 1) AS service,
    -- Lambda writes the version of its API behind the name.
    concat(split_part(event_source, '.', 1), ':', regexp_replace(event_name, '20[0-9]{6}.*$', '')) AS call,
    is_recon_call(event_source, event_name) AS question,
    coalesce(session_credential_from_console = 'true', false) AS by_console
  FROM events
  WHERE NOT is_write AND (success OR denied)
    AND actor_kind NOT IN ('aws_service', 'anonymous', 'cross_account')
    AND coalesce(event_category, 'Management') = 'Management'
),
curious AS (
  SELECT account, caller, of_instance
  FROM reads
  GROUP BY ALL
  HAVING count(DISTINCT call) >= getvariable('enumeration_burst_calls')
    OR of_instance AND count(DISTINCT call) FILTER (question) >= getvariable('enumeration_burst_instance_calls')
),
-- Each call once a minute is enough to count kinds of calls.
firsts AS (
  SELECT
    r.account, r.principal, r.caller, r.of_instance, r.service, r.call, r.question, date_trunc('minute', r.event_time) AS minute,
    arg_min(r.event_id, (r.event_time, r.event_id)) AS event_id,
    min(r.event_time) AS event_time,
    arg_min(r.aws_region, (r.event_time, r.event_id)) AS aws_region,
    arg_min(r.source_ip_address, (r.event_time, r.event_id)) AS source_ip_address,
    bool_and(r.by_console) AS by_console
  FROM reads AS r
  SEMI JOIN curious AS c ON c.account = r.account AND c.caller = r.caller AND c.of_instance = r.of_instance
  GROUP BY ALL
),
tours AS (
  SELECT
    account, principal, caller, of_instance, event_id, event_time, aws_region, source_ip_address,
    'tour' AS kind,
    list_distinct(list(call) OVER five) AS calls,
    list(event_id) OVER five AS ids,
    bool_and(by_console) OVER five AS by_console
  FROM firsts
  WINDOW five AS (PARTITION BY account, caller, of_instance ORDER BY event_time RANGE BETWEEN INTERVAL 5 MINUTE PRECEDING AND CURRENT ROW)
  UNION ALL BY NAME
  SELECT
    account, principal, caller, of_instance, event_id, event_time, aws_region, source_ip_address,
    'instance' AS kind,
    list_distinct(list(call) OVER ten) AS calls,
    list(event_id) OVER ten AS ids,
    false AS by_console
  FROM firsts
  WHERE of_instance AND question
  WINDOW ten AS (PARTITION BY account, caller ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
bursts AS (
  SELECT
    *,
    len(list_distinct(list_transform(calls, lambda c: split_part(c, ':', 1)))) AS services
  FROM tours
  WHERE len(calls) >= CASE kind WHEN 'tour' THEN getvariable('enumeration_burst_calls') ELSE getvariable('enumeration_burst_instance_calls') END
),
habits AS MATERIALIZED (
  SELECT
    account, principal, min(first_seen) AS first_seen,
    concat(split_part(event_source, '.', 1), ':', regexp_replace(event_name, '20[0-9]{6}.*$', '')) AS call
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM bursts) AND NOT is_write
  GROUP BY ALL
),
judged AS (
  SELECT
    b.account, b.event_id, b.kind,
    coalesce(min(h.first_seen) > b.event_time - to_days(CAST(getvariable('enumeration_burst_learning_days') AS INT)), true) AS learning,
    coalesce(list(h.call) FILTER (h.first_seen < b.event_time - INTERVAL 1 HOUR), []) AS known
  FROM bursts AS b
  LEFT JOIN habits AS h ON h.account = b.account AND h.principal = b.principal
  GROUP BY b.account, b.event_id, b.kind, b.event_time
),
rated AS (
  SELECT
    b.*,
    CASE
      WHEN list_contains(getvariable('enumeration_burst_trusted_principals'), b.principal) THEN 'low'
      WHEN b.kind = 'instance' THEN 'medium'
      WHEN b.by_console OR j.learning THEN 'low'
      ELSE 'medium'
    END AS severity
  FROM bursts AS b
  JOIN judged AS j USING (account, event_id, kind)
  WHERE CASE b.kind
    WHEN 'tour' THEN b.services >= getvariable('enumeration_burst_services')
      AND 2 * len(list_filter(b.calls, lambda c: NOT list_contains(j.known, c))) >= len(b.calls)
    ELSE b.services >= 3
      AND len(list_filter(b.calls, lambda c: NOT list_contains(j.known, c))) >= getvariable('enumeration_burst_instance_calls')
  END
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  last_part(caller) AS target,
  concat(last_part(caller), CASE kind WHEN 'instance' THEN ', an instance''s role,' ELSE '' END, ' made ', len(calls),
    ' different reading calls in ', services, ' services within minutes: ', array_to_string(list_sort(calls)[:6], ', ')) AS summary,
  severity,
  ids AS event_ids,
  caller
FROM rated
QUALIFY row_number() OVER (PARTITION BY account, event_id ORDER BY severity_rank(severity) DESC, kind DESC) = 1
