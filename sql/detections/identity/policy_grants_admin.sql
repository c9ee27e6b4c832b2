-- ---
-- title        = "Policy Grants Admin"
-- severity     = "high"
-- attack       = [
--   { id = "T1098.003", why = "whoever the policy is attached to administers the account" },
--   { id = "T1548.005", why = "a right to change rights is as good as all rights" },
-- ]
-- about        = "A policy was written that allows everything, or allows to give oneself everything: read statement by statement, with wildcards, NotAction, NotResource and Deny."
-- benign       = [
--   "Roles of infrastructure as code are administrators by nature: list those who write them in trusted_principals",
--   "Delegated administration inside a permissions boundary is no finding",
-- ]
-- event_names  = ["PutUserPolicy", "PutRolePolicy", "PutGroupPolicy", "CreatePolicy", "CreatePolicyVersion", "SetDefaultPolicyVersion"]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- runbook      = """
-- 1. Read the policy: SELECT json_extract_string(request_parameters, '$.policyDocument') FROM events WHERE event_id = '…'.
-- 2. Whom does it reach? aws iam list-entities-for-policy --policy-arn …; an inline policy belongs to the target.
-- 3. If it was not wanted: put the former version back (aws iam set-default-policy-version), or delete the inline policy.
-- 4. What was done with it? SELECT * FROM events WHERE principal = '…' AND is_write ORDER BY event_time.
-- 5. Narrow it to what is used: aws accessanalyzer start-policy-generation.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html",
--   "https://rhinosecuritylabs.com/aws/aws-privilege-escalation-methods-mitigation/",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that write policies as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    policy_document(request_parameters, '$.policyDocument') AS document,
    coalesce(
      json_extract_string(request_parameters, '$.userName'),
      json_extract_string(request_parameters, '$.roleName'),
      json_extract_string(request_parameters, '$.groupName'),
      last_part(json_extract_string(request_parameters, '$.policyArn')),
      json_extract_string(request_parameters, '$.policyName')) AS whose
  FROM events
  WHERE event_source = 'iam.amazonaws.com'
    AND event_name IN ('PutUserPolicy', 'PutRolePolicy', 'PutGroupPolicy', 'CreatePolicy', 'CreatePolicyVersion', 'SetDefaultPolicyVersion')
    AND success
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
),
read AS (
  SELECT
    *,
    policy_power(document) AS power,
    -- A policy that nobody has yet, or a version that is not in force.
    event_name = 'CreatePolicy' OR (event_name = 'CreatePolicyVersion'
      AND coalesce(lower(json_extract_string(request_parameters, '$.setAsDefault')), 'false') <> 'true') AS idle
  FROM calls
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  whose AS target,
  CASE power
    WHEN 'everything' THEN concat('A policy of ', whose, ' allows everything')
    WHEN 'rights' THEN concat('A policy of ', whose, ' allows to change anybody''s rights')
    WHEN 'power' THEN concat('A policy of ', whose, ' allows everything but to change rights')
    ELSE concat('Another version of ', whose, ' was put in force')
  END AS summary,
  CASE
    WHEN list_contains(getvariable('policy_grants_admin_trusted_principals'), principal) OR power IS NULL THEN 'low'
    WHEN power = 'power' THEN CASE WHEN idle THEN 'low' ELSE 'medium' END
    WHEN idle OR user_invoked_by = 'cloudformation.amazonaws.com' THEN 'medium'
    ELSE 'high'
  END AS severity
FROM read
WHERE power IS NOT NULL OR event_name = 'SetDefaultPolicyVersion'
