-- ---
-- title        = "Sign In After Brute Force"
-- severity     = "critical"
-- attack       = [
--   { id = "T1110", why = "after many wrong passwords there was a right one" },
--   { id = "T1078.004", why = "whoever guessed is in" },
-- ]
-- about        = "A sign-in to the console or to IAM Identity Center worked after many had failed within the hour, for that user or from that address."
-- benign       = [
--   "People who mistype or forget theirs: from a network they used before it is low",
--   "Several people behind one address: list it in known_networks",
-- ]
-- event_names  = ["ConsoleLogin", "CredentialVerification", "UserAuthentication"]
-- group_by     = ["account", "target"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Call the user at once. If it was not them, go on without waiting.
-- 2. Shut the door: aws iam delete-login-profile --user-name …, or disable the user in IAM Identity Center and end its sessions.
-- 3. What was done since? SELECT * FROM events WHERE user_name = '…' OR source_ip_address = '…' ORDER BY event_time. New keys, users, devices?
-- 4. Who else was tried from that address? SELECT DISTINCT user_name FROM events WHERE source_ip_address = '…' AND event_source = 'signin.amazonaws.com'.
-- 5. A new password, MFA, and a look at where the old one was used elsewhere.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/understanding-sign-in-events.html",
-- ]
--
-- [params.failures]
-- type    = "int"
-- default = 5
-- about   = "Failures within the hour before"
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks of yours (198.51.100.0/24): at most low"
-- ---
WITH sign_ins AS (
  SELECT
    *,
    sign_in_outcome(event_name, error_message, response_elements, service_event_details) AS outcome,
    sign_in_user(user_identity, additional_event_data) AS who,
    CASE WHEN source_kind IN ('public_v4', 'public_v6') THEN source_ip_address END AS address
  FROM events
  WHERE event_source = 'signin.amazonaws.com' AND event_name IN ('ConsoleLogin', 'CredentialVerification', 'UserAuthentication')
    AND is_person_signing_in(actor_kind, event_name, user_type)
),
-- One wrong factor is one failure; only the whole of them lets somebody in.
entered AS (
  SELECT s.*, f.user_ids, f.address_ids
  FROM sign_ins AS s
  LEFT JOIN LATERAL (
    SELECT
      list(p.event_id) FILTER (p.who = s.who) AS user_ids,
      list(p.event_id) FILTER (p.address = s.address) AS address_ids
    FROM sign_ins AS p
    WHERE p.account = s.account AND p.outcome = 'Failure'
      AND p.event_time BETWEEN s.event_time - INTERVAL 60 MINUTE AND s.event_time
  ) AS f ON true
  WHERE s.outcome = 'Success' AND s.event_name <> 'CredentialVerification'
),
judged AS (
  SELECT
    *,
    coalesce(len(user_ids), 0) >= getvariable('sign_in_after_brute_force_failures') AS guessed,
    in_networks(source_ip_address, source_net, getvariable('sign_in_after_brute_force_known_networks')) AS ours,
    EXISTS (
      SELECT 1 FROM activity AS h
      WHERE h.account = entered.account AND h.principal = entered.principal AND h.source_net = entered.source_net AND h.success
        -- One factor of Identity Center, right or wrong, lets nobody in.
        AND h.event_name NOT IN ('CredentialVerification', 'CredentialChallenge')
        AND h.date < entered.date AND h.date >= entered.date - 30) AS at_home
  FROM entered
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(who, principal) AS target,
  CASE WHEN guessed
    THEN concat(who, ' signed in from ', source_ip_address, ' after ', len(user_ids), ' failures')
    ELSE concat(coalesce(who, principal), ' signed in from ', source_ip_address, ', where ', len(address_ids), ' sign-ins had failed')
  END AS summary,
  CASE
    WHEN ours OR at_home THEN 'low'
    WHEN json_extract_string(additional_event_data, '$.MFAUsed') = 'Yes' THEN 'high'
    ELSE 'critical'
  END AS severity,
  list_append(CASE WHEN guessed THEN user_ids ELSE address_ids END, event_id) AS event_ids
FROM judged
WHERE guessed OR coalesce(len(address_ids), 0) >= getvariable('sign_in_after_brute_force_failures')
