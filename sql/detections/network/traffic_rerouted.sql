-- ---
-- title        = "Traffic Rerouted"
-- severity     = "medium"
-- attack       = [
--   { id = "T1040", why = "a traffic mirror copies every packet of a machine to the listener" },
--   { id = "T1557", why = "a peering or route puts somebody else on the way" },
-- ]
-- about        = "The network was opened to a listener: a traffic mirror was prepared, set up or changed, the network was joined to that of an account that is not yours, or a private table was given a way out."
-- benign       = [
--   "Network monitoring by mirrors: list its principals in trusted_principals",
--   "Peering with a partner: list the account in trusted_accounts",
--   "A route to an internet gateway is part of building a network (info)",
-- ]
-- event_names  = [
--   "CreateTrafficMirrorSession", "ModifyTrafficMirrorSession", "CreateTrafficMirrorTarget",
--   "CreateTrafficMirrorFilter", "CreateTrafficMirrorFilterRule",
--   "CreateVpcPeeringConnection", "AcceptVpcPeeringConnection", "CreateRoute", "ReplaceRoute",
-- ]
-- group_by     = ["account", "actor", "kind"]
-- group_window = "24h"
-- runbook      = """
-- 1. What was set up? SELECT event_time, event_name, request_parameters, response_elements FROM events WHERE event_source = 'ec2.amazonaws.com' AND (event_name LIKE '%TrafficMirror%' OR event_name IN ('CreateVpcPeeringConnection', 'AcceptVpcPeeringConnection', 'CreateRoute')) AND principal = '…' ORDER BY event_time.
-- 2. Where do the packets go? aws ec2 describe-traffic-mirror-targets; aws ec2 describe-vpc-peering-connections.
-- 3. Take it back: aws ec2 delete-traffic-mirror-session --traffic-mirror-session-id …; aws ec2 delete-vpc-peering-connection --vpc-peering-connection-id …; aws ec2 delete-route.
-- 4. What passed unencrypted (passwords, tokens) between the mirrored machines counts as read: change it.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/vpc/latest/mirroring/what-is-traffic-mirroring.html",
--   "https://docs.aws.amazon.com/vpc/latest/peering/what-is-vpc-peering.html",
--   "https://attack.mitre.org/techniques/T1040/",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts you work with. Accounts of your integrations are trusted anyway"
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    CASE
      WHEN event_name LIKE '%TrafficMirror%' THEN 'mirror'
      WHEN event_name LIKE '%Peering%' THEN 'peering'
      ELSE 'route'
    END AS kind,
    json_extract(request_parameters, concat('$.', event_name, 'Request')) AS mirror,
    list_concat(
      [json_extract_string(request_parameters, '$.peerOwnerId')],
      [json_extract_string(response_elements, '$.vpcPeeringConnection.requesterVpcInfo.ownerId')],
      [json_extract_string(response_elements, '$.vpcPeeringConnection.accepterVpcInfo.ownerId')]) AS owners
  FROM events
  WHERE event_source = 'ec2.amazonaws.com'
    AND event_name IN ('CreateTrafficMirrorSession', 'ModifyTrafficMirrorSession', 'CreateTrafficMirrorTarget', 'CreateTrafficMirrorFilter',
      'CreateTrafficMirrorFilterRule', 'CreateVpcPeeringConnection', 'AcceptVpcPeeringConnection', 'CreateRoute', 'ReplaceRoute')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    -- Who may set up a mirror, and failed on this machine or number, goes on to the next.
    AND (success OR denied OR event_name LIKE '%TrafficMirror%')
    AND NOT list_contains(getvariable('traffic_rerouted_trusted_principals'), principal)
),
judged AS (
  SELECT
    c.*,
    foreign_accounts(c.owners, c.account, known.own, getvariable('traffic_rerouted_trusted_accounts')) AS strangers
  FROM calls AS c, known
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(json_extract_string(mirror, '$.NetworkInterfaceId'), json_extract_string(mirror, '$.TrafficMirrorSessionId'),
    json_extract_string(mirror, '$.TrafficMirrorFilterId'), json_extract_string(request_parameters, '$.vpcId'),
    json_extract_string(request_parameters, '$.vpcPeeringConnectionId'), json_extract_string(request_parameters, '$.routeTableId'), kind) AS target,
  concat(CASE kind
      WHEN 'mirror' THEN concat('A traffic mirror was ',
        CASE WHEN event_name LIKE 'Modify%' THEN 'changed' WHEN event_name LIKE '%Filter%' THEN 'prepared' ELSE 'set up' END,
        coalesce(concat(' on ', json_extract_string(mirror, '$.NetworkInterfaceId')), ''))
      WHEN 'peering' THEN concat('The network was joined to that of account ', array_to_string(strangers, ', '))
      ELSE concat('A route to ', coalesce(json_extract_string(request_parameters, '$.destinationCidrBlock'), json_extract_string(request_parameters, '$.destinationIpv6CidrBlock')), ' through ', json_extract_string(request_parameters, '$.gatewayId')) END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN kind = 'route' THEN 'info'
    WHEN denied THEN 'low'
    ELSE 'medium'
  END AS severity,
  kind
FROM judged
WHERE kind = 'mirror'
  OR len(strangers) > 0
  OR (success AND json_extract_string(request_parameters, '$.gatewayId') LIKE 'igw-%'
    AND (json_extract_string(request_parameters, '$.destinationCidrBlock') LIKE '%/0' OR json_extract_string(request_parameters, '$.destinationIpv6CidrBlock') LIKE '%/0'))
