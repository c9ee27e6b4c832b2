-- ---
-- title        = "MFA Failures"
-- severity     = "medium"
-- attack       = [
--   { id = "T1621", why = "somebody tries second factor after second factor, or asks the user until they give in" },
--   { id = "T1078.004", why = "the password was right each time: it is known" },
-- ]
-- about        = "A user's second factor failed again and again within ten minutes. Whoever gets that far has the password."
-- benign       = ["A device whose clock is off, a lost or renewed one: the user's own network, and no sign-in after it"]
-- event_names  = ["ConsoleLogin", "CheckMfa", "CredentialVerification", "UserAuthentication"]
-- group_by     = ["account", "target"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "30m"
-- runbook      = """
-- 1. Call the user: is it them, with which device?
-- 2. Did it work in the end, and from where? SELECT * FROM events WHERE user_name = '…' AND event_source = 'signin.amazonaws.com' ORDER BY event_time.
-- 3. If it was not them: a new password at once, for this one is known; see where it was used elsewhere.
-- 4. After a success: end the sessions, list what was done, look for a device that was registered (EnableMFADevice).
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_mfa_sync.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/understanding-sign-in-events.html",
-- ]
--
-- [params.failures]
-- type    = "int"
-- default = 5
-- about   = "Failures of the second factor within ten minutes"
-- ---
WITH sign_ins AS (
  SELECT
    *,
    sign_in_user(user_identity, additional_event_data) AS who,
    sign_in_outcome(event_name, error_message, response_elements, service_event_details) AS outcome,
    CASE event_name
      WHEN 'CheckMfa' THEN true
      WHEN 'ConsoleLogin' THEN coalesce(json_extract_string(additional_event_data, '$.MFAUsed') = 'Yes', false)
      WHEN 'CredentialVerification' THEN coalesce(json_extract_string(additional_event_data, '$.CredentialType') <> 'PASSWORD', false)
      ELSE false
    END AS of_factor
  FROM events
  WHERE event_source = 'signin.amazonaws.com' AND event_name IN ('ConsoleLogin', 'CheckMfa', 'CredentialVerification', 'UserAuthentication')
    AND is_person_signing_in(actor_kind, event_name, user_type)
),
-- A wrong code may be in two records, CheckMfa and ConsoleLogin: each kind is counted alone.
failures AS (
  SELECT
    *,
    count(*) OVER recent AS tries,
    list(event_id) OVER recent AS ids
  FROM sign_ins
  WHERE outcome = 'Failure' AND of_factor AND who IS NOT NULL
  WINDOW recent AS (PARTITION BY account, who, event_name ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
found AS (
  SELECT f.*, e.entered
  FROM failures AS f
  LEFT JOIN LATERAL (
    SELECT list(s.event_id) AS entered
    FROM sign_ins AS s
    WHERE s.account = f.account AND s.who = f.who AND s.outcome = 'Success' AND s.event_name IN ('ConsoleLogin', 'UserAuthentication')
      AND s.event_time BETWEEN f.event_time AND f.event_time + INTERVAL 30 MINUTE
  ) AS e ON true
  WHERE f.tries >= getvariable('mfa_failures_failures')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  who AS target,
  concat('The second factor of ', who, ' failed ', tries, ' times within ten minutes',
    CASE WHEN entered IS NOT NULL THEN ', and then a sign-in worked' ELSE '' END) AS summary,
  CASE WHEN entered IS NOT NULL THEN 'high' ELSE 'medium' END AS severity,
  list_concat(ids, coalesce(entered, [])) AS event_ids
FROM found
