-- ---
-- title        = "Outside Account Came In"
-- severity     = "medium"
-- attack       = [
--   { id = "T1199", why = "a vendor, partner or former colleague uses the trust they were given, or somebody uses theirs" },
--   { id = "T1078.004", why = "a role of the account is used from outside" },
-- ]
-- about        = "A role was assumed by an account that is not yours and did not come in during the last 60 days."
-- benign       = [
--   "A vendor who begins to work: list the account in trusted_accounts",
-- ]
-- event_names  = [
--   "AssumeRole",
-- ]
-- group_by     = ["account", "outside"]
-- group_window = "24h"
-- needs        = "calls"
-- baseline     = "60d"
-- runbook      = """
-- 1. Which role, from where? SELECT event_time, user_account_id, json_extract_string(request_parameters, '$.roleArn') AS role, source_ip_address, user_agent FROM events WHERE event_name = 'AssumeRole' AND user_account_id = '…' ORDER BY event_time.
-- 2. Who let them in, and when? SELECT event_time, principal, request_parameters FROM events WHERE event_name IN ('CreateRole', 'UpdateAssumeRolePolicy') ORDER BY event_time DESC.
-- 3. What did they do? SELECT event_time, event_source, event_name FROM events WHERE principal = '…' AND event_time > '…' ORDER BY event_time.
-- 4. If nobody knows the account: revoke the role's sessions, take the account out of its trust policy, ask for an external id of everybody else.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_third-party.html",
--   "https://attack.mitre.org/techniques/T1199/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts you work with. Accounts of your integrations are trusted anyway"
--
-- [params.learning_days]
-- type    = "int"
-- default = 14
-- about   = "Days of history an account needs before a caller is new to it; until then at most low"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT e.*, e.user_account_id AS outside, last_part(json_extract_string(e.request_parameters, '$.roleArn')) AS role
  FROM events AS e, known
  WHERE e.event_source = 'sts.amazonaws.com'
    AND e.event_name = 'AssumeRole'
    AND e.success
    AND e.actor_kind <> 'aws_service'
    AND len(foreign_accounts([e.user_account_id], e.account, known.own, getvariable('outside_account_came_in_trusted_accounts'))) > 0
),
uses AS (
  -- Another account's callers are known by its id or by an ARN of it.
  SELECT DISTINCT account, date, regexp_extract(principal, '([0-9]{12})', 1) AS outside, principal
  FROM activity
  WHERE event_source = 'sts.amazonaws.com' AND event_name = 'AssumeRole' AND success
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM uses AS u WHERE u.account = c.account AND u.date < c.date AND (u.outside = c.outside OR u.principal = c.principal)) AS habit,
    coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account)
      <= c.date - CAST(getvariable('outside_account_came_in_learning_days') AS INT), false) AS mature
  FROM calls AS c
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(role, 'a role') AS target,
  concat('Account ', outside, ', which did not come in before, assumed ', coalesce(role, 'a role')) AS summary,
  CASE WHEN mature THEN 'medium' ELSE 'low' END AS severity,
  outside
FROM judged
WHERE NOT habit
