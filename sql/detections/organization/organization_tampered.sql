-- ---
-- title        = "Organization Tampered"
-- severity     = "high"
-- attack       = [
--   { id = "T1666", why = "an account outside the organization, or without its policies, is nobody's to restrain" },
--   { id = "T1685", why = "service control policies and delegated administrators are what defends member accounts" },
--   { id = "T1136.003", why = "an account was created or brought in" },
-- ]
-- about        = "An account left or was moved in the organization, or the policies that restrain accounts were taken off."
-- benign       = [
--   "Account vending and the landing zone's pipeline: list their roles in trusted_principals",
--   "Closing an account, with a ticket",
-- ]
-- event_names  = [
--   "LeaveOrganization", "RemoveAccountFromOrganization", "DeleteOrganization", "CloseAccount", "AcceptHandshake",
--   "InviteAccountToOrganization", "CreateAccount", "CreateGovCloudAccount", "MoveAccount",
--   "DetachPolicy", "DisablePolicyType", "DeletePolicy", "UpdatePolicy",
--   "DisableAWSServiceAccess", "RegisterDelegatedAdministrator", "DeregisterDelegatedAdministrator",
--   "DisableOrganizationsRootCredentialsManagement", "DisableOrganizationsRootSessions",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- runbook      = """
-- 1. Is the account still in the organization? From the management account: aws organizations describe-account --account-id …; if not, its log files may stop: invite it again at once.
-- 2. Which policies hold now? aws organizations list-policies-for-target --target-id … --filter SERVICE_CONTROL_POLICY; attach what is missing.
-- 3. Who is the actor, and what else did it do? SELECT event_time, account, event_source, event_name, error_code FROM events WHERE principal = '…' ORDER BY event_time.
-- 4. What happened in the account since it was unrestrained? SELECT event_name, count(*) FROM events WHERE account = '…' AND is_write AND event_time > '…' GROUP BY ALL.
-- 5. Deny organizations:LeaveOrganization by a service control policy on the root.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.organizations-leave/",
--   "https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_leave-as-member.html",
--   "https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage the organization as their work: at most low, unless an account leaves it"
-- ---
WITH calls AS (
  SELECT
    *,
    CASE
      WHEN event_name IN ('LeaveOrganization', 'DeleteOrganization') THEN 'critical'
      WHEN event_name IN ('RemoveAccountFromOrganization', 'CloseAccount', 'AcceptHandshake', 'DetachPolicy', 'DisablePolicyType',
        'DisableOrganizationsRootCredentialsManagement', 'DisableOrganizationsRootSessions') THEN 'high'
      WHEN event_name IN ('InviteAccountToOrganization', 'CreateAccount', 'CreateGovCloudAccount', 'MoveAccount',
        'DeletePolicy', 'UpdatePolicy', 'DisableAWSServiceAccess', 'RegisterDelegatedAdministrator', 'DeregisterDelegatedAdministrator')
        THEN 'medium'
    END AS weight,
    event_name IN ('LeaveOrganization', 'DeleteOrganization', 'RemoveAccountFromOrganization', 'CloseAccount') AS leaving
  FROM events
  WHERE (event_source = 'organizations.amazonaws.com'
      OR event_source = 'account.amazonaws.com' AND event_name = 'CloseAccount'
      OR event_source = 'iam.amazonaws.com' AND event_name IN ('DisableOrganizationsRootCredentialsManagement', 'DisableOrganizationsRootSessions'))
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(
    json_extract_string(request_parameters, '$.accountId'),
    json_extract_string(request_parameters, '$.targetId'),
    json_extract_string(request_parameters, '$.policyId'),
    json_extract_string(request_parameters, '$.target.id'),
    json_extract_string(request_parameters, '$.servicePrincipal'),
    last_part(json_extract_string(request_parameters, '$.handshakeId')),
    account) AS target,
  concat(
    CASE event_name
      WHEN 'LeaveOrganization' THEN concat('Account ', account, ' left its organization')
      WHEN 'AcceptHandshake' THEN concat('Account ', account, ' joined an organization')
      ELSE concat('The organization was changed by ', event_name)
    END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT leaving AND list_contains(getvariable('organization_tampered_trusted_principals'), principal) THEN 'low'
    WHEN success THEN weight
    ELSE one_below(weight)
  END AS severity
FROM calls
WHERE weight IS NOT NULL
  -- Whoever tries to leave fails for many reasons; the wish is what counts.
  AND (success OR denied OR leaving)
