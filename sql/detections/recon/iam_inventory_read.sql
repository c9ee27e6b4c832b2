-- ---
-- title        = "IAM Inventory Read"
-- severity     = "medium"
-- attack       = [
--   { id = "T1087.004", why = "one call gives every user and role of the account" },
--   { id = "T1069.003", why = "and every group and policy, which shows the way up" },
--   { id = "T1201", why = "the password policy tells what to guess" },
-- ]
-- about        = "Everything there is to know about users, roles and policies was taken in one call, or the rules for passwords, by somebody who never asked."
-- benign       = ["Security scanners: known after their first run, or list them in trusted_principals"]
-- event_names  = ["GetAccountAuthorizationDetails", "GetCredentialReport", "GenerateCredentialReport", "GetAccountPasswordPolicy"]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Who is it, and from where? SELECT event_time, event_name, source_ip_address, user_agent FROM events WHERE principal = '…' ORDER BY event_time.
-- 2. If a scanner was set up: say so in trusted_principals.
-- 3. Otherwise look at what came next: SELECT event_time, event_name, error_code, request_parameters FROM events WHERE principal = '…' AND event_source IN ('iam.amazonaws.com', 'sts.amazonaws.com') AND is_write ORDER BY event_time.
-- 4. If nobody owns it: cut the caller off. The inventory shows every weak spot of your policies, so mend those first that the caller could use.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountAuthorizationDetails.html",
--   "https://attack.mitre.org/techniques/T1201/",
-- ]
--
-- [params.learning_days]
-- type    = "int"
-- default = 7
-- about   = "Days of history a principal needs before the smaller questions are new for it"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of scanners: no finding"
-- ---
WITH reads AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    event_name = 'GetAccountAuthorizationDetails' AS everything,
    coalesce(session_credential_from_console = 'true', false) AS by_console
  FROM events
  WHERE event_source = 'iam.amazonaws.com'
    AND event_name IN ('GetAccountAuthorizationDetails', 'GetCredentialReport', 'GenerateCredentialReport', 'GetAccountPasswordPolicy')
    AND actor_kind NOT IN ('aws_service', 'anonymous')
    -- An account without a password policy answers "no such entity": it was asked all the same.
    AND (success OR denied OR error_code LIKE 'NoSuchEntity%')
    AND NOT list_contains(getvariable('iam_inventory_read_trusted_principals'), principal)
),
habits AS MATERIALIZED (
  SELECT
    account, principal,
    min(first_seen) AS first_seen,
    min(first_seen) FILTER (success AND event_source = 'iam.amazonaws.com' AND event_name = 'GetAccountAuthorizationDetails') AS first_all,
    min(first_seen) FILTER (event_source = 'iam.amazonaws.com'
      AND event_name IN ('GetCredentialReport', 'GenerateCredentialReport', 'GetAccountPasswordPolicy')) AS first_some
  FROM activity
  WHERE (account, principal) IN (SELECT (account, principal) FROM reads)
  GROUP BY ALL
),
judged AS (
  SELECT
    r.*,
    coalesce(CASE WHEN r.everything THEN h.first_all ELSE least(h.first_all, h.first_some) END < r.event_time - INTERVAL 1 HOUR, false) AS known,
    coalesce(h.first_seen > r.event_time - to_days(CAST(getvariable('iam_inventory_read_learning_days') AS INT)), true) AS learning
  FROM reads AS r
  LEFT JOIN habits AS h USING (account, principal)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  CASE WHEN everything THEN 'all identities' WHEN event_name = 'GetAccountPasswordPolicy' THEN 'password policy' ELSE 'credential report' END AS target,
  concat(last_part(caller), CASE WHEN denied THEN ' was refused ' ELSE ' took ' END,
    CASE WHEN everything THEN 'all users, roles, groups and policies in one call'
      WHEN event_name = 'GetAccountPasswordPolicy' THEN 'the password policy' ELSE 'the credential report' END, ' for the first time') AS summary,
  CASE WHEN everything AND success AND NOT by_console THEN 'medium' ELSE 'low' END AS severity,
  caller
FROM judged
-- The first page of the IAM console asks for the password policy.
WHERE NOT known AND (everything OR NOT learning AND NOT by_console)
