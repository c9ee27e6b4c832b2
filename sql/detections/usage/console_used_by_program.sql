-- ---
-- title        = "Console Used By Program"
-- severity     = "medium"
-- attack       = [
--   { id = "T1538", why = "the console shows at a glance what there is" },
--   { id = "T1078.004", why = "a user made for a program was signed in by a person" },
-- ]
-- about        = "Somebody signed in to the console as a user or role that always was used by programs only."
-- benign       = ["A person who works with an access key signs in for the first time in three months"]
-- event_names  = ["ConsoleLogin"]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- baseline     = "90d"
-- runbook      = """
-- 1. Does the user have a password, and since when? aws iam get-login-profile --user-name …; who made it: SELECT * FROM events WHERE event_name IN ('CreateLoginProfile', 'UpdateLoginProfile') ORDER BY event_time.
-- 2. Without a password, the sign-in came from a token: look for GetFederationToken, AssumeRole and GetSigninToken by the same actor just before.
-- 3. What was looked at? SELECT event_time, event_name FROM events WHERE principal = '…' AND session_credential_from_console = 'true' ORDER BY event_time.
-- 4. If nobody owns it: delete the login profile, deactivate the key, revoke the sessions.
-- 5. A user of a program needs no password: see that it stays so.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html",
--   "https://attack.mitre.org/techniques/T1538/",
-- ]
--
-- [params.api_days]
-- type    = "int"
-- default = 10
-- about   = "Days of use by API, and none of the console, in 90 days that make a user a program's"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of people who seldom sign in: no finding"
-- ---
WITH logins AS (
  SELECT *
  FROM events
  WHERE event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin'
    AND actor_kind IN ('iam_user', 'role', 'federated')
    AND NOT list_contains(getvariable('console_used_by_program_trusted_principals'), principal)
),
habits AS MATERIALIZED (
  SELECT
    account, principal, date,
    min(first_seen) FILTER (event_source = 'signin.amazonaws.com' AND event_name = 'ConsoleLogin' AND success) AS first_login,
    -- A role has no key of its own.
    bool_or(event_source <> 'signin.amazonaws.com' AND success AND (access_key IS NOT NULL OR actor_kind <> 'iam_user')) AS worked
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM logins)
  GROUP BY ALL
),
judged AS (
  SELECT
    l.account, l.event_id,
    coalesce(min(h.first_login) < l.event_time - INTERVAL 1 HOUR, false) AS known,
    count(*) FILTER (h.worked AND h.date < l.date) AS api_days
  FROM logins AS l
  JOIN habits AS h USING (account, principal)
  GROUP BY l.account, l.event_id, l.event_time
)
SELECT
  l.event_id,
  l.event_time,
  l.account,
  l.aws_region AS region,
  l.principal AS actor,
  l.source_ip_address AS source_ip,
  last_part(l.principal) AS target,
  concat(last_part(l.principal), ', on ', j.api_days, ' days used by programs only, ',
    CASE WHEN l.success THEN 'signed in to the console' ELSE 'failed to sign in to the console' END,
    CASE WHEN json_extract_string(l.additional_event_data, '$.MFAUsed') = 'No' AND l.actor_kind = 'iam_user' THEN ' without MFA' ELSE '' END) AS summary,
  -- Roles are used by people and programs alike.
  CASE WHEN l.success AND l.actor_kind = 'iam_user' THEN 'medium' ELSE 'low' END AS severity
FROM logins AS l
JOIN judged AS j USING (account, event_id)
WHERE NOT j.known AND j.api_days >= getvariable('console_used_by_program_api_days')
