-- ---
-- title        = "Instance Credentials Used Elsewhere"
-- severity     = "high"
-- attack       = [
--   { id = "T1552.005", why = "the metadata service hands the role's credentials to whoever can reach it" },
--   { id = "T1550.001", why = "a session token taken from the instance is used in place of a login" },
--   { id = "T1078.004", why = "the instance's role is used by somebody else" },
-- ]
-- about        = "The session of an instance's role was used from a network where the instance is not: one its role never came from, while the instance's own agent reports from another, or one where people work."
-- benign       = [
--   "A new exit of your network, or addresses that change: list it in known_networks",
--   "Somebody tries the instance's role from their desk: still what a thief does",
-- ]
-- group_by     = ["account", "actor", "place"]
-- group_window = "24h"
-- needs        = "sessions"
-- lookback     = "35m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Compare with the instance: aws ec2 describe-instances --instance-ids i-… ; is the address its own, or its network's exit?
-- 2. What did the session do from there? SELECT event_time, event_name, error_code, request_parameters FROM events WHERE session_name = 'i-…' AND source_ip_address = '…' ORDER BY event_time.
-- 3. Revoke the role's sessions older than now (policy AWSRevokeOlderSessions) and isolate the instance; keep its disks for forensics.
-- 4. How did they get it? Look at the web server's log for requests to 169.254.169.254, and at SendCommand and StartSession calls on the instance.
-- 5. Require IMDSv2: aws ec2 modify-instance-metadata-options --http-tokens required --http-put-response-hop-limit 1; bind the role to your network with aws:EC2InstanceSourceVPC.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.credential-access.ec2-steal-instance-credentials/",
--   "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html",
-- ]
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks your instances leave by (198.51.100.0/24): no finding for use from there"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a role needs before a network is new for it"
--
-- [params.roaming_networks]
-- type    = "int"
-- default = 5
-- about   = "Networks in 30 days that make a role's instances come from anywhere: a new one alone is no finding"
-- ---
WITH sessions AS (
  SELECT * FROM events
  WHERE actor_kind = 'role' AND is_instance_session(session_name)
    -- Whoever comes through an endpoint in one's own network is in one's own network.
    AND vpc_endpoint_id IS NULL AND source_kind IN ('public_v4', 'public_v6', 'private')
),
calls AS MATERIALIZED (
  SELECT
    account, principal, session_name, source_net, source_ip_address, source_kind, event_id, event_time, aws_region,
    date_trunc('hour', event_time) AS hour,
    event_source IN ('ssm.amazonaws.com', 'ssmmessages.amazonaws.com', 'ec2messages.amazonaws.com') AS by_agent,
    event_source = 'sts.amazonaws.com' AND event_name = 'GetCallerIdentity' AS asked,
    is_recon_call(event_source, event_name) AS looked,
    event_name
  FROM sessions
),
bursts AS (
  SELECT
    account, principal, session_name, source_net, hour,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    max(event_time) AS last_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    bool_or(source_kind <> 'private') AS public,
    bool_or(asked) AS asked,
    -- Asking who one is proves nothing alone: clusters let their nodes ask through their own address.
    bool_and(asked) AS only_asked,
    bool_or(looked AND NOT asked) AS looked,
    list_sort(list(DISTINCT event_name)) AS names,
    arg_min(event_id, (event_time, event_id), 100) AS ids
  FROM calls
  WHERE NOT by_agent
    AND NOT in_networks(source_ip_address, source_net, getvariable('instance_credentials_used_elsewhere_known_networks'))
  GROUP BY ALL
),
-- The agent on an instance reports every few minutes, and so tells where the instance is.
agents AS (
  SELECT
    account, session_name, source_net, hour, min(event_time) AS first, max(event_time) AS last,
    -- Those nearest to what was done an hour later, or before: whichever comes late is among them.
    [arg_min(event_id, (event_time, event_id)), arg_max(event_id, (event_time, event_id))] AS ids
  FROM calls
  WHERE by_agent
  GROUP BY ALL
),
located AS (
  SELECT
    b.*,
    coalesce(a.at_home, 0) > 0 AS at_home,
    a.away_ids
  FROM bursts AS b
  LEFT JOIN LATERAL (
    SELECT
      count(*) FILTER (a.source_net = b.source_net) AS at_home,
      flatten(list(a.ids) FILTER (a.source_net <> b.source_net AND contains(a.source_net, ':') = contains(b.source_net, ':'))) AS away_ids
    FROM agents AS a
    WHERE a.account = b.account AND a.session_name = b.session_name
      AND a.last >= b.event_time - INTERVAL 60 MINUTE AND a.first <= b.last_time + INTERVAL 60 MINUTE
  ) AS a ON true
),
people AS (
  SELECT
    account, source_net, date_trunc('hour', event_time) AS hour, min(event_time) AS first, max(event_time) AS last,
    [arg_min(event_id, (event_time, event_id)), arg_max(event_id, (event_time, event_id))] AS ids
  FROM events
  WHERE is_person(actor_kind) AND actor_kind <> 'web_identity' AND source_kind IN ('public_v4', 'public_v6', 'private')
    AND vpc_endpoint_id IS NULL AND event_source IS NOT NULL
    AND (account, source_net) IN (SELECT (account, source_net) FROM bursts)
  GROUP BY ALL
),
-- Networks that other instances come from, too
shared AS (
  SELECT account, source_net FROM calls GROUP BY ALL HAVING count(DISTINCT session_name) > 1 OR bool_or(by_agent)
),
company AS (
  SELECT
    l.*,
    p.people_ids,
    EXISTS (SELECT 1 FROM shared AS s WHERE s.account = l.account AND s.source_net = l.source_net) AS among_instances
  FROM located AS l
  LEFT JOIN LATERAL (
    SELECT flatten(list(p.ids)) AS people_ids
    FROM people AS p
    WHERE p.account = l.account AND p.source_net = l.source_net
      AND p.last >= l.event_time - INTERVAL 60 MINUTE AND p.first <= l.last_time + INTERVAL 60 MINUTE
  ) AS p ON true
  WHERE NOT l.at_home
),
habits AS MATERIALIZED (
  SELECT account, principal, source_net, min(first_seen) AS first_seen, max(last_seen) AS last_seen, date
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM company) AND actor_kind = 'role'
  GROUP BY ALL
),
judged AS (
  SELECT
    c.account, c.principal, c.session_name, c.source_net, c.hour,
    -- A thief's first calls must not teach their network: what counts is use an hour before this one.
    count(*) FILTER (h.source_net = c.source_net AND h.first_seen < c.hour - INTERVAL 1 HOUR AND h.last_seen >= c.hour - INTERVAL 30 DAY) > 0 AS known,
    coalesce(min(h.first_seen) > c.hour - to_days(CAST(getvariable('instance_credentials_used_elsewhere_learning_days') AS INT)), true) AS learning,
    count(DISTINCT h.source_net) FILTER (h.source_net <> c.source_net AND h.last_seen >= c.hour - INTERVAL 30 DAY AND h.first_seen < c.hour)
      >= getvariable('instance_credentials_used_elsewhere_roaming_networks') AS roaming
  FROM company AS c
  LEFT JOIN habits AS h ON h.account = c.account AND h.principal = c.principal
  GROUP BY c.account, c.principal, c.session_name, c.source_net, c.hour
),
rated AS (
  SELECT
    c.*,
    CASE
      WHEN j.known THEN NULL
      WHEN NOT j.learning AND NOT j.roaming AND (c.public OR c.away_ids IS NOT NULL OR c.people_ids IS NOT NULL)
        THEN CASE WHEN c.only_asked THEN 'low' ELSE 'high' END
      WHEN c.only_asked THEN NULL
      WHEN c.away_ids IS NOT NULL THEN CASE WHEN j.learning THEN 'medium' ELSE 'high' END
      WHEN c.people_ids IS NOT NULL AND NOT c.among_instances THEN 'medium'
      WHEN j.learning AND c.asked AND c.looked AND NOT c.among_instances THEN 'medium'
    END AS severity
  FROM company AS c
  JOIN judged AS j
    ON j.account = c.account AND j.principal = c.principal AND j.session_name = c.session_name AND j.source_net = c.source_net AND j.hour = c.hour
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  session_name AS target,
  concat(
    'Credentials of ', session_name, ' were used from ', source_ip_address,
    CASE
      WHEN away_ids IS NOT NULL THEN ', while the instance reports from elsewhere'
      WHEN people_ids IS NOT NULL THEN ', where people work'
      ELSE ', where its role never came from' END,
    ': ', array_to_string(names[:5], ', ')) AS summary,
  severity,
  list_distinct(list_concat(ids, coalesce(away_ids, []), coalesce(people_ids, []))) AS event_ids,
  source_net AS place
FROM rated
WHERE severity IS NOT NULL
