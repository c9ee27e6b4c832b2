-- ---
-- title        = "Access Removed"
-- severity     = "high"
-- attack       = [
--   { id = "T1531", why = "people lose their keys, passwords and users, so that nobody can stop what comes next" },
-- ]
-- about        = "Within minutes somebody deleted or disabled users, passwords or access keys of several others."
-- benign       = [
--   "Off-boarding, clean-ups and terraform destroy by those who create users, too (low up to ten)",
--   "A test that removes the users it made within the hour (info)",
-- ]
-- event_names  = ["DeleteUser", "DisableUser", "DeleteLoginProfile", "DeleteAccessKey", "UpdateAccessKey", "CreateUser"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "60m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Ask the actor, and somebody who still has access, by phone. Is it an off-boarding?
-- 2. Who was locked out? SELECT event_name, request_parameters FROM events WHERE principal = '…' AND event_name IN ('DeleteUser', 'DeleteLoginProfile', 'DeleteAccessKey', 'UpdateAccessKey') ORDER BY event_time.
-- 3. If it was not wanted: deactivate the actor's credentials first, from the organization's management account if need be.
-- 4. Give access back: update-access-key --status Active undoes a switch-off; deleted users and keys have to be made anew.
-- 5. Look for what comes with it: stopped trails, deleted backups, new users by the same actor.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteUser.html",
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html",
-- ]
--
-- [params.users]
-- type    = "int"
-- default = 3
-- about   = "Users who lose access within ten minutes"
--
-- [params.many_users]
-- type    = "int"
-- default = 10
-- about   = "As many are medium, even by those who create users as their work"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that remove users as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    lower(coalesce(json_extract_string(request_parameters, '$.userName'), json_extract_string(request_parameters, '$.userId'))) AS whose
  FROM events
  WHERE event_source IN ('iam.amazonaws.com', 'sso-directory.amazonaws.com', 'identitystore.amazonaws.com')
    AND event_name IN ('DeleteUser', 'DisableUser', 'DeleteLoginProfile', 'DeleteAccessKey', 'UpdateAccessKey', 'CreateUser')
    AND success
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
removed AS (
  SELECT
    c.*,
    (SELECT min(n.event_id) FROM calls AS n
      WHERE n.account = c.account AND n.principal = c.principal AND n.event_name = 'CreateUser' AND n.whose = c.whose
        AND n.event_time BETWEEN c.event_time - INTERVAL 60 MINUTE AND c.event_time) AS created_id
  FROM calls AS c
  WHERE c.event_name <> 'CreateUser'
    AND c.whose IS NOT NULL AND NOT is_same_user(c.user_type, c.user_name, c.user_arn, c.whose)
    AND (c.event_name <> 'UpdateAccessKey' OR json_extract_string(c.request_parameters, '$.status') = 'Inactive')
),
counted AS (
  SELECT
    *,
    count(DISTINCT whose) OVER recent AS users,
    count(DISTINCT CASE WHEN created_id IS NULL THEN whose END) OVER recent AS old_users,
    list_concat(list(event_id) OVER recent, list(created_id) OVER recent) AS event_ids
  FROM removed
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
judged AS (
  SELECT
    c.*,
    EXISTS (
      SELECT 1 FROM activity AS h
      WHERE h.account = c.account AND h.principal = c.principal AND h.event_name = 'CreateUser' AND h.success
        AND h.date < c.date AND h.date >= c.date - 30) AS keeper
  FROM counted AS c
  WHERE c.users >= getvariable('access_removed_users')
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  whose AS target,
  concat(users, ' users lost access within ten minutes by ', last_part(principal)) AS summary,
  CASE
    WHEN old_users < getvariable('access_removed_users') THEN 'info'
    WHEN list_contains(getvariable('access_removed_trusted_principals'), principal) THEN 'low'
    WHEN keeper THEN CASE WHEN old_users >= getvariable('access_removed_many_users') THEN 'medium' ELSE 'low' END
    ELSE 'high'
  END AS severity,
  event_ids
FROM judged
