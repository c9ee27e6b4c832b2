-- ---
-- title        = "Access Key Leaked"
-- severity     = "high"
-- attack       = [
--   { id = "T1078.004", why = "somebody else uses the credentials of a cloud account" },
--   { id = "T1552.001", why = "keys leak from files: repositories, images, laptops" },
--   { id = "T1528", why = "the stolen token is used to call the API" },
-- ]
-- about        = "Credentials are used as a thief uses them: to ask who they belong to from a network they never came from, with an attack tool, after months of silence; or AWS found the key in public and put it into quarantine."
-- benign       = [
--   "A new office or provider, a VPN's exit: list it in known_networks",
--   "Build machines with ever new addresses: list them in roaming_principals, or better let them assume a role",
-- ]
-- group_by     = ["account", "credential", "place"]
-- group_window = "24h"
-- needs        = "signs"
-- lookback     = "35m"
-- baseline     = "90d"
-- runbook      = """
-- 1. Deactivate the key, do not delete it yet: aws iam update-access-key --status Inactive. For a role: revoke its sessions.
-- 2. List all it did since its first use from the new network; sessions made by GetFederationToken outlive the key.
-- 3. Look for users, keys and roles it made, and for denied calls: they show what was wanted.
-- 4. Find where it leaked: repositories, images, build logs, laptops. Rotate it.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html",
--   "https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSCompromisedKeyQuarantineV3.html",
-- ]
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks of yours (198.51.100.0/24): no finding for use from there"
--
-- [params.roaming_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that come from ever new networks as their work: no finding for new networks"
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before a network is new for it"
--
-- [params.roaming_networks]
-- type    = "int"
-- default = 5
-- about   = "Networks in 30 days that make a principal a roaming one: at most low"
--
-- [params.dormant_days]
-- type    = "int"
-- default = 60
-- about   = "Days without use that make an access key a dormant one"
-- ---
WITH agents AS (
  SELECT
    user_agent,
    regexp_extract(lower(user_agent),
      '(trufflehog|gitleaks|\bpacu\b|\bkali\b|\bparrot\b|s3 browser|cloudmapper|scoutsuite|scout suite|enumerate-iam|weirdaal|cloudfox|stratus-red-team|aws_consoler|quiet-?riot|endgame)', 1) AS tool
  FROM (SELECT DISTINCT user_agent FROM events)
),
callers AS MATERIALIZED (
  SELECT DISTINCT
    account, principal, source_net, date_trunc('hour', event_time) AS hour,
    CASE WHEN access_key_kind = 'AKIA' THEN user_access_key_id END AS access_key
  FROM events
  WHERE actor_kind NOT IN ('aws_service', 'anonymous', 'cross_account')
),
-- Each caller's networks by the day; sign-ins in a browser teach where somebody is, too.
habits AS MATERIALIZED (
  SELECT a.account, a.principal, a.access_key, a.source_net, a.date, min(a.first_seen) AS first_seen, max(a.last_seen) AS last_seen
  FROM activity AS a
  WHERE a.success AND a.actor_kind <> 'aws_service'
    AND (a.account, a.principal) IN (SELECT (account, principal) FROM callers)
  GROUP BY ALL
),
judged AS (
  SELECT
    c.account, c.principal, c.access_key, c.source_net, c.hour,
    -- A thief's first calls must not teach their network: what counts is use an hour before this one.
    count(*) FILTER (
      (h.source_net = c.source_net)
      AND h.first_seen < c.hour - INTERVAL 1 HOUR AND h.last_seen >= c.hour - INTERVAL 30 DAY) > 0 AS known,
    coalesce(min(h.first_seen) > c.hour - to_days(CAST(getvariable('access_key_leaked_learning_days') AS INT)), true) AS learning,
    count(DISTINCT h.source_net) FILTER (
      h.source_net <> c.source_net AND h.last_seen >= c.hour - INTERVAL 30 DAY AND h.first_seen < c.hour)
      >= getvariable('access_key_leaked_roaming_networks') AS roaming,
    max(CASE WHEN h.first_seen < c.hour THEN least(h.last_seen, c.hour) END) FILTER (h.access_key = c.access_key) AS key_last_used
  FROM callers AS c
  LEFT JOIN habits AS h ON h.account = c.account AND h.principal = c.principal
  GROUP BY c.account, c.principal, c.access_key, c.source_net, c.hour
),
-- Most callers are where they always were: only of the others, and of tools, every call is looked at.
strangers AS (
  SELECT account, principal, coalesce(source_net, '') AS net, hour
  FROM judged
  WHERE NOT (known OR learning)
    OR key_last_used < hour + INTERVAL 1 HOUR - to_days(CAST(getvariable('access_key_leaked_dormant_days') AS INT))
),
uses AS (
  SELECT
    e.*,
    CASE WHEN e.access_key_kind = 'AKIA' THEN e.user_access_key_id END AS access_key,
    -- One service, one function: it runs at AWS, from addresses that change as AWS likes.
    coalesce(regexp_matches(e.user_agent, 'exec-env/AWS_Lambda'), false)
      OR coalesce(json_extract_string(e.user_identity, '$.inScopeOf.issuerType') = 'AWS::Lambda::Function', false) AS at_aws
  FROM events AS e
  WHERE e.actor_kind NOT IN ('aws_service', 'anonymous', 'cross_account')
    AND (e.user_agent IN (SELECT user_agent FROM agents WHERE tool <> '')
      OR (e.account, e.principal, coalesce(e.source_net, ''), date_trunc('hour', e.event_time)) IN (
        SELECT (account, principal, net, hour) FROM strangers))
),
-- One key in three far networks at once: it is in several hands.
scattered AS (
  SELECT account, user_access_key_id
  FROM events
  WHERE access_key_kind = 'AKIA' AND source_kind IN ('public_v4', 'public_v6') AND actor_kind <> 'aws_service'
  GROUP BY ALL
  HAVING count(DISTINCT wide_net(source_net)) >= 3
),
-- AWS found the key in public, and attached its quarantine; or somebody took it off.
quarantined AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.userName'), json_extract_string(request_parameters, '$.roleName'),
      json_extract_string(request_parameters, '$.groupName')) AS held,
    event_name LIKE 'Detach%' OR event_name LIKE 'Delete%' AS taken_off
  FROM events
  WHERE event_source = 'iam.amazonaws.com' AND success AND (
    event_name IN ('AttachUserPolicy', 'AttachRolePolicy', 'AttachGroupPolicy', 'DetachUserPolicy', 'DetachRolePolicy', 'DetachGroupPolicy')
      AND regexp_matches(json_extract_string(request_parameters, '$.policyArn'), '^arn:aws[^:]*:iam::aws:policy/(.*/)?AWSCompromisedKeyQuarantine')
    OR event_name IN ('PutUserPolicy', 'DeleteUserPolicy')
      AND regexp_matches(json_extract_string(request_parameters, '$.policyName'), '^(AWSExposedCredentialPolicy_DO_NOT_REMOVE|AWSCompromisedKeyQuarantine)'))
),
-- All that a finding can come from.
signs AS (
  SELECT principal FROM strangers
  UNION ALL SELECT tool FROM agents WHERE tool <> ''
  UNION ALL SELECT user_access_key_id FROM scattered
  UNION ALL SELECT held FROM quarantined
),
-- A user's key on a network where the user is known is not new, nor is one where that key was used.
seen AS (
  SELECT
    u.*,
    coalesce(a.tool, '') AS tool,
    u.event_source = 'sts.amazonaws.com' AND u.event_name = 'GetCallerIdentity' AND u.success AS asked,
    NOT j.known AND NOT j.learning AND NOT u.at_aws AND coalesce(u.source_kind IN ('public_v4', 'public_v6'), false)
      AND NOT in_networks(u.source_ip_address, u.source_net, getvariable('access_key_leaked_known_networks'))
      AND NOT list_contains(getvariable('access_key_leaked_roaming_principals'), u.principal) AS new_net,
    j.roaming,
    coalesce(u.access_key IS NOT NULL
      AND j.key_last_used < u.event_time - to_days(CAST(getvariable('access_key_leaked_dormant_days') AS INT)), false) AS dormant
  FROM uses AS u
  JOIN judged AS j
    ON j.account = u.account AND j.principal = u.principal AND j.access_key IS NOT DISTINCT FROM u.access_key
    AND j.source_net IS NOT DISTINCT FROM u.source_net AND j.hour = date_trunc('hour', u.event_time)
  LEFT JOIN agents AS a ON a.user_agent = u.user_agent
),
-- Asking who one is, from a new network; and what the same credentials tried within the hour.
asking AS (
  SELECT
    s.*,
    f.ids,
    f.tries,
    f.refusals
  FROM seen AS s
  LEFT JOIN LATERAL (
    SELECT list(o.event_id) AS ids, count(*) AS tries, count(*) FILTER (o.denied) AS refusals
    -- Of all there is: in the next hour of the clock the network may be known already, and the key in use.
    FROM events AS o
    WHERE o.account = s.account AND o.principal = s.principal AND o.source_net = s.source_net
      AND o.actor_kind <> 'aws_service'
      AND CASE WHEN o.access_key_kind = 'AKIA' THEN o.user_access_key_id END IS NOT DISTINCT FROM s.access_key
      AND o.event_time BETWEEN s.event_time AND s.event_time + INTERVAL 60 MINUTE
      AND (o.denied OR o.is_write AND o.success
        AND o.event_source IN ('iam.amazonaws.com', 'ses.amazonaws.com', 'bedrock.amazonaws.com', 'ec2.amazonaws.com'))
  ) AS f ON true
  WHERE s.asked AND (s.new_net OR s.dormant)
),
-- Everything else comes in bursts: one finding an hour.
bursts AS (
  SELECT
    account,
    principal,
    access_key,
    source_net,
    tool,
    date_trunc('hour', event_time) AS hour,
    arg_min(event_id, (event_time, event_id)) AS event_id,
    min(event_time) AS event_time,
    arg_min(aws_region, (event_time, event_id)) AS aws_region,
    arg_min(source_ip_address, (event_time, event_id)) AS source_ip_address,
    list(event_id ORDER BY event_time, event_id) AS ids,
    bool_or(new_net) AS new_net,
    bool_or(roaming) AS roaming,
    bool_or(dormant) AS dormant,
    list(DISTINCT event_name) AS names
  FROM seen
  -- Who asks is told above: were an event told twice, what is new about the one would replace the other.
  WHERE NOT (asked AND (new_net OR dormant)) AND (tool <> '' OR access_key IS NOT NULL AND (dormant OR new_net AND success))
  GROUP BY ALL
),
hands AS (
  SELECT
    e.account, e.user_access_key_id AS access_key, e.principal, e.event_id, e.event_time, e.aws_region, e.source_ip_address,
    list_distinct(list(wide_net(e.source_net)) OVER recent) AS places,
    list_distinct(list(e.event_id) OVER recent) AS ids
  FROM events AS e
  SEMI JOIN scattered AS s ON s.account = e.account AND s.user_access_key_id = e.user_access_key_id
  WHERE e.source_kind IN ('public_v4', 'public_v6') AND e.actor_kind <> 'aws_service'
    AND NOT list_contains(getvariable('access_key_leaked_roaming_principals'), e.principal)
    AND NOT in_networks(e.source_ip_address, e.source_net, getvariable('access_key_leaked_known_networks'))
  WINDOW recent AS (
    PARTITION BY e.account, e.user_access_key_id ORDER BY e.event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
found AS (
  SELECT
    event_id, event_time, account, aws_region, principal, source_ip_address,
    coalesce(access_key, principal) AS credential,
    coalesce(source_net, 'anywhere') AS place,
    coalesce(access_key, principal) AS target,
    concat(coalesce(access_key, last_part(principal)), ' asked who it is from ', source_ip_address,
      CASE WHEN new_net THEN ', a network it was never used from' ELSE ', after months of silence' END,
      CASE WHEN tries > 0 THEN concat('; ', tries, ' denied or changing calls followed within the hour') ELSE '' END) AS summary,
    CASE
      WHEN NOT new_net THEN CASE WHEN tool IN ('', 's3 browser') THEN 'medium' ELSE 'high' END
      WHEN tool <> '' THEN 'critical'
      -- Of somebody who always comes from elsewhere, changes are the daily work; being refused is not.
      WHEN roaming AND refusals = 0 THEN 'low'
      ELSE severity_of(
        CASE WHEN access_key IS NOT NULL OR regexp_matches(session_name, '^i-[0-9a-f]{8,17}$') THEN 4 ELSE 3 END
        + CASE WHEN tries > 0 THEN 1 ELSE 0 END)
    END AS severity,
    list_append(coalesce(ids, []), event_id) AS event_ids
  FROM asking
  UNION ALL BY NAME
  SELECT
    event_id, event_time, account, aws_region, principal, source_ip_address,
    coalesce(access_key, principal) AS credential,
    coalesce(source_net, 'anywhere') AS place,
    coalesce(access_key, principal) AS target,
    concat(coalesce(access_key, last_part(principal)), ' was used from ', source_ip_address,
      CASE WHEN tool <> '' THEN concat(' with ', tool) WHEN dormant THEN ' after months of silence' ELSE ', a network it was never used from' END,
      ': ', array_to_string(list_sort(names)[:5], ', ')) AS summary,
    CASE
      WHEN tool = 's3 browser' THEN 'medium'
      WHEN tool <> '' THEN 'high'
      WHEN roaming THEN 'low'
      ELSE 'medium'
    END AS severity,
    ids AS event_ids
  FROM bursts
  UNION ALL BY NAME
  SELECT
    event_id, event_time, account, aws_region, principal, source_ip_address,
    concat('quarantine of ', held) AS credential,
    CASE WHEN taken_off THEN 'taken off' ELSE 'put on' END AS place,
    held AS target,
    CASE WHEN taken_off THEN concat('AWS''s quarantine was taken off ', held)
      ELSE concat('AWS put ', held, ' into quarantine: its key was found in public') END AS summary,
    CASE WHEN taken_off THEN 'high' ELSE 'critical' END AS severity,
    [event_id] AS event_ids
  FROM quarantined
  UNION ALL BY NAME
  SELECT
    event_id, event_time, account, aws_region, principal, source_ip_address,
    access_key AS credential,
    'several places' AS place,
    access_key AS target,
    concat(access_key, ' was used from ', len(places), ' far networks within ten minutes') AS summary,
    'medium' AS severity,
    ids AS event_ids
  FROM hands
  -- An event tells one thing: what it is told for already says more.
  WHERE len(places) >= 3 AND event_id NOT IN (
    SELECT event_id FROM asking UNION ALL SELECT event_id FROM bursts UNION ALL SELECT event_id FROM quarantined)
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
  event_ids,
  credential,
  place
FROM found
