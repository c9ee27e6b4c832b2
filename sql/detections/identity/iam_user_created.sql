-- ---
-- title        = "IAM User Created"
-- severity     = "medium"
-- attack       = [
--   { id = "T1136.003", why = "a new user outlives whatever credentials the intruder came in with" },
--   { id = "T1098.001", why = "a password or access key was added to the new user" },
--   { id = "T1098.003", why = "the new user was given administrative rights" },
-- ]
-- about        = "A new IAM user was created. Given keys, a password or administrative rights, it is a back door."
-- benign       = [
--   "Onboarding, or infrastructure as code: list its roles in trusted_principals; a user of a CloudFormation stack is low",
--   "Users that AWS consoles create for you (ses-smtp-user…, CodeCommit, Amplify)",
-- ]
-- event_names  = ["CreateUser", "CreateLoginProfile", "CreateAccessKey", "AttachUserPolicy", "PutUserPolicy", "AddUserToGroup"]
-- group_by     = ["account", "whose"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "30m"
-- runbook      = """
-- 1. Who created it, from where, with what program? Is there a ticket?
-- 2. List what it was given: aws iam list-access-keys, get-login-profile, list-attached-user-policies, list-groups-for-user --user-name ….
-- 3. If it was not wanted: deactivate its keys, delete the login profile, attach an explicit Deny, keep it as evidence.
-- 4. What did its creator and the user do since? SELECT event_time, principal, event_source, event_name FROM events WHERE account = '…' AND (principal = '…' OR user_name = '…') ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html",
--   "https://traildiscover.cloud/#IAM-CreateUser",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that create users as their work: at most low, unless the user becomes an administrator"
--
-- [params.admin_groups]
-- type    = "list[str]"
-- default = ["admin", "admins", "administrator", "administrators"]
-- about   = "Groups (lower case) whose members administer the account"
--
-- [params.admin_policies]
-- type    = "list[str]"
-- default = ["AdministratorAccess", "PowerUserAccess", "IAMFullAccess"]
-- about   = "Managed policies that make an administrator"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(response_elements, '$.user.userName'),
      refused_user(error_message)) AS user_named
  FROM events
  WHERE event_source = 'iam.amazonaws.com'
    AND event_name IN ('CreateUser', 'CreateLoginProfile', 'CreateAccessKey', 'AttachUserPolicy', 'PutUserPolicy', 'AddUserToGroup')
    AND (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
-- What was done for a user: administrative rights, or a way in.
furnished AS (
  SELECT
    account, event_id, event_time, lower(user_named) AS user_key,
    CASE
      WHEN event_name = 'AttachUserPolicy'
        AND (list_contains(getvariable('iam_user_created_admin_policies'), last_part(json_extract_string(request_parameters, '$.policyArn')))
          OR regexp_matches(lower(last_part(json_extract_string(request_parameters, '$.policyArn'))), 'admin'))
        THEN 'rights'
      WHEN event_name = 'PutUserPolicy'
        AND coalesce(policy_power(policy_document(request_parameters, '$.policyDocument')) IN ('everything', 'rights'), false) THEN 'rights'
      WHEN event_name = 'AddUserToGroup'
        AND list_contains(getvariable('iam_user_created_admin_groups'), lower(json_extract_string(request_parameters, '$.groupName')))
        THEN 'rights'
      WHEN event_name IN ('CreateLoginProfile', 'CreateAccessKey') THEN 'way in'
    END AS what
  FROM calls
  WHERE success
),
created AS (
  SELECT c.*, f.rights, f.ways_in, f.ids
  FROM calls AS c
  LEFT JOIN LATERAL (
    SELECT
      count(*) FILTER (f.what = 'rights') AS rights,
      count(*) FILTER (f.what = 'way in') AS ways_in,
      list(f.event_id) AS ids
    FROM furnished AS f
    WHERE f.account = c.account AND f.user_key = lower(c.user_named) AND f.what IS NOT NULL
      AND f.event_time BETWEEN c.event_time - INTERVAL 30 MINUTE AND c.event_time + INTERVAL 30 MINUTE
  ) AS f ON true
  WHERE c.event_name = 'CreateUser' AND c.success
),
refused AS (
  SELECT
    *,
    count(*) OVER recent AS tries,
    list(event_id) OVER recent AS try_ids
  FROM calls
  WHERE denied AND event_name IN ('CreateUser', 'CreateLoginProfile', 'CreateAccessKey')
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
),
found AS (
  SELECT
    * EXCLUDE (rights, ways_in, ids),
    CASE
      WHEN rights > 0 THEN 'critical'
      WHEN list_contains(getvariable('iam_user_created_trusted_principals'), principal) THEN 'low'
      WHEN ways_in > 0 OR actor_kind = 'root' OR regexp_matches(session_name, '^i-[0-9a-f]{8,17}$')
        OR user_account_id <> account OR regexp_matches(lower(user_agent), 's3 browser|\bkali\b|pacu') THEN 'high'
      -- A stack's user stands in a template, and goes with it.
      WHEN user_invoked_by = 'cloudformation.amazonaws.com' THEN 'low'
      ELSE 'medium'
    END AS severity,
    concat('IAM user ', user_named, ' was created',
      CASE WHEN rights > 0 THEN ' and made an administrator' WHEN ways_in > 0 THEN ' and given a password or access key' ELSE '' END) AS summary,
    list_append(coalesce(ids, []), event_id) AS event_ids,
    lower(user_named) AS whose
  FROM created
  UNION ALL BY NAME
  SELECT
    * EXCLUDE (tries, try_ids),
    CASE WHEN tries >= 3 THEN 'medium' ELSE 'low' END AS severity,
    concat(event_name, ' was refused', CASE WHEN tries > 1 THEN concat(', ', tries, ' such calls within 10 minutes') ELSE '' END) AS summary,
    try_ids AS event_ids,
    concat('refused ', principal) AS whose
  FROM refused
  WHERE event_name = 'CreateUser' OR tries >= 3
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  user_named AS target,
  summary,
  severity,
  event_ids,
  whose
FROM found
