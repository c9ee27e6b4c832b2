-- ---
-- title        = "Network ACL Open"
-- severity     = "medium"
-- attack       = [
--   { id = "T1686.001", why = "the outer firewall of a network lets in everybody" },
--   { id = "T1133", why = "ports of administration can be reached through it from anywhere" },
-- ]
-- about        = "A network ACL now lets in everything, or ports of administration, from the whole internet: one wall less before the security groups."
-- benign       = [
--   "Networks that are being set up: low within an hour after the same principal made the network or the ACL",
--   "Answers to calls from within need high ports open; ranges from 1024 up to 60000 or more are not told",
--   "An earlier entry with a lower number may deny what this one allows: the event does not say",
-- ]
-- event_names  = ["CreateNetworkAclEntry", "ReplaceNetworkAclEntry", "CreateNetworkAcl", "CreateVpc"]
-- group_by     = ["account", "region", "target"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "60m"
-- runbook      = """
-- 1. What stands now, in the order of its numbers? aws ec2 describe-network-acls --network-acl-ids acl-…
-- 2. Which of its subnets have machines with public addresses, and which security groups do they wear?
-- 3. Take the entry back: aws ec2 delete-network-acl-entry --network-acl-id acl-… --ingress --rule-number …
-- 4. What else did the actor open? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_source = 'ec2.amazonaws.com' AND is_write ORDER BY event_time.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/vpc/latest/userguide/vpc-network-acls.html",
--   "https://docs.aws.amazon.com/securityhub/latest/userguide/ec2-controls.html",
-- ]
--
-- [params.admin_ports]
-- type    = "list[int]"
-- default = [22, 3389]
-- about   = "Ports of administration"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that manage networks as their work: at most low"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.networkAclId'), 'a network ACL') AS acl,
    sg_rule(NULL, json_extract_string(request_parameters, '$.aclProtocol'), json_extract_string(request_parameters, '$.portRange.from'),
      json_extract_string(request_parameters, '$.portRange.to'),
      coalesce(json_extract_string(request_parameters, '$.cidrBlock'), json_extract_string(request_parameters, '$.ipv6CidrBlock'))) AS rule
  FROM events
  WHERE event_source = 'ec2.amazonaws.com'
    AND event_name IN ('CreateNetworkAclEntry', 'ReplaceNetworkAclEntry', 'CreateNetworkAcl', 'CreateVpc')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
opening AS (
  SELECT *
  FROM calls
  WHERE event_name LIKE '%Entry'
    AND coalesce(lower(json_extract_string(request_parameters, '$.egress')), 'false') = 'false'
    AND lower(json_extract_string(request_parameters, '$.ruleAction')) = 'allow'
    AND cidr_reach(rule.cidr) IS NOT NULL
    AND coalesce(rule.protocol, '-1') NOT IN ('1', '58', 'icmp', 'icmpv6')
    AND (sg_all_ports(rule)
      OR len(list_filter(getvariable('network_acl_open_admin_ports'), lambda p: rule.from_port <= p AND rule.to_port >= p)) > 0
        AND NOT (rule.from_port >= 1024 AND rule.to_port >= 60000))
),
made AS (
  SELECT o.account, o.event_id, list(c.event_id) AS ids
  FROM opening AS o
  JOIN calls AS c
    ON c.account = o.account AND c.aws_region = o.aws_region AND c.principal = o.principal
    AND c.event_name IN ('CreateNetworkAcl', 'CreateVpc') AND c.success
    AND c.event_time BETWEEN o.event_time - INTERVAL 60 MINUTE AND o.event_time
  GROUP BY o.account, o.event_id
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  acl AS target,
  concat(acl, CASE WHEN denied THEN ' was to let in, which was refused: ' WHEN ids IS NOT NULL THEN ', of a network made within the hour, lets in '
    ELSE ' lets in ' END, sg_text(rule)) AS summary,
  CASE
    WHEN denied OR ids IS NOT NULL OR cidr_reach(rule.cidr) = 'wide'
      OR list_contains(getvariable('network_acl_open_trusted_principals'), principal) THEN 'low'
    ELSE 'medium'
  END AS severity,
  list_append(coalesce(ids, []), event_id) AS event_ids
FROM opening
LEFT JOIN made USING (account, event_id)
