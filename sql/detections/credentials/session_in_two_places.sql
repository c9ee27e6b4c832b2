-- ---
-- title        = "Session In Two Places"
-- severity     = "high"
-- attack       = [
--   { id = "T1550.001", why = "a session's token works for whoever holds it" },
--   { id = "T1539", why = "sessions are stolen from browsers and command lines" },
-- ]
-- about        = "One temporary key was used from two distant networks within half an hour, and its owner is not known in both."
-- benign       = [
--   "Somebody switched their VPN on or off: one change of place, medium",
--   "A workload that leaves by several addresses: after an hour of use they are known; or list them in known_networks",
-- ]
-- group_by     = ["account", "credential"]
-- group_window = "24h"
-- needs        = "restless"
-- lookback     = "20m"
-- baseline     = "30d"
-- runbook      = """
-- 1. See both places side by side: SELECT event_time, source_ip_address, event_name, error_code FROM events WHERE user_access_key_id = 'ASIA…' ORDER BY event_time.
-- 2. Ask the owner which of them is theirs. Back and forth between them is hardly one person.
-- 3. If one is nobody's: revoke the role's sessions (policy AWSRevokeOlderSessions); for single sign-on end the user's sessions there, too.
-- 4. What came out of it? Follow the stranger's address: SELECT DISTINCT principal, event_name FROM events WHERE source_ip_address = '…'.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html",
--   "https://attack.mitre.org/techniques/T1550/001/",
-- ]
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks of yours (198.51.100.0/24): use from there is in no second place"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a place is strange for it; until then at most medium"
-- ---
WITH uses AS (
  SELECT
    account, principal, user_access_key_id AS credential, source_net, source_ip_address, event_id, event_time, aws_region,
    event_source, wide_net(source_net) AS place, contains(source_net, ':') AS six
  FROM events
  WHERE access_key_kind = 'ASIA' AND source_kind IN ('public_v4', 'public_v6') AND actor_kind NOT IN ('aws_service', 'anonymous')
    -- Instances have a detection of their own; functions run wherever AWS likes.
    AND NOT is_instance_session(session_name)
    AND NOT coalesce(json_extract_string(user_identity, '$.inScopeOf.issuerType') = 'AWS::Lambda::Function', false)
    AND NOT in_networks(source_ip_address, source_net, getvariable('session_in_two_places_known_networks'))
),
-- A browser may speak IPv4 to one service and IPv6 to the next, so places are compared within a family.
restless AS (
  SELECT account, credential, six FROM uses GROUP BY ALL HAVING count(DISTINCT place) > 1
),
minutes AS (
  SELECT
    u.account, u.principal, u.credential, u.six, u.place, date_trunc('minute', u.event_time) AS minute,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_net, (event_time, event_id)) AS source_net,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address
  FROM uses AS u
  SEMI JOIN restless USING (account, credential, six)
  GROUP BY ALL
),
-- Where the session was in the half hour before: elsewhere, and whether it had been here before that.
moves AS (
  SELECT
    m.account, m.credential, m.event_id, m.event_time, m.principal, m.aws_region, m.source_ip_address, m.place, m.source_net,
    list(e.event_id) AS other_ids,
    list(DISTINCT e.source_net) AS other_nets,
    arg_max(e.source_ip_address, (e.event_time, e.event_id)) AS other_address,
    list_filter(list(DISTINCT b.event_id), lambda b: b IS NOT NULL) AS earlier_ids
  FROM minutes AS m
  JOIN minutes AS e
    ON e.account = m.account AND e.credential = m.credential AND e.six = m.six AND e.place <> m.place
    AND e.event_time BETWEEN m.event_time - INTERVAL 30 MINUTE AND m.event_time
  LEFT JOIN minutes AS b
    ON b.account = m.account AND b.credential = m.credential AND b.place = m.place
    AND b.event_time BETWEEN m.event_time - INTERVAL 30 MINUTE AND e.event_time AND b.event_id <> m.event_id
  GROUP BY ALL
),
habits AS MATERIALIZED (
  SELECT account, principal, wide_net(source_net) AS place, min(first_seen) AS first_seen, max(last_seen) AS last_seen, date
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM moves) AND actor_kind <> 'aws_service'
  GROUP BY ALL
),
judged AS (
  SELECT
    m.account, m.event_id,
    coalesce(min(h.first_seen) > m.event_time - to_days(CAST(getvariable('session_in_two_places_learning_days') AS INT)), true) AS learning,
    coalesce(list(DISTINCT h.place) FILTER (h.first_seen < m.event_time - INTERVAL 1 HOUR AND h.last_seen >= m.event_time - INTERVAL 30 DAY), []) AS places
  FROM moves AS m
  LEFT JOIN habits AS h USING (account, principal)
  GROUP BY m.account, m.event_id, m.event_time
)
SELECT
  m.event_id,
  m.event_time,
  m.account,
  m.aws_region AS region,
  m.principal AS actor,
  m.source_ip_address AS source_ip,
  last_part(m.principal) AS target,
  concat('A session of ', last_part(m.principal), ' was used from ', m.source_ip_address, ' and from ', m.other_address,
    ' within half an hour', CASE WHEN len(m.earlier_ids) > 0 THEN ', back and forth' ELSE '' END) AS summary,
  CASE WHEN len(m.earlier_ids) > 0 AND NOT j.learning THEN 'high' ELSE 'medium' END AS severity,
  list_distinct(list_concat([m.event_id], m.other_ids, m.earlier_ids)) AS event_ids,
  m.credential
FROM moves AS m
JOIN judged AS j USING (account, event_id)
-- It is strange only if the owner was never seen in one of the places before.
WHERE NOT list_has_all(j.places, list_append(list_transform(m.other_nets, lambda n: wide_net(n)), m.place))
