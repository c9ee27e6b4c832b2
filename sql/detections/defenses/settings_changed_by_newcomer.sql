-- ---
-- title        = "Settings Changed By Newcomer"
-- severity     = "info"
-- attack       = [
--   { id = "T1098", why = "permissions are what an intruder widens to stay" },
--   { id = "T1686.001", why = "security groups, network ACLs, routes and gateways are the cloud's firewall" },
-- ]
-- about        = "Permissions, bucket policies or the network were changed by somebody who did not do so in the last 30 days: what auditors ask to have watched. What is dangerous in itself has a detection of its own."
-- benign       = ["Nearly all of it: read it beside other alerts, or to know who changes what; deployments are known from the second day on"]
-- event_names  = [
--   "CreatePolicy", "CreatePolicyVersion", "DeletePolicy", "DeletePolicyVersion", "PutUserPolicy", "PutRolePolicy",
--   "PutGroupPolicy", "DeleteUserPolicy", "DeleteRolePolicy", "DeleteGroupPolicy", "AttachUserPolicy",
--   "AttachRolePolicy", "AttachGroupPolicy", "DetachUserPolicy", "DetachRolePolicy", "DetachGroupPolicy",
--   "PutBucketAcl", "PutBucketPolicy", "DeleteBucketPolicy", "PutBucketCors", "DeleteBucketCors",
--   "PutBucketLifecycle", "DeleteBucketLifecycle", "PutBucketReplication", "DeleteBucketReplication",
--   "DeleteBucket", "CreateSecurityGroup", "DeleteSecurityGroup", "AuthorizeSecurityGroupIngress",
--   "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress",
--   "ModifySecurityGroupRules", "CreateNetworkAcl", "DeleteNetworkAcl", "CreateNetworkAclEntry",
--   "DeleteNetworkAclEntry", "ReplaceNetworkAclEntry", "ReplaceNetworkAclAssociation", "CreateCustomerGateway",
--   "DeleteCustomerGateway", "CreateInternetGateway", "DeleteInternetGateway", "AttachInternetGateway",
--   "DetachInternetGateway", "CreateRoute", "ReplaceRoute", "DeleteRoute", "CreateRouteTable", "DeleteRouteTable",
--   "ReplaceRouteTableAssociation", "DisassociateRouteTable", "CreateVpc", "DeleteVpc", "ModifyVpcAttribute",
--   "CreateVpcPeeringConnection", "AcceptVpcPeeringConnection", "RejectVpcPeeringConnection",
--   "DeleteVpcPeeringConnection",
-- ]
-- group_by     = ["account", "caller", "kind"]
-- group_window = "24h"
-- only_named   = true
-- baseline     = "30d"
-- runbook      = """
-- 1. What was changed? SELECT event_time, event_name, request_parameters FROM events WHERE account = '…' AND principal = '…' AND is_write AND success ORDER BY event_time.
-- 2. Does a ticket or a deployment say why? If the caller deploys as its work, list it in trusted_principals.
-- 3. Look for other alerts about the same actor: SELECT first_seen, severity, detection, summary FROM alerts WHERE actor = '…' ORDER BY first_seen.
-- """
-- references   = [
--   "https://www.cisecurity.org/benchmark/amazon_web_services",
--   "https://docs.aws.amazon.com/securityhub/latest/userguide/cloudwatch-controls.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH watched AS (
  -- The calls that the CIS AWS Foundations Benchmark asks to have watched, and bucket deletions: without data events
  -- nothing else shows that the objects are gone.
  SELECT kind, source, unnest(names) AS name
  FROM (VALUES
    ('permissions', 'iam.amazonaws.com', [
      'CreatePolicy', 'CreatePolicyVersion', 'DeletePolicy', 'DeletePolicyVersion', 'PutUserPolicy', 'PutRolePolicy',
      'PutGroupPolicy', 'DeleteUserPolicy', 'DeleteRolePolicy', 'DeleteGroupPolicy', 'AttachUserPolicy',
      'AttachRolePolicy', 'AttachGroupPolicy', 'DetachUserPolicy', 'DetachRolePolicy', 'DetachGroupPolicy']),
    ('buckets', 's3.amazonaws.com', [
      'PutBucketAcl', 'PutBucketPolicy', 'DeleteBucketPolicy', 'PutBucketCors', 'DeleteBucketCors',
      'PutBucketLifecycle', 'DeleteBucketLifecycle', 'PutBucketReplication', 'DeleteBucketReplication', 'DeleteBucket']),
    ('security groups', 'ec2.amazonaws.com', [
      'CreateSecurityGroup', 'DeleteSecurityGroup', 'AuthorizeSecurityGroupIngress', 'AuthorizeSecurityGroupEgress',
      'RevokeSecurityGroupIngress', 'RevokeSecurityGroupEgress', 'ModifySecurityGroupRules']),
    ('network ACLs', 'ec2.amazonaws.com', [
      'CreateNetworkAcl', 'DeleteNetworkAcl', 'CreateNetworkAclEntry', 'DeleteNetworkAclEntry',
      'ReplaceNetworkAclEntry', 'ReplaceNetworkAclAssociation']),
    ('gateways', 'ec2.amazonaws.com', [
      'CreateCustomerGateway', 'DeleteCustomerGateway', 'CreateInternetGateway', 'DeleteInternetGateway',
      'AttachInternetGateway', 'DetachInternetGateway']),
    ('routes', 'ec2.amazonaws.com', [
      'CreateRoute', 'ReplaceRoute', 'DeleteRoute', 'CreateRouteTable', 'DeleteRouteTable',
      'ReplaceRouteTableAssociation', 'DisassociateRouteTable']),
    ('networks', 'ec2.amazonaws.com', [
      'CreateVpc', 'DeleteVpc', 'ModifyVpcAttribute', 'CreateVpcPeeringConnection', 'AcceptVpcPeeringConnection',
      'RejectVpcPeeringConnection', 'DeleteVpcPeeringConnection'])
  ) AS kinds (kind, source, names)
),
changes AS (
  SELECT e.*, caller_of(e.principal, e.actor_kind, e.session_name) AS caller, w.kind
  FROM events AS e
  JOIN watched AS w ON w.source = e.event_source AND w.name = e.event_name
  WHERE e.event_source IN ('iam.amazonaws.com', 's3.amazonaws.com', 'ec2.amazonaws.com')
    AND e.success
    AND NOT by_aws_itself(e.actor_kind, e.user_type, e.event_type, e.issuer_arn)
    AND NOT list_contains(getvariable('settings_changed_by_newcomer_trusted_principals'), e.principal)
),
habits AS MATERIALIZED (
  SELECT a.account, a.principal, w.kind, min(a.date) AS begun
  FROM activity AS a
  JOIN watched AS w ON w.source = a.event_source AND w.name = a.event_name
  WHERE (a.account, a.principal) IN (SELECT (account, principal) FROM changes) AND a.success
  GROUP BY ALL
)
SELECT
  c.event_id,
  c.event_time,
  c.account,
  c.aws_region AS region,
  c.principal AS actor,
  c.source_ip_address AS source_ip,
  c.kind AS target,
  concat(last_part(c.caller), ', who did not change ', c.kind, ' in the last 30 days, did so: ', c.event_name) AS summary,
  c.caller,
  c.kind
FROM changes AS c
LEFT JOIN habits AS h USING (account, principal, kind)
WHERE coalesce(h.begun >= c.date, true)
