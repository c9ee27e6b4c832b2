-- ---
-- title        = "Role Trusts Outsiders"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.001", why = "whoever holds the trusted account comes back as this role, with no key of yours" },
--   { id = "T1484.002", why = "trust between accounts was changed" },
-- ]
-- about        = "A role may be assumed by everybody, by an account or organization that is not yours, or by any customer of a public identity provider."
-- benign       = [
--   "A vendor's role, with an external id: list its account in trusted_accounts",
--   "Accounts of yours that kyra-etl does not know: list them in trusted_accounts, or your organization in trusted_organizations",
-- ]
-- event_names  = ["CreateRole", "UpdateAssumeRolePolicy"]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- runbook      = """
-- 1. Whose account is it? Ask the role's owner; look for it among your vendors and your organization's accounts.
-- 2. Was the role assumed from there? SELECT * FROM events WHERE event_name = 'AssumeRole' AND request_parameters LIKE '%<role>%' AND user_account_id <> account.
-- 3. What may it do? aws iam list-attached-role-policies, list-role-policies.
-- 4. If it was not wanted: put the former trust policy back, then end its sessions (Revoke active sessions).
-- 5. Look at the rest of what the actor did: SELECT * FROM events WHERE principal = '…' ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-backdoor-role/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.iam-create-backdoor-role/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts roles may trust, besides those kyra-etl is set up for: no finding"
--
-- [params.trusted_organizations]
-- type    = "list[str]"
-- default = []
-- about   = "Your organizations (o-…): others are outsiders. Empty: any organization that a policy names is taken for yours"
-- ---
WITH written AS (
  SELECT
    *,
    json_extract_string(request_parameters, '$.roleName') AS role,
    coalesce(
      policy_document(request_parameters, '$.policyDocument'),
      policy_document(request_parameters, '$.assumeRolePolicyDocument'),
      policy_document(response_elements, '$.role.assumeRolePolicyDocument')) AS trust
  FROM events
  WHERE event_source = 'iam.amazonaws.com' AND event_name IN ('CreateRole', 'UpdateAssumeRolePolicy')
    AND success
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
statements AS (
  SELECT w.account, w.event_id, k.own, unnest(policy_statements(w.trust)) AS statement
  FROM written AS w, known AS k
),
outside AS (
  SELECT
    account,
    event_id,
    bool_or(trusts_anyone(statement)) AS anyone,
    bool_or(trusts_any_customer(statement)) AS any_customer,
    list_sort(list_distinct(flatten(list(foreign_accounts(
      trusted_accounts(statement), account, own, getvariable('role_trusts_outsiders_trusted_accounts')))))) AS strangers,
    list_sort(list_distinct(flatten(list(list_filter(trusted_organizations(statement), lambda o:
      len(getvariable('role_trusts_outsiders_trusted_organizations')) > 0
      AND NOT list_contains(getvariable('role_trusts_outsiders_trusted_organizations'), o)))))) AS organizations,
    -- Every way in for outsiders asks for an external id.
    bool_and(statement_wants_external_id(statement)) FILTER (trusts_anyone(statement) OR len(foreign_accounts(
      trusted_accounts(statement), account, own, getvariable('role_trusts_outsiders_trusted_accounts'))) > 0) AS agreed
  FROM statements
  GROUP BY account, event_id
)
SELECT
  w.event_id,
  w.event_time,
  w.account,
  w.aws_region AS region,
  w.principal AS actor,
  w.source_ip_address AS source_ip,
  w.role AS target,
  concat(coalesce(w.role, 'A role'), ' may be assumed by ',
    CASE
      WHEN o.anyone THEN 'everybody'
      WHEN o.any_customer THEN 'every customer of an identity provider'
      WHEN len(o.strangers) > 0 THEN concat('account ', array_to_string(o.strangers, ', '))
      ELSE concat('organization ', array_to_string(o.organizations, ', '))
    END,
    CASE WHEN o.agreed AND NOT o.any_customer THEN ' with an external id' ELSE '' END) AS summary,
  CASE
    WHEN o.anyone THEN CASE WHEN o.agreed THEN 'high' ELSE 'critical' END
    WHEN o.any_customer OR len(o.organizations) > 0 THEN 'high'
    WHEN NOT o.agreed THEN 'high'
    -- A vendor's set-up makes a new role; an existing one that learns to trust is odder.
    WHEN w.event_name = 'CreateRole' THEN 'low'
    ELSE 'medium'
  END AS severity
FROM written AS w
JOIN outside AS o USING (account, event_id)
WHERE o.anyone OR o.any_customer OR len(o.strangers) > 0 OR len(o.organizations) > 0
