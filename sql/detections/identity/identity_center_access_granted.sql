-- ---
-- title        = "Identity Center Access Granted"
-- severity     = "medium"
-- attack       = [
--   { id = "T1098.003", why = "a permission set opens accounts of the whole organization" },
--   { id = "T1136.003", why = "a new user of the directory is nobody's until somebody looks" },
-- ]
-- about        = "In IAM Identity Center a permission set became an administrator's, somebody was let into an account, or a user was created or their password reset."
-- benign       = [
--   "Joiners and movers: a group's assignment, a new user or member is low; prefer groups",
--   "Infrastructure as code: list its roles in trusted_principals",
-- ]
-- event_names  = [
--   "CreateAccountAssignment", "AttachManagedPolicyToPermissionSet", "AttachCustomerManagedPolicyReferenceToPermissionSet",
--   "PutInlinePolicyToPermissionSet", "DeletePermissionsBoundaryFromPermissionSet",
--   "CreateUser", "AddMemberToGroup", "CreateGroupMembership", "UpdatePassword",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- lookback     = "60m"
-- runbook      = """
-- 1. Ask the actor and the person who was let in. Is there a ticket?
-- 2. What does the permission set allow? aws sso-admin list-managed-policies-in-permission-set, get-inline-policy-for-permission-set.
-- 3. Where is it assigned? aws sso-admin list-account-assignments; SELECT * FROM events WHERE event_name = 'CreateAccountAssignment' ORDER BY event_time.
-- 4. If it was not wanted: delete the assignment, detach the policy, provision the permission set again, disable the user, end its sessions.
-- 5. What was done with it? SELECT * FROM events WHERE actor_kind = 'sso' AND session_name = '…' ORDER BY event_time. Look in all accounts.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/singlesignon/latest/APIReference/API_CreateAccountAssignment.html",
--   "https://docs.aws.amazon.com/singlesignon/latest/userguide/sso-info-in-cloudtrail.html",
-- ]
--
-- [params.admin_policies]
-- type    = "list[str]"
-- default = ["AdministratorAccess", "IAMFullAccess"]
-- about   = "Policies that administer an account, by name"
--
-- [params.power_policies]
-- type    = "list[str]"
-- default = ["PowerUserAccess", "SystemAdministrator"]
-- about   = "Policies that come close to it: medium"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage access as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.permissionSetArn') AS permission_set,
    coalesce(
      last_part(json_extract_string(request_parameters, '$.managedPolicyArn')),
      json_extract_string(request_parameters, '$.customerManagedPolicyReference.name')) AS policy,
    policy_power(policy_document(request_parameters, '$.inlinePolicy')) AS power,
    coalesce(
      json_extract_string(request_parameters, '$.principalId'),
      json_extract_string(request_parameters, '$.userId'),
      json_extract_string(request_parameters, '$.memberId.userId'),
      json_extract_string(request_parameters, '$.member.memberId'),
      json_extract_string(request_parameters, '$.memberId'),
      json_extract_string(response_elements, '$.user.userId'),
      json_extract_string(response_elements, '$.userId'),
      json_extract_string(request_parameters, '$.userName')) AS person
  FROM events
  WHERE (success OR denied)
    AND actor_kind <> 'aws_service'
    AND ((event_source = 'sso.amazonaws.com' AND event_name IN (
        'CreateAccountAssignment', 'AttachManagedPolicyToPermissionSet', 'AttachCustomerManagedPolicyReferenceToPermissionSet',
        'PutInlinePolicyToPermissionSet', 'DeletePermissionsBoundaryFromPermissionSet'))
      OR (event_source IN ('sso-directory.amazonaws.com', 'identitystore.amazonaws.com') AND event_name IN (
        'CreateUser', 'AddMemberToGroup', 'CreateGroupMembership', 'UpdatePassword')))
),
rated AS (
  SELECT
    *,
    CASE
      WHEN event_name LIKE 'Attach%' THEN CASE
        WHEN list_contains(getvariable('identity_center_access_granted_admin_policies'), policy) THEN 'high'
        WHEN list_contains(getvariable('identity_center_access_granted_power_policies'), policy) THEN 'medium' END
      WHEN event_name = 'PutInlinePolicyToPermissionSet' THEN CASE WHEN power IN ('everything', 'rights') THEN 'high' WHEN power = 'power' THEN 'medium' END
      WHEN event_name = 'DeletePermissionsBoundaryFromPermissionSet' THEN 'medium'
      WHEN event_name = 'CreateAccountAssignment'
        THEN CASE WHEN json_extract_string(request_parameters, '$.principalType') = 'GROUP' THEN 'low' ELSE 'medium' END
      -- Shown to whoever resets it, not mailed to its owner.
      WHEN event_name = 'UpdatePassword' THEN CASE WHEN json_extract_string(request_parameters, '$.passwordMode') = 'OTP' THEN 'medium' ELSE 'low' END
      ELSE 'low'
    END AS rating
  FROM calls
),
-- Within the hour before, the same hand created the user, or gave the permission set its rights.
judged AS (
  SELECT r.*, p.ids
  FROM rated AS r
  LEFT JOIN LATERAL (
    SELECT list(e.event_id) AS ids
    FROM rated AS e
    WHERE e.account = r.account AND e.principal = r.principal AND e.success AND r.event_name = 'CreateAccountAssignment'
      AND e.event_time BETWEEN r.event_time - INTERVAL 60 MINUTE AND r.event_time
      AND ((e.event_name = 'CreateUser' AND e.person = r.person) OR (e.rating = 'high' AND e.permission_set = r.permission_set))
  ) AS p ON true
  WHERE r.rating IS NOT NULL
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(person, last_part(permission_set), 'IAM Identity Center') AS target,
  concat(
    CASE
      WHEN event_name = 'CreateAccountAssignment' THEN concat(coalesce(person, 'Somebody'), ' was let into account ',
        json_extract_string(request_parameters, '$.targetId'),
        CASE WHEN ids IS NOT NULL THEN ', right after the user or the permission set was made for it' ELSE '' END)
      WHEN event_name LIKE 'Attach%' THEN concat('A permission set was given ', policy)
      WHEN event_name = 'PutInlinePolicyToPermissionSet' THEN 'A permission set was given an administrator''s policy'
      WHEN event_name = 'DeletePermissionsBoundaryFromPermissionSet' THEN 'A permission set lost its boundary'
      WHEN event_name = 'UpdatePassword' THEN concat('The password of ', person, ' was reset')
      WHEN event_name = 'CreateUser' THEN concat('The user ', person, ' was created')
      ELSE concat(coalesce(person, 'Somebody'), ' joined a group')
    END,
    CASE WHEN denied THEN '; it was refused' ELSE '' END) AS summary,
  CASE
    WHEN denied OR list_contains(getvariable('identity_center_access_granted_trusted_principals'), principal) THEN 'low'
    WHEN ids IS NOT NULL THEN 'high'
    ELSE rating
  END AS severity,
  list_append(coalesce(ids, []), event_id) AS event_ids
FROM judged
