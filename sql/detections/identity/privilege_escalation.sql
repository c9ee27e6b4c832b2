-- ---
-- title        = "Privilege Escalation"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.003", why = "the actor gives itself, or an identity it takes over, more rights" },
--   { id = "T1548.005", why = "a role was made to trust the actor, and assumed at once" },
--   { id = "T1098.001", why = "an administrator's account was given a new key or password" },
-- ]
-- about        = "Somebody climbs: gives rights to themselves, makes another user an administrator and takes its keys, opens a role and assumes it, or tries one call after the other until one works."
-- benign       = [
--   "Infrastructure as code that manages its own role: list it in trusted_principals",
--   "An administrator who tests a new role's trust policy",
--   "A new user who is made an administrator and given a key (low: IAM User Created reports it)",
-- ]
-- event_names  = [
--   "AttachUserPolicy", "PutUserPolicy", "AddUserToGroup", "DeleteUserPermissionsBoundary", "AttachRolePolicy", "PutRolePolicy",
--   "DeleteRolePermissionsBoundary", "AttachGroupPolicy", "PutGroupPolicy", "CreatePolicyVersion", "SetDefaultPolicyVersion",
--   "UpdateAssumeRolePolicy", "CreateAccessKey", "CreateLoginProfile", "UpdateLoginProfile", "CreateUser", "AssumeRole",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- needs        = "calls"
-- lookback     = "60m"
-- runbook      = """
-- 1. List the steps: SELECT event_time, event_name, error_code, request_parameters FROM events WHERE principal = '…' AND event_source IN ('iam.amazonaws.com', 'sts.amazonaws.com') ORDER BY event_time.
-- 2. Ask the actor's owner. If it was not them, its credentials are stolen: deactivate the key or revoke the role's sessions.
-- 3. Undo each step: detach the policy, delete the key and login profile, put the former trust policy and version back.
-- 4. What was done with the rights? SELECT * FROM events WHERE principal IN ('…', '…') AND is_write AND event_time > '…'.
-- 5. Take the right that made it possible from the actor: iam:*, iam:Put*, iam:Attach*, iam:UpdateAssumeRolePolicy.
-- """
-- references   = [
--   "https://rhinosecuritylabs.com/aws/aws-privilege-escalation-methods-mitigation/",
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage their own rights as their work: at most low"
--
-- [params.admin_policies]
-- type    = "list[str]"
-- default = ["AdministratorAccess", "IAMFullAccess"]
-- about   = "Policies that administer the account, by name"
--
-- [params.refusals]
-- type    = "int"
-- default = 3
-- about   = "Refused calls to change rights, of two kinds at least, within an hour before one that works"
-- ---
WITH opened_roles AS MATERIALIZED (
  SELECT DISTINCT json_extract_string(request_parameters, '$.roleName') AS role
  FROM events
  WHERE event_source = 'iam.amazonaws.com' AND event_name = 'UpdateAssumeRolePolicy'
),
calls AS (
  SELECT * FROM events
  WHERE (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    -- AWS puts a leaked key's user into quarantine in that user's own name: Access Key Leaked reports it.
    AND NOT coalesce(regexp_matches(json_extract_string(request_parameters, '$.policyArn'), '^arn:aws[^:]*:iam::aws:policy/(.*/)?AWSCompromisedKeyQuarantine'), false)
    AND NOT coalesce(json_extract_string(request_parameters, '$.policyName') = 'AWSExposedCredentialPolicy_DO_NOT_REMOVE', false)
    AND ((event_source = 'iam.amazonaws.com' AND event_name IN (
        'AttachUserPolicy', 'PutUserPolicy', 'AddUserToGroup', 'DeleteUserPermissionsBoundary', 'AttachRolePolicy', 'PutRolePolicy',
        'DeleteRolePermissionsBoundary', 'AttachGroupPolicy', 'PutGroupPolicy', 'CreatePolicyVersion', 'SetDefaultPolicyVersion',
        'UpdateAssumeRolePolicy', 'CreateAccessKey', 'CreateLoginProfile', 'UpdateLoginProfile', 'CreateUser'))
      -- Roles are assumed all the time: only those that somebody opened matter.
      OR (event_source = 'sts.amazonaws.com' AND event_name = 'AssumeRole' AND success
        AND last_part(json_extract_string(request_parameters, '$.roleArn')) IN (SELECT role FROM opened_roles)))
),
steps AS MATERIALIZED (
  SELECT
    *,
    lower(coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(request_parameters, '$.roleName'),
      json_extract_string(request_parameters, '$.groupName'),
      last_part(json_extract_string(request_parameters, '$.roleArn')))) AS whom,
    CASE
      WHEN event_name = 'CreateUser' THEN 'new user'
      WHEN event_name IN ('CreateAccessKey', 'CreateLoginProfile', 'UpdateLoginProfile') THEN 'way in'
      WHEN event_name = 'UpdateAssumeRolePolicy' THEN 'trust'
      WHEN event_name = 'AssumeRole' THEN 'assumed'
      ELSE 'rights'
    END AS what,
    coalesce(list_contains(getvariable('privilege_escalation_admin_policies'), last_part(json_extract_string(request_parameters, '$.policyArn'))), false)
      OR CASE WHEN event_name IN ('PutUserPolicy', 'PutRolePolicy', 'PutGroupPolicy')
        THEN coalesce(policy_power(policy_document(request_parameters, '$.policyDocument')) IN ('everything', 'rights'), false)
        ELSE false END AS admin
  FROM calls
),
-- What the same hand did within the hour before.
climbed AS (
  SELECT
    s.*,
    s.what IN ('rights', 'trust') AND (
      is_same_user(s.user_type, s.user_name, s.user_arn, json_extract_string(s.request_parameters, '$.userName'))
      OR coalesce(lower(json_extract_string(s.request_parameters, '$.roleName')) = lower(s.issuer_user_name), false)) AS own,
    b.*,
    b.partners IS NOT NULL AS taken
  FROM steps AS s
  LEFT JOIN LATERAL (
    SELECT
      list(p.event_id) FILTER (p.what = 'new user' AND p.success AND p.whom = s.whom) AS new_users,
      list(p.event_id) FILTER (p.success AND p.whom = s.whom AND (
        (s.what = 'way in' AND p.admin) OR (s.admin AND p.what = 'way in'))) AS partners,
      list(p.event_id) FILTER (s.what = 'assumed' AND p.what = 'trust' AND p.success AND p.whom = s.whom) AS opened,
      list(p.event_id) FILTER (p.denied) AS refused,
      count(DISTINCT p.event_name) FILTER (p.denied) AS kinds
    FROM steps AS p
    WHERE p.account = s.account AND p.principal = s.principal
      AND p.event_time BETWEEN s.event_time - INTERVAL 60 MINUTE AND s.event_time
  ) AS b ON true
  WHERE s.success AND s.what <> 'new user'
),
flagged AS (
  SELECT
    *,
    what <> 'assumed' AND coalesce(len(refused), 0) >= getvariable('privilege_escalation_refusals') AND kinds >= 2 AS tried
  FROM climbed
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(whom, last_part(json_extract_string(request_parameters, '$.policyArn'))) AS target,
  concat(
    CASE
      WHEN taken THEN concat(whom, ' was made an administrator and given a key or password')
      WHEN own AND admin THEN concat(last_part(principal), ' made itself an administrator')
      WHEN own THEN concat(last_part(principal), ' changed its own rights: ', event_name)
      WHEN opened IS NOT NULL THEN concat(last_part(principal), ' let itself into ', whom, ' and assumed it')
      ELSE concat(event_name, ' worked')
    END,
    CASE WHEN tried THEN concat(' after ', len(refused), ' refused calls') ELSE '' END) AS summary,
  CASE
    WHEN list_contains(getvariable('privilege_escalation_trusted_principals'), principal) THEN 'low'
    WHEN own AND (admin OR tried) THEN 'critical'
    -- A user that was only just created is not taken over: IAM User Created reports it.
    WHEN taken THEN CASE WHEN new_users IS NULL THEN 'critical' WHEN tried THEN 'high' ELSE 'low' END
    WHEN tried OR opened IS NOT NULL THEN 'high'
    ELSE 'medium'
  END AS severity,
  list_concat([event_id],
    CASE WHEN taken THEN list_concat(partners, coalesce(new_users, [])) ELSE [] END, coalesce(opened, []), CASE WHEN tried THEN refused ELSE [] END) AS event_ids
FROM flagged
WHERE own OR taken OR tried OR opened IS NOT NULL
