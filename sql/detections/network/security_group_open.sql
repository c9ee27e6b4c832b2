-- ---
-- title         = "Security Group Open"
-- severity      = "high"
-- attack        = [
--   { id = "T1686.001", why = "a firewall rule was widened to the internet" },
--   { id = "T1133", why = "a remote service can now be reached from anywhere" },
--   { id = "T1190", why = "whatever listens behind it is exposed" },
-- ]
-- attack_legacy = ["T1562.007"]
-- about         = "A security group now lets in the whole internet, or a large part of it."
-- benign        = [
--   "Public load balancers and web servers on 80 and 443 (rated low: low_ports)",
--   "Groups that are meant to be public: list them in public_groups",
--   "Opened and taken back within 15 minutes by the same principal (rated low)",
-- ]
-- event_names   = [
--   "AuthorizeSecurityGroupIngress", "ModifySecurityGroupRules", "RevokeSecurityGroupIngress",
--   "AuthorizeDBSecurityGroupIngress", "AuthorizeClusterSecurityGroupIngress",
-- ]
-- group_by      = ["account", "region", "target", "opened"]
-- group_window  = "24h"
-- only_named    = true
-- lookback      = "15m"
-- runbook       = """
-- 1. What is attached to the group, and does any of it have a public address?
-- 2. Close it: aws ec2 revoke-security-group-ingress --security-group-rule-ids sgr-…
-- 3. Read flow logs of those interfaces since the event: who came in?
-- 4. Review what the actor did before and after.
-- """
-- references    = [
--   "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupIngress.html",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.exfiltration.ec2-security-group-open-port-22-ingress/",
-- ]
--
-- [params.admin_ports]
-- type    = "list[int]"
-- default = [20, 21, 22, 23, 135, 139, 389, 445, 636, 873, 1433, 1521, 2049, 2375, 2376, 3306, 3389, 5432, 5439, 5900, 5985, 5986, 6379, 6443, 9200, 9300, 10250, 11211, 27017]
-- about   = "Ports of administration and databases: open to everyone they are high"
--
-- [params.low_ports]
-- type    = "list[int]"
-- default = [80, 443]
-- about   = "Ports that are usually meant to be public: low"
--
-- [params.public_groups]
-- type    = "list[str]"
-- default = []
-- about   = "Ids or names of groups that are meant to be public: at most low"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that open groups as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(
      json_extract_string(request_parameters, '$.groupId'),
      json_extract_string(request_parameters, '$.ModifySecurityGroupRulesRequest.GroupId'),
      json_extract_string(request_parameters, '$.groupName'),
      json_extract_string(request_parameters, '$.dBSecurityGroupName'),
      json_extract_string(request_parameters, '$.clusterSecurityGroupName')) AS sg,
    -- One call by an id and by a name: the answer has the id.
    json_extract_string(response_elements, '$.securityGroupRuleSet.items[0].groupId') AS answered_sg
  FROM events
  WHERE (event_source = 'ec2.amazonaws.com'
      AND event_name IN ('AuthorizeSecurityGroupIngress', 'ModifySecurityGroupRules', 'RevokeSecurityGroupIngress'))
    OR (event_source = 'rds.amazonaws.com' AND event_name = 'AuthorizeDBSecurityGroupIngress')
    OR (event_source = 'redshift.amazonaws.com' AND event_name = 'AuthorizeClusterSecurityGroupIngress')
),
opening AS (
  SELECT
    *,
    sg_open_rules(request_parameters, response_elements) AS rules
  FROM calls
  WHERE event_name <> 'RevokeSecurityGroupIngress'
    AND (success OR denied OR error_code IN ('InvalidPermission.Duplicate', 'Client.InvalidPermission.Duplicate',
      'DryRunOperation', 'Client.DryRunOperation'))
),
rated AS (
  SELECT
    *,
    list_max(list_transform(rules, lambda r:
      CASE
        WHEN r.protocol IN ('icmp', 'icmpv6', '1', '58') THEN 2
        WHEN cidr_reach(r.cidr) = 'wide' THEN 3
        WHEN sg_all_ports(r) THEN 5
        WHEN len(list_filter(getvariable('security_group_open_admin_ports'), lambda p: r.from_port <= p AND r.to_port >= p)) > 0 THEN 4
        WHEN r.from_port = r.to_port AND list_contains(getvariable('security_group_open_low_ports'), r.from_port) THEN 2
        ELSE 3
      END)) AS rank,
    array_to_string(list_sort(list_distinct(list_transform(rules, lambda r: sg_text(r)))), ', ') AS opened
  FROM opening
  WHERE len(rules) > 0
),
closing AS (
  SELECT
    *,
    list_transform(
      list_concat(sg_permissions(request_parameters), sg_plain(request_parameters),
        sg_answered(response_elements, '$.revokedSecurityGroupRuleSet.items')), lambda r: r.cidr) AS cidrs,
    coalesce(json_extract_string(request_parameters, '$.securityGroupRuleIds.items[*].securityGroupRuleId'), []) AS rule_ids
  FROM calls
  WHERE event_name = 'RevokeSecurityGroupIngress' AND success
),
reverted AS (
  SELECT o.account, o.event_id, list(c.event_id) AS closing_ids
  FROM rated AS o
  JOIN closing AS c
    ON c.account = o.account AND c.aws_region = o.aws_region AND c.principal = o.principal
    AND coalesce(c.sg, o.sg) IN (o.sg, o.answered_sg)
    AND c.event_time BETWEEN o.event_time AND o.event_time + INTERVAL 15 MINUTE
    AND len(list_filter(o.rules, lambda r: NOT list_contains(c.cidrs, r.cidr) AND NOT coalesce(list_contains(c.rule_ids, r.rule_id), false))) = 0
  GROUP BY o.account, o.event_id
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(sg, answered_sg) AS target,
  concat(coalesce(sg, 'A security group'),
    CASE
      WHEN success AND closing_ids IS NOT NULL THEN ' was opened for a while: '
      WHEN success THEN ' was opened: '
      WHEN denied THEN ' was to be opened, which was refused: '
      ELSE ' was to be opened, to no effect: '
    END, opened) AS summary,
  CASE
    WHEN denied THEN 'low'
    WHEN NOT success THEN 'info'
    WHEN closing_ids IS NOT NULL
      OR list_contains(getvariable('security_group_open_public_groups'), sg)
      OR list_contains(getvariable('security_group_open_public_groups'), answered_sg)
      OR list_contains(getvariable('security_group_open_trusted_principals'), principal) THEN at_most(severity_of(rank), 'low')
    -- A modification does not say whether its rule is inbound; a service may have opened it for a user.
    WHEN event_name = 'ModifySecurityGroupRules' OR actor_kind = 'aws_service' THEN at_most(severity_of(rank), 'medium')
    ELSE severity_of(rank)
  END AS severity,
  list_append(coalesce(closing_ids, []), event_id) AS event_ids,
  opened
FROM rated
LEFT JOIN reverted USING (account, event_id)
