-- ---
-- title        = "Console Login From New Network"
-- severity     = "medium"
-- attack       = [
--   { id = "T1078.004", why = "a stolen password is used from elsewhere" },
-- ]
-- about        = "An IAM user signed in to the console from a provider's network (/16, or /32 of IPv6) where they were not seen in 60 days."
-- benign       = [
--   "Travel, a new provider, a telephone: with MFA it is medium, and low for people who come from many networks",
--   "A new office or VPN: list it in known_networks",
-- ]
-- event_names  = ["ConsoleLogin"]
-- group_by     = ["account", "actor", "place"]
-- group_window = "24h"
-- baseline     = "60d"
-- runbook      = """
-- 1. Ask the user whether they travel, by telephone or in person.
-- 2. Where do they usually come from? SELECT source_net, min(first_seen), max(last_seen) FROM activity WHERE principal = '…' GROUP BY ALL ORDER BY 3 DESC.
-- 3. What did they do there? SELECT * FROM events WHERE principal = '…' AND source_ip_address = '…' ORDER BY event_time.
-- 4. If it was not them: aws iam delete-login-profile, deactivate their keys, end the sessions; then look for what was left behind.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/best-practices.html",
-- ]
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks of yours (198.51.100.0/24): no finding"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a user needs before a network is new for them"
--
-- [params.roaming_networks]
-- type    = "int"
-- default = 5
-- about   = "Such networks in 60 days that make a user a roaming one: at most low"
-- ---
WITH logins AS (
  SELECT *, wide_net(source_net) AS place, lower(json_extract_string(additional_event_data, '$.MFAUsed')) = 'yes' AS with_mfa
  FROM events
  WHERE event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin'
    AND actor_kind = 'iam_user' AND success AND source_kind IN ('public_v4', 'public_v6')
    AND NOT in_networks(source_ip_address, source_net, getvariable('console_login_from_new_network_known_networks'))
),
-- By the hour, strictly before: what a thief does in the minutes before must not teach their network.
habits AS (
  SELECT l.account, l.event_id, wide_net(a.source_net) AS place, min(a.first_seen) AS first_seen
  FROM logins AS l
  JOIN activity AS a
    ON a.account = l.account AND a.principal = l.principal AND a.success AND a.actor_kind <> 'aws_service'
    AND a.first_seen < l.event_time - INTERVAL 1 HOUR AND a.last_seen >= l.event_time - INTERVAL 60 DAY
  GROUP BY ALL
),
judged AS (
  SELECT
    l.account,
    l.event_id,
    coalesce(bool_or(h.place = l.place), false) AS known,
    coalesce(min(h.first_seen) > l.event_time - to_days(CAST(getvariable('console_login_from_new_network_learning_days') AS INT)), true) AS learning,
    count(DISTINCT h.place) >= getvariable('console_login_from_new_network_roaming_networks') AS roaming
  FROM logins AS l
  LEFT JOIN habits AS h USING (account, event_id)
  GROUP BY l.account, l.event_id, l.event_time
)
SELECT
  l.event_id,
  l.event_time,
  l.account,
  l.aws_region AS region,
  l.principal AS actor,
  l.source_ip_address AS source_ip,
  coalesce(l.user_name, last_part(l.principal)) AS target,
  concat(coalesce(l.user_name, last_part(l.principal)), ' signed in from ', l.source_ip_address, ', a network they never came from',
    CASE WHEN l.with_mfa THEN '' ELSE ', without MFA' END) AS summary,
  CASE WHEN j.roaming THEN 'low' WHEN l.with_mfa THEN 'medium' ELSE 'high' END AS severity,
  l.place
FROM logins AS l
JOIN judged AS j USING (account, event_id)
WHERE NOT j.known AND NOT j.learning
