-- ---
-- title        = "Admin Policy Attached"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.003", why = "the user, group or role administers the account from now on" },
--   { id = "T1078.004", why = "whoever holds that identity holds the account" },
-- ]
-- about        = "A user, group or role was given a policy that administers the account, or somebody joined the administrators."
-- benign       = [
--   "Setting up an account or a new administrator, with a ticket",
--   "Infrastructure as code: list its roles in trusted_principals; through CloudFormation it is medium",
-- ]
-- event_names  = ["AttachUserPolicy", "AttachRolePolicy", "AttachGroupPolicy", "AddUserToGroup"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- runbook      = """
-- 1. Who is it that administers the account now, and did their owner ask for it?
-- 2. What was done with the new rights? SELECT * FROM events WHERE principal LIKE '%/<name>' AND is_write ORDER BY event_time.
-- 3. If it was not wanted: aws iam detach-user-policy (detach-role-policy, detach-group-policy, remove-user-from-group).
-- 4. Then the actor: SELECT * FROM events WHERE principal = '…' ORDER BY event_time. New keys, users, roles?
-- 5. Who may attach policies at all? Give that right only with a permissions boundary.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_job-functions.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-create-admin-user/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-create-backdoor-role/",
-- ]
--
-- [params.admin_policies]
-- type    = "list[str]"
-- default = ["AdministratorAccess", "IAMFullAccess"]
-- about   = "Policies that administer the account, by name"
--
-- [params.power_policies]
-- type    = "list[str]"
-- default = ["PowerUserAccess", "SystemAdministrator", "AdministratorAccess-Amplify", "AdministratorAccess-AWSElasticBeanstalk"]
-- about   = "Policies that come close to it: medium"
--
-- [params.admin_groups]
-- type    = "list[str]"
-- default = ["admin", "admins", "administrator", "administrators"]
-- about   = "Groups (lower case) whose members administer the account: joining them is medium"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that give out rights as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    last_part(json_extract_string(request_parameters, '$.policyArn')) AS policy,
    json_extract_string(request_parameters, '$.groupName') AS group_named,
    coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(request_parameters, '$.roleName'),
      json_extract_string(request_parameters, '$.groupName'),
      refused_target(error_message)) AS whom
  FROM events
  WHERE event_source = 'iam.amazonaws.com'
    AND event_name IN ('AttachUserPolicy', 'AttachRolePolicy', 'AttachGroupPolicy', 'AddUserToGroup')
    AND (success OR denied)
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
rated AS (
  SELECT
    *,
    CASE
      -- A refused call says not which policy: only whose.
      WHEN denied AND policy IS NULL AND event_name <> 'AddUserToGroup' THEN 'low'
      WHEN event_name = 'AddUserToGroup'
        THEN CASE WHEN list_contains(getvariable('admin_policy_attached_admin_groups'), lower(group_named)) THEN 'medium' END
      WHEN list_contains(getvariable('admin_policy_attached_admin_policies'), policy) THEN 'high'
      WHEN list_contains(getvariable('admin_policy_attached_power_policies'), policy) THEN 'medium'
    END AS rating
  FROM calls
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  whom AS target,
  concat(
    CASE WHEN event_name = 'AddUserToGroup' THEN concat(whom, ' joined ', group_named)
      ELSE concat(coalesce(policy, 'A policy'), ' was attached to ', whom) END,
    CASE WHEN denied THEN '; it was refused' ELSE '' END) AS summary,
  CASE
    WHEN denied THEN 'low'
    WHEN list_contains(getvariable('admin_policy_attached_trusted_principals'), principal) THEN 'low'
    WHEN user_invoked_by = 'cloudformation.amazonaws.com' THEN at_most(rating, 'medium')
    ELSE rating
  END AS severity
FROM rated
WHERE rating IS NOT NULL
