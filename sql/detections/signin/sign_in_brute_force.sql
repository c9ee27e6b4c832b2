-- ---
-- title        = "Sign In Brute Force"
-- severity     = "medium"
-- attack       = [
--   { id = "T1110.001", why = "many passwords for one user: somebody guesses" },
--   { id = "T1110.003", why = "one password for many users, from one address" },
-- ]
-- about        = "Many sign-ins to the console or to IAM Identity Center failed within a quarter of an hour: for one user, or from one address."
-- benign       = [
--   "A password that a browser remembers wrongly, the morning after it was changed",
--   "An office behind one address: list it in known_networks (one user's failures count there, an address's do not)",
-- ]
-- event_names  = ["ConsoleLogin", "CredentialVerification"]
-- group_by     = ["account", "target"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "15m"
-- runbook      = """
-- 1. Did it work in the end? Look for Sign In After Brute Force, or: SELECT * FROM events WHERE event_name IN ('ConsoleLogin', 'UserAuthentication') AND source_ip_address = '…' ORDER BY event_time.
-- 2. Whom was it aimed at? SELECT user_name, count(*) FROM events WHERE source_ip_address = '…' AND event_source = 'signin.amazonaws.com' GROUP BY ALL. Real names mean a list leaked.
-- 3. Ask the users. See that each has MFA and a password used nowhere else.
-- 4. Deny the address by a policy on aws:SourceIp if it goes on, or let only your networks in.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/understanding-sign-in-events.html",
-- ]
--
-- [params.user_failures]
-- type    = "int"
-- default = 5
-- about   = "Failures of one user within 15 minutes"
--
-- [params.address_failures]
-- type    = "int"
-- default = 10
-- about   = "Failures from one address within 15 minutes"
--
-- [params.address_users]
-- type    = "int"
-- default = 3
-- about   = "Users who fail from one address within 15 minutes"
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks of yours (198.51.100.0/24) that many people share"
-- ---
WITH failures AS (
  SELECT
    *,
    -- Names that do not exist are hidden: all of them count as one more user.
    coalesce(sign_in_user(user_identity, additional_event_data), 'unknown') AS who,
    CASE WHEN NOT in_networks(source_ip_address, source_net, getvariable('sign_in_brute_force_known_networks')) THEN source_ip_address END AS address
  FROM events
  WHERE event_source = 'signin.amazonaws.com' AND event_name IN ('ConsoleLogin', 'CredentialVerification')
    AND is_person_signing_in(actor_kind, event_name, user_type)
    AND sign_in_outcome(event_name, error_message, response_elements, service_event_details) = 'Failure'
),
counted AS (
  SELECT
    *,
    count(*) OVER by_user AS user_failures,
    list(event_id) OVER by_user AS user_ids,
    count(*) OVER by_address AS address_failures,
    count(DISTINCT who) OVER by_address AS address_users,
    list(event_id) OVER by_address AS address_ids
  FROM failures
  WINDOW
    by_user AS (PARTITION BY account, who ORDER BY event_time RANGE BETWEEN INTERVAL 15 MINUTE PRECEDING AND CURRENT ROW),
    by_address AS (PARTITION BY account, address ORDER BY event_time RANGE BETWEEN INTERVAL 15 MINUTE PRECEDING AND CURRENT ROW)
),
judged AS (
  SELECT
    *,
    -- Three failures of root are Root Account Usage's.
    who <> 'unknown' AND actor_kind <> 'root' AND user_failures >= getvariable('sign_in_brute_force_user_failures') AS one_user,
    address IS NOT NULL AND address_users >= getvariable('sign_in_brute_force_address_users') AS spray,
    address IS NOT NULL AND address_failures >= getvariable('sign_in_brute_force_address_failures') AS one_address
  FROM counted
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  CASE WHEN one_user AND NOT spray THEN who ELSE address END AS target,
  CASE
    WHEN spray THEN concat('Sign-ins of ', address_users, ' users failed from ', address)
    WHEN one_user THEN concat(user_failures, ' sign-ins of ', who, ' failed')
    ELSE concat(address_failures, ' sign-ins failed from ', address)
  END AS summary,
  CASE WHEN one_user AND NOT spray THEN user_ids ELSE address_ids END AS event_ids
FROM judged
WHERE one_user OR spray OR one_address
