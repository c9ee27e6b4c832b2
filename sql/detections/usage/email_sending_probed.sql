-- ---
-- title        = "Email Sending Probed"
-- severity     = "medium"
-- attack       = [
--   { id = "T1496.004", why = "stolen keys are used to send spam and phishing in your name" },
--   { id = "T1526", why = "the sending quota is the first thing such thieves ask for" },
-- ]
-- about        = "Somebody who never worked with SES asked what could be sent, or made an identity to send from, or asked to leave the sandbox."
-- benign       = [
--   "Setting up e-mail for the first time; the console asks the same (info), and so does a single question",
--   "Deployments that make identities: known from the second day on, or list them in trusted_principals",
-- ]
-- event_names  = [
--   "GetSendQuota", "GetAccount", "ListIdentities", "ListEmailIdentities", "GetAccountSendingEnabled",
--   "GetSendStatistics", "GetIdentityVerificationAttributes", "UpdateAccountSendingEnabled",
--   "PutAccountSendingAttributes", "VerifyEmailIdentity", "VerifyDomainIdentity", "CreateEmailIdentity",
--   "PutAccountDetails",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. What did the caller ask and make? SELECT event_time, aws_region, event_name, error_code, request_parameters FROM events WHERE event_source = 'ses.amazonaws.com' AND principal = '…' ORDER BY event_time.
-- 2. Was anything sent? aws ses get-send-statistics --region …; sending is no management event.
-- 3. Stop it: aws sesv2 put-account-sending-attributes --no-sending-enabled; aws sesv2 delete-email-identity --email-identity ….
-- 4. Deactivate the actor's key, and look at where it was used: SELECT DISTINCT source_ip_address, user_agent FROM events WHERE user_access_key_id = '…'.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.discovery.ses-enumerate/",
--   "https://docs.aws.amazon.com/ses/latest/dg/logging-using-cloudtrail.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
--
-- [params.questions]
-- type    = "int"
-- default = 2
-- about   = "Different questions within ten minutes that make a probe; fewer are info"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_name IN ('GetSendQuota', 'GetAccount', 'ListIdentities', 'ListEmailIdentities', 'GetAccountSendingEnabled', 'GetSendStatistics', 'GetIdentityVerificationAttributes') AS asked,
    coalesce(session_credential_from_console = 'true', false) AS by_console
  FROM events
  WHERE event_source = 'ses.amazonaws.com'
    AND event_name IN ('GetSendQuota', 'GetAccount', 'ListIdentities', 'ListEmailIdentities', 'GetAccountSendingEnabled', 'GetSendStatistics',
      'GetIdentityVerificationAttributes', 'UpdateAccountSendingEnabled', 'PutAccountSendingAttributes', 'VerifyEmailIdentity',
      'VerifyDomainIdentity', 'CreateEmailIdentity', 'PutAccountDetails')
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
    AND NOT list_contains(getvariable('email_sending_probed_trusted_principals'), principal)
    -- Switching sending off is what one does against thieves.
    AND NOT (event_name IN ('UpdateAccountSendingEnabled', 'PutAccountSendingAttributes')
      AND (json_is_false(request_parameters, '$.enabled') OR json_is_false(request_parameters, '$.sendingEnabled')))
),
strange AS (
  SELECT c.*
  FROM calls AS c
  WHERE NOT EXISTS (SELECT 1 FROM activity AS a
    WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source AND a.success AND a.date < c.date)
),
probed AS (
  SELECT
    *,
    list_distinct(list(event_name) OVER recent) AS kinds,
    list(event_id) OVER recent AS ids
  FROM strange
  WINDOW recent AS (
    PARTITION BY account, caller, asked ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(json_extract_string(request_parameters, '$.emailIdentity'), json_extract_string(request_parameters, '$.emailAddress'),
    json_extract_string(request_parameters, '$.domain'), 'SES') AS target,
  concat(last_part(caller), ', who never used SES, ',
    CASE WHEN asked THEN concat('asked what may be sent: ', array_to_string(list_sort(kinds), ', '))
      WHEN event_name = 'PutAccountDetails' THEN 'asked to send to everybody'
      ELSE concat('prepared to send: ', event_name) END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN asked AND (by_console OR len(kinds) < getvariable('email_sending_probed_questions')) THEN 'info'
    WHEN asked THEN CASE WHEN success THEN 'medium' ELSE 'low' END
    WHEN NOT success OR by_console THEN 'low'
    WHEN event_name = 'PutAccountDetails' THEN 'high'
    ELSE 'medium'
  END AS severity,
  CASE WHEN asked THEN ids ELSE [event_id] END AS event_ids,
  caller
FROM probed
