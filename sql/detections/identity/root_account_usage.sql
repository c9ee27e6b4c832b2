-- ---
-- title        = "Root Account Usage"
-- severity     = "high"
-- attack       = [
--   { id = "T1078.004", why = "the root user is the account's most powerful cloud account, and nobody's daily one" },
--   { id = "T1110.001", why = "repeated failed sign-ins as root are somebody guessing its password" },
--   { id = "T1098.001", why = "root's password, keys or MFA device were changed" },
-- ]
-- about        = "The root user signed in, changed something or used an access key. IAM policies cannot restrain it."
-- benign       = [
--   "A task only root can do (closing the account, changing its support plan), with a ticket",
--   "Break-glass exercises: list their networks in known_networks",
-- ]
-- group_by     = ["account", "variant", "episode"]
-- group_window = "24h"
-- needs        = "calls"
-- lookback     = "15m"
-- runbook      = """
-- 1. Ask the account's owner, by phone or in person, whether this was them.
-- 2. List all that root did: SELECT * FROM events WHERE user_type = 'Root' AND account = '…' ORDER BY event_time.
-- 3. Look at MFAUsed, the source address and the user agent of the sign-in.
-- 4. If it was not expected: reset root's password, secure its mailbox, delete its access keys, register MFA anew.
-- 5. Look for new users, access keys and stopped trails in the 24 hours after it.
-- 6. Keep it from happening again: centralise root access, deny root in member accounts by a service control policy.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html",
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
-- ]
--
-- [params.known_networks]
-- type    = "list[str]"
-- default = []
-- about   = "Networks root is expected from (198.51.100.0/24): at most low, unless its credentials change"
--
-- [params.failures]
-- type    = "int"
-- default = 3
-- about   = "Failed sign-ins within 15 minutes that make a high one"
-- ---
WITH calls AS (
  SELECT * FROM events
  WHERE user_type = 'Root' OR actor_kind = 'root' OR event_name IN ('AssumeRoot', 'PasswordRecoveryRequested', 'PasswordRecoveryCompleted')
),
acts AS (
  SELECT
    *,
    json_extract_string(additional_event_data, '$.MFAUsed') AS mfa_used,
    json_extract_string(request_parameters, '$.userName') AS named_user,
    CASE
      WHEN event_source = 'signin.amazonaws.com' AND event_name IN ('PasswordRecoveryRequested', 'PasswordRecoveryCompleted')
        AND coalesce(user_type, 'Root') = 'Root' THEN 'credential_change'
      WHEN event_source = 'signin.amazonaws.com' AND event_name IN ('PasswordUpdated', 'EmailUpdated') THEN 'credential_change'
      WHEN event_source = 'sts.amazonaws.com' AND event_name = 'AssumeRoot'
        AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn) THEN 'assume_root'
      WHEN actor_kind <> 'root' THEN NULL
      WHEN event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin' AND success THEN 'console_login'
      WHEN event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin' THEN 'console_failure'
      WHEN event_source = 'signin.amazonaws.com' OR event_name = 'CreateServiceLinkedRole' THEN NULL
      WHEN event_source IN ('iam.amazonaws.com', 'account.amazonaws.com', 'organizations.amazonaws.com') AND (
        event_name IN ('DeactivateMFADevice', 'EnableMFADevice', 'CreateVirtualMFADevice', 'CloseAccount',
          'PasswordUpdated', 'EmailUpdated', 'StartPrimaryEmailUpdate', 'AcceptPrimaryEmailUpdate')
        -- Without a user named, or with this one, the key or password is root's own.
        OR event_name IN ('CreateAccessKey', 'UpdateLoginProfile', 'ChangePassword')
          AND coalesce(json_extract_string(request_parameters, '$.userName'), 'AWS ROOT USER') = 'AWS ROOT USER')
        THEN 'credential_change'
      WHEN access_key_kind = 'AKIA' THEN 'access_key'
      WHEN is_write THEN 'change'
      ELSE 'browsing'
    END AS variant
  FROM calls
),
counted AS (
  SELECT
    *,
    count(*) OVER recent AS tries,
    list(event_id) OVER recent AS try_ids
  FROM acts
  WHERE variant IS NOT NULL
  WINDOW recent AS (
    PARTITION BY account, variant ORDER BY event_time RANGE BETWEEN INTERVAL 15 MINUTE PRECEDING AND CURRENT ROW)
),
judged AS (
  SELECT
    *,
    CASE
      WHEN variant = 'credential_change' THEN CASE WHEN success THEN 'critical' ELSE 'medium' END
      WHEN variant = 'access_key' THEN 'critical'
      WHEN variant = 'console_login' THEN CASE WHEN mfa_used = 'No' THEN 'critical' ELSE 'high' END
      WHEN variant = 'console_failure' THEN
        CASE WHEN tries >= getvariable('root_account_usage_failures') THEN 'high' ELSE 'info' END
      WHEN variant = 'assume_root' THEN CASE WHEN success THEN 'high' ELSE 'low' END
      WHEN variant = 'change' THEN CASE WHEN success THEN 'high' ELSE 'medium' END
      ELSE 'low'
    END AS rated,
    variant IN ('console_login', 'change', 'browsing')
      AND in_networks(source_ip_address, source_net, getvariable('root_account_usage_known_networks')) AS expected
  FROM counted
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  coalesce(principal, 'root') AS actor,
  source_ip_address AS source_ip,
  CASE WHEN variant = 'assume_root' THEN coalesce(json_extract_string(request_parameters, '$.targetPrincipal'), account)
    ELSE coalesce(named_user, 'root') END AS target,
  CASE variant
    WHEN 'console_login' THEN concat('Root signed in to the console, MFA: ', lower(coalesce(mfa_used, 'not told')))
    WHEN 'console_failure' THEN concat('Root failed to sign in to the console, ', tries, ' within 15 minutes')
    WHEN 'credential_change' THEN concat('Root''s credentials: ', event_name, CASE WHEN success THEN '' ELSE ' was tried' END)
    WHEN 'access_key' THEN concat('Root''s access key ', user_access_key_id, ' called ', event_name)
    WHEN 'assume_root' THEN concat(principal, CASE WHEN success THEN ' took' ELSE ' tried to take' END, ' root privileges in a member account')
    WHEN 'change' THEN concat('Root called ', event_name, CASE WHEN success THEN '' ELSE concat(', which failed: ', error_code) END)
    ELSE 'A root session looked around'
  END AS summary,
  CASE WHEN expected THEN at_most(rated, 'low') ELSE rated END AS severity,
  CASE WHEN variant = 'console_failure' THEN try_ids ELSE [event_id] END AS event_ids,
  variant,
  -- Looking around is one alert a day; everything else one an hour and address, guessing a password one an hour.
  CASE
    WHEN variant = 'browsing' THEN 'day'
    WHEN variant = 'console_failure' THEN strftime(event_time, '%H')
    WHEN variant = 'credential_change' THEN concat(strftime(event_time, '%H'), ' ', event_name)
    ELSE concat(strftime(event_time, '%H'), ' ', source_ip_address)
  END AS episode
FROM judged
