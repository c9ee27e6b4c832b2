-- What a security group event lets in, in all the shapes CloudTrail has for it.

CREATE OR REPLACE MACRO sg_rule(rule_id, protocol, from_port, to_port, cidr) AS
  {'rule_id': CAST(rule_id AS VARCHAR), 'protocol': lower(CAST(protocol AS VARCHAR)),
   'from_port': TRY_CAST(from_port AS INT), 'to_port': TRY_CAST(to_port AS INT), 'cidr': CAST(cidr AS VARCHAR)};

-- responseElements.securityGroupRuleSet: what AWS made of the request, since 2021
CREATE OR REPLACE MACRO sg_answered(response, path) AS
  list_transform(
    list_filter(json_items(response, path), lambda r: coalesce(json_extract_string(r, '$.isEgress'), 'false') = 'false'),
    lambda r: sg_rule(json_extract_string(r, '$.securityGroupRuleId'), json_extract_string(r, '$.ipProtocol'),
      json_extract_string(r, '$.fromPort'), json_extract_string(r, '$.toPort'),
      coalesce(json_extract_string(r, '$.cidrIpv4'), json_extract_string(r, '$.cidrIpv6'))));

-- requestParameters.ipPermissions: a list of ports, each with lists of networks
CREATE OR REPLACE MACRO sg_permissions(request) AS
  flatten(list_transform(json_items(request, '$.ipPermissions.items'), lambda p:
    list_transform(
      list_concat(
        list_transform(json_items(p, '$.ipRanges.items'), lambda c: json_extract_string(c, '$.cidrIp')),
        list_transform(json_items(p, '$.ipv6Ranges.items'), lambda c: json_extract_string(c, '$.cidrIpv6'))),
      lambda c: sg_rule(NULL, json_extract_string(p, '$.ipProtocol'),
        json_extract_string(p, '$.fromPort'), json_extract_string(p, '$.toPort'), c))));

-- requestParameters with one rule at the top; also RDS and Redshift, whose groups have networks and no ports
CREATE OR REPLACE MACRO sg_plain(request) AS
  list_filter(
    [sg_rule(NULL, json_extract_string(request, '$.ipProtocol'), json_extract_string(request, '$.fromPort'),
       json_extract_string(request, '$.toPort'), json_extract_string(request, '$.cidrIp')),
     sg_rule(NULL, 'tcp', '0', '65535', json_extract_string(request, '$.cIDRIP'))],
    lambda r: r.cidr IS NOT NULL);

-- ModifySecurityGroupRules: an object for one rule, a list for several; only changed networks are in it
CREATE OR REPLACE MACRO sg_modified(request) AS
  list_transform(json_items(request, '$.ModifySecurityGroupRulesRequest.SecurityGroupRule'), lambda r:
    sg_rule(json_extract_string(r, '$.SecurityGroupRuleId'), json_extract_string(r, '$.SecurityGroupRule.IpProtocol'),
      json_extract_string(r, '$.SecurityGroupRule.FromPort'), json_extract_string(r, '$.SecurityGroupRule.ToPort'),
      coalesce(json_extract_string(r, '$.SecurityGroupRule.CidrIpv4'), json_extract_string(r, '$.SecurityGroupRule.CidrIpv6'))));

-- Every inbound rule of an event: what was answered, else what was asked for
CREATE OR REPLACE MACRO sg_rules(request, response) AS
  CASE WHEN len(sg_answered(response, '$.securityGroupRuleSet.items')) > 0
    THEN sg_answered(response, '$.securityGroupRuleSet.items')
    ELSE list_concat(sg_permissions(request), sg_plain(request), sg_modified(request))
  END;

-- Width of a network: everyone (/0), wide (a large part of the internet), or NULL. Not a comparison with 0.0.0.0/0: AWS
-- canonicalises 1.2.3.4/0, and two halves of the internet are the whole of it.
CREATE OR REPLACE MACRO cidr_reach(cidr) AS
  CASE
    WHEN TRY_CAST(split_part(cidr, '/', 2) AS INT) = 0 THEN 'everyone'
    WHEN contains(cidr, ':') AND TRY_CAST(split_part(cidr, '/', 2) AS INT) BETWEEN 1 AND 16
      AND NOT regexp_matches(lower(cidr), '^f[cde]') THEN 'wide'
    WHEN contains(cidr, '.') AND TRY_CAST(split_part(cidr, '/', 2) AS INT) BETWEEN 1 AND 8
      AND NOT starts_with(cidr, '10.') THEN 'wide'
  END;

CREATE OR REPLACE MACRO sg_open_rules(request, response) AS
  list_filter(sg_rules(request, response), lambda r: cidr_reach(r.cidr) IS NOT NULL);

-- "tcp/22 from 0.0.0.0/0"
CREATE OR REPLACE MACRO sg_all_ports(r) AS
  r.protocol IS NULL OR r.protocol IN ('-1', 'all') OR r.from_port IS NULL OR (r.from_port <= 0 AND r.to_port >= 65535);
CREATE OR REPLACE MACRO sg_text(r) AS
  concat(
    CASE coalesce(r.protocol, '-1') WHEN '-1' THEN 'all' WHEN '6' THEN 'tcp' WHEN '17' THEN 'udp' WHEN '1' THEN 'icmp'
      WHEN '58' THEN 'icmpv6' ELSE r.protocol END,
    CASE WHEN r.protocol IN ('icmp', 'icmpv6', '1', '58') THEN '' WHEN sg_all_ports(r) THEN '/all'
      WHEN r.from_port = r.to_port THEN concat('/', r.from_port) ELSE concat('/', r.from_port, '-', r.to_port) END,
    ' from ', r.cidr);
