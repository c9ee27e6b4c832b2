-- ---
-- title        = "Kubernetes Access Granted"
-- severity     = "medium"
-- attack       = [
--   { id = "T1098.006", why = "the new entry outlives whatever credentials the intruder came in with" },
--   { id = "T1133", why = "the cluster's API can be reached from everywhere" },
-- ]
-- about        = "Somebody was let into an EKS cluster, or its API was opened to the internet."
-- benign       = [
--   "New administrators and pipelines; list the principals that manage access in trusted_principals",
--   "Clusters that are public by intent",
-- ]
-- event_names  = [
--   "CreateAccessEntry", "UpdateAccessEntry", "AssociateAccessPolicy", "UpdateClusterConfig",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- runbook      = """
-- 1. Who was let in, as what? SELECT event_time, event_name, json_extract_string(request_parameters, '$.name') AS cluster, json_extract_string(request_parameters, '$.principalArn') AS who, json_extract_string(request_parameters, '$.policyArn') AS policy FROM events WHERE event_source = 'eks.amazonaws.com' AND event_name IN ('CreateAccessEntry', 'AssociateAccessPolicy') ORDER BY event_time.
-- 2. Take it back: aws eks disassociate-access-policy; aws eks delete-access-entry --cluster-name … --principal-arn ….
-- 3. Close the API: aws eks update-cluster-config --name … --resources-vpc-config endpointPublicAccess=false.
-- 4. Read the cluster's audit log for what the new identity did: secrets, new pods, new cluster roles.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html",
--   "https://docs.aws.amazon.com/eks/latest/userguide/cluster-endpoint.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.name'), json_extract_string(request_parameters, '$.clusterName')) AS cluster,
    url_decode(json_extract_string(request_parameters, '$.principalArn')) AS who,
    last_part(url_decode(json_extract_string(request_parameters, '$.policyArn'))) AS policy,
    coalesce(json_extract(request_parameters, '$.resourcesVpcConfig'), json_extract(request_parameters, '$.resourcesVPCConfig')) AS network
  FROM events
  WHERE event_source = 'eks.amazonaws.com'
    AND event_name IN ('CreateAccessEntry', 'UpdateAccessEntry', 'AssociateAccessPolicy', 'UpdateClusterConfig')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
    AND NOT list_contains(getvariable('kubernetes_access_granted_trusted_principals'), principal)
),
judged AS (
  SELECT
    *,
    CASE
      WHEN event_name = 'AssociateAccessPolicy' THEN CASE WHEN regexp_matches(policy, '(ClusterAdmin|Admin)Policy$') THEN 'admin' WHEN policy LIKE '%ViewPolicy' THEN 'view' ELSE 'entry' END
      WHEN event_name = 'UpdateClusterConfig' THEN CASE
        WHEN coalesce(json_extract_string(network, '$.endpointPublicAccess'), 'true') = 'false' THEN NULL
        WHEN len(list_filter(json_texts(network, '$.publicAccessCidrs'), lambda c: c LIKE '%/0')) > 0 THEN 'open'
        WHEN json_extract_string(network, '$.endpointPublicAccess') = 'true' AND json_type(network, '$.publicAccessCidrs') IS NULL THEN 'open' END
      WHEN len(list_filter(json_texts(request_parameters, '$.kubernetesGroups'), lambda g: g = 'system:masters')) > 0 THEN 'admin'
      WHEN event_name = 'CreateAccessEntry' THEN 'entry'
    END AS variant
  FROM calls
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(cluster, 'a cluster') AS target,
  concat(CASE variant
      WHEN 'open' THEN concat('The API of cluster ', cluster, ' may be reached from everywhere')
      WHEN 'admin' THEN concat(coalesce(last_part(who), 'Somebody'), ' was made an administrator of cluster ', cluster)
      ELSE concat(coalesce(last_part(who), 'Somebody'), ' was let into cluster ', cluster, coalesce(concat(' with ', policy), '')) END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN CASE WHEN variant = 'admin' THEN 'medium' ELSE 'low' END
    WHEN variant = 'admin' THEN 'high'
    WHEN variant = 'view' THEN 'low'
    ELSE 'medium'
  END AS severity
FROM judged
WHERE variant IS NOT NULL
