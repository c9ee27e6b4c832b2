-- ---
-- title        = "Risk Accumulated"
-- severity     = "high"
-- attack       = [
--   { id = "T1078.004", why = "one identity does several things an intruder does, one after the other" },
-- ]
-- about        = "Several detections of different kinds raised alerts of medium or above about the same actor within a day."
-- benign       = [
--   "An administrator at work: their alerts were closed as harmless before, or they are listed in trusted_principals",
--   "A planned exercise",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- lookback     = "24h"
-- runbook      = """
-- 1. Read the alerts in their order: SELECT first_seen, severity, detection, target, summary FROM alerts WHERE actor = '…' ORDER BY first_seen.
-- 2. Were the credentials used as always? SELECT DISTINCT source_ip_address, user_agent, aws_region FROM events WHERE principal = '…' ORDER BY ALL.
-- 3. If nobody can explain it, treat it as an intrusion: deactivate the key, revoke the role's sessions, deny all by a policy.
-- 4. Follow what the actor made: users, keys, roles, instances, functions. SELECT event_time, event_source, event_name, request_parameters FROM events WHERE principal = '…' AND is_write AND success ORDER BY event_time.
-- """
-- references   = [
--   "https://attack.mitre.org/techniques/T1078/004/",
-- ]
--
-- [params.detections]
-- type    = "int"
-- default = 4
-- about   = "Different detections within a day that make it high; two more make it critical"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH signs AS (
  SELECT a.account, a.actor, a.detection, a.attack, a.source_ip, a.region, v.event_id, v.event_time
  FROM alerts AS a
  JOIN alert_events AS v USING (alert_id)
  WHERE a.detection <> 'risk_accumulated'
    AND a.severity IN ('medium', 'high', 'critical')
    AND a.status <> 'closed'
    AND NOT list_contains(getvariable('risk_accumulated_trusted_principals'), a.actor)
    AND v.event_time IS NOT NULL
),
counted AS (
  SELECT
    *,
    list_sort(list_distinct(list(detection) OVER day)) AS kinds,
    len(list_distinct(flatten(list(attack) OVER day))) AS techniques,
    list_sort(list_distinct(list(event_id) OVER day)) AS ids
  FROM signs
  WINDOW day AS (PARTITION BY account, actor ORDER BY event_time RANGE BETWEEN INTERVAL 24 HOUR PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  max(region) AS region,
  actor,
  max(source_ip) AS source_ip,
  last_part(actor) AS target,
  concat(last_part(actor), ' raised alerts of ', len(any_value(kinds)), ' detections within a day: ', array_to_string(any_value(kinds), ', ')) AS summary,
  CASE WHEN len(any_value(kinds)) >= getvariable('risk_accumulated_detections') + 2 THEN 'critical' ELSE 'high' END AS severity,
  any_value(ids) AS event_ids
FROM counted
WHERE len(kinds) >= getvariable('risk_accumulated_detections') AND techniques >= 2
GROUP BY event_id, event_time, account, actor
