-- ---
-- title        = "Console Login Without MFA"
-- severity     = "medium"
-- attack       = [
--   { id = "T1078.004", why = "a password alone opened the account: guessed, phished or reused ones do, too" },
-- ]
-- about        = "An IAM user signed in to the console with a password and no second factor. Sign-ins by SAML, roles and IAM Identity Center have theirs elsewhere; root's are Root Account Usage's."
-- benign       = [
--   "Users who never had a device: give them one, or single sign-on",
--   "Machine users of a monitoring service: list them in accepted_users",
-- ]
-- event_names  = ["ConsoleLogin"]
-- group_by     = ["account", "actor"]
-- group_window = "7d"
-- runbook      = """
-- 1. Ask the user whether it was them, from that address.
-- 2. Where do they come from else? SELECT source_ip_address, count(*) FROM events WHERE user_name = '…' AND event_name = 'ConsoleLogin' GROUP BY ALL.
-- 3. If it was not them: aws iam delete-login-profile, end the sessions, list what was done: SELECT * FROM events WHERE user_name = '…' ORDER BY event_time.
-- 4. Give the user a device, and deny everything without one: a policy on aws:MultiFactorAuthPresent.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.initial-access.console-login-without-mfa/",
-- ]
--
-- [params.accepted_users]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of users who sign in without MFA by agreement: at most low"
-- ---
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(user_name, last_part(principal)) AS target,
  concat(coalesce(user_name, last_part(principal)), ' signed in without MFA') AS summary,
  CASE WHEN list_contains(getvariable('console_login_without_mfa_accepted_users'), principal) THEN 'low' ELSE 'medium' END AS severity
FROM events
WHERE event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin'
  AND actor_kind = 'iam_user' AND success
  AND lower(json_extract_string(additional_event_data, '$.MFAUsed')) = 'no'
  -- SAML's users are called IAM users in some old records; their provider asked for the second factor.
  AND json_extract_string(additional_event_data, '$.SamlProviderArn') IS NULL
