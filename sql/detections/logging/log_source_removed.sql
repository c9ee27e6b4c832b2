-- ---
-- title         = "Log Source Removed"
-- severity      = "high"
-- attack        = [
--   { id = "T1685.002", why = "what the log would have shown from now on, or already held, is gone" },
-- ]
-- attack_legacy = ["T1562.008"]
-- about         = "A log other than CloudTrail's was cut off or deleted: of a network, of names, of a bucket, a firewall or a cluster."
-- benign        = [
--   "A network is torn down with its flow log: the same principal deletes a VPC within the hour (medium), the very VPC whose flow log it had created within a day (low)",
--   "A bucket is torn down: logging is switched off and the bucket deleted within the hour (low)",
--   "Log groups of functions that are no more (low)",
-- ]
-- event_names   = [
--   "CreateFlowLogs", "DeleteFlowLogs", "DeleteVpc", "DeleteResolverQueryLogConfig", "DisassociateResolverQueryLogConfig",
--   "DeleteQueryLoggingConfig", "DeleteLoggingConfiguration", "DeleteLogGroup", "DeleteLogStream", "PutRetentionPolicy",
--   "DeleteSubscriptionFilter", "DeleteDestination", "PutBucketLogging", "DeleteBucket", "UpdateClusterConfig", "DisableLogging",
-- ]
-- group_by      = ["account", "actor", "kind"]
-- group_window  = "6h"
-- only_named    = true
-- lookback      = "24h"
-- runbook       = """
-- 1. Switch it on again: aws ec2 create-flow-logs, aws route53resolver associate-resolver-query-log-config, aws s3api put-bucket-logging, aws wafv2 put-logging-configuration.
-- 2. Is what was logged so far still there? Copy it to a bucket the actor cannot reach.
-- 3. What did the actor do around it? SELECT event_time, event_source, event_name, request_parameters FROM events WHERE account = '…' AND principal = '…' AND is_write ORDER BY event_time.
-- 4. Did other logs go too? Look at alerts of CloudTrail Disabled, GuardDuty Impaired and Security Service Disabled of that day.
-- 5. Deny these calls by a service control policy, save for the role that manages networks.
-- """
-- references    = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.vpc-remove-flow-logs/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.defense-evasion.dns-delete-logs/",
--   "https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs.html",
--   "https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resolver-query-logs.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that set up and tear down logs as their work: at most low"
--
-- [params.log_groups]
-- type    = "str"
-- default = "(?i)cloud-?trail|flow-?log|resolver|dns|guardduty|waf|audit|security|vpc|/aws/eks/.*/cluster"
-- about   = "Log groups that matter, as a regular expression"
--
-- [params.least_retention_days]
-- type    = "int"
-- default = 7
-- about   = "A log group that matters and is kept for so many days or fewer is medium"
--
-- [params.groups]
-- type    = "int"
-- default = 10
-- about   = "Log groups deleted by one principal within half an hour that make a clean-up of traces"
-- ---
WITH calls AS (
  SELECT
    *,
    coalesce(json_extract_string(request_parameters, '$.logGroupName'), json_extract_string(request_parameters, '$.logGroupIdentifier'),
      nullif(regexp_extract(error_message, ':log-group:([^ :]+)', 1), '')) AS log_group,
    CASE
      WHEN event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteFlowLogs' THEN 'flow logs'
      WHEN event_source = 'route53resolver.amazonaws.com' AND event_name IN ('DeleteResolverQueryLogConfig', 'DisassociateResolverQueryLogConfig')
        OR event_source = 'route53.amazonaws.com' AND event_name = 'DeleteQueryLoggingConfig' THEN 'DNS query logs'
      WHEN event_source IN ('wafv2.amazonaws.com', 'waf-regional.amazonaws.com', 'waf.amazonaws.com')
        AND event_name = 'DeleteLoggingConfiguration' THEN 'firewall logs'
      WHEN event_source = 'logs.amazonaws.com' AND event_name IN ('DeleteLogGroup', 'DeleteLogStream') THEN 'log group'
      WHEN event_source = 'logs.amazonaws.com' AND event_name = 'PutRetentionPolicy'
        AND TRY_CAST(json_extract_string(request_parameters, '$.retentionInDays') AS INT) <= getvariable('log_source_removed_least_retention_days')
        THEN 'retention'
      WHEN event_source = 'logs.amazonaws.com' AND event_name IN ('DeleteSubscriptionFilter', 'DeleteDestination') THEN 'subscription'
      WHEN event_source = 's3.amazonaws.com' AND event_name = 'PutBucketLogging'
        AND json_type(request_parameters, '$.BucketLoggingStatus') = 'OBJECT'
        AND json_type(request_parameters, '$.BucketLoggingStatus.LoggingEnabled') IS NULL THEN 'bucket logs'
      WHEN event_source = 'eks.amazonaws.com' AND event_name = 'UpdateClusterConfig'
        AND len(list_filter(json_items(request_parameters, '$.logging.clusterLogging'), lambda l:
          json_is_false(l, '$.enabled') AND list_has_any(json_texts(l, '$.types'), ['audit', 'api', 'authenticator']))) > 0
        THEN 'cluster logs'
      WHEN event_source = 'redshift.amazonaws.com' AND event_name = 'DisableLogging' THEN 'warehouse logs'
    END AS kind
  FROM events
  WHERE NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
-- What was torn down with its log.
gone AS (
  SELECT account, principal, aws_region, event_time, event_id, event_name, json_extract_string(request_parameters, '$.bucketName') AS bucket,
    json_extract_string(request_parameters, '$.vpcId') AS network
  FROM events
  WHERE success AND (event_source = 'ec2.amazonaws.com' AND event_name = 'DeleteVpc'
    OR event_source = 's3.amazonaws.com' AND event_name = 'DeleteBucket')
),
-- Which network a flow log was made for, and by whom.
made AS (
  SELECT account, principal, aws_region, event_time, event_id,
    json_extract_string(request_parameters, '$.CreateFlowLogsRequest.ResourceId.content') AS network,
    json_extract_string(response_elements, '$.CreateFlowLogsResponse.flowLogIdSet.item') AS flow_log
  FROM events
  WHERE event_source = 'ec2.amazonaws.com' AND event_name = 'CreateFlowLogs'
),
judged AS (
  SELECT
    *,
    coalesce(regexp_matches(log_group, getvariable('log_source_removed_log_groups')), false) AS matters,
    CASE WHEN event_name = 'DeleteLogGroup' AND success THEN list(event_id) FILTER (event_name = 'DeleteLogGroup' AND success) OVER recent END AS groups
  FROM calls
  WHERE kind IS NOT NULL
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
weighed AS (
  SELECT
    j.*,
    coalesce(len(j.groups) >= getvariable('log_source_removed_groups'), false) AS many,
    (SELECT list(g.event_id)
      FROM gone AS g
      WHERE j.success AND g.account = j.account AND g.principal = j.principal AND g.aws_region = j.aws_region
        AND (j.kind = 'flow logs' AND g.event_name = 'DeleteVpc'
          OR g.bucket = json_extract_string(j.request_parameters, '$.bucketName'))
        AND g.event_time BETWEEN j.event_time AND j.event_time + INTERVAL 60 MINUTE) AS torn_down,
    (SELECT list(m.event_id)
      FROM made AS m
      JOIN gone AS g ON g.account = m.account AND g.principal = m.principal
        AND g.aws_region = m.aws_region AND g.network = m.network
      WHERE j.success AND m.account = j.account AND m.principal = j.principal AND m.aws_region = j.aws_region
        AND m.flow_log = json_extract_string(j.request_parameters, '$.DeleteFlowLogsRequest.FlowLogId.content')
        AND m.event_time BETWEEN j.event_time - INTERVAL 24 HOUR AND j.event_time
        AND g.event_time BETWEEN j.event_time AND j.event_time + INTERVAL 60 MINUTE) AS own,
    CASE
      WHEN j.kind IN ('flow logs', 'DNS query logs') THEN 'high'
      WHEN j.kind IN ('log group', 'retention', 'subscription') AND NOT j.matters THEN 'low'
      ELSE 'medium'
    END AS weight
  FROM judged AS j
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(log_group, last_part(coalesce(
    json_extract_string(request_parameters, '$.bucketName'),
    json_extract_string(request_parameters, '$.DeleteFlowLogsRequest.FlowLogId.content'),
    json_extract_string(request_parameters, '$.resolverQueryLogConfigId'),
    json_extract_string(request_parameters, '$.resourceArn'),
    json_extract_string(request_parameters, '$.name'))), kind) AS target,
  concat(
    CASE WHEN many THEN concat(len(groups), ' log groups were deleted within 30 minutes')
      WHEN kind IN ('log group', 'retention', 'subscription') THEN concat(event_name, ' on ', coalesce(log_group, 'a log group'))
      ELSE concat(upper(kind[1]), kind[2:], ' were removed by ', event_name) END,
    CASE WHEN torn_down IS NULL THEN '' WHEN own IS NOT NULL THEN ', and its network was torn down by whoever had made both'
      WHEN kind = 'flow logs' THEN ', and a network was torn down' ELSE ', and the bucket was torn down' END,
    CASE WHEN success THEN ''
      ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN NOT success THEN one_below(weight)
    WHEN list_contains(getvariable('log_source_removed_trusted_principals'), principal) THEN 'low'
    WHEN torn_down IS NOT NULL THEN CASE WHEN kind = 'flow logs' AND own IS NULL THEN 'medium' ELSE 'low' END
    WHEN many THEN 'medium'
    ELSE weight
  END AS severity,
  list_concat([event_id], coalesce(torn_down, []), coalesce(own, []), CASE WHEN many THEN groups ELSE [] END) AS event_ids,
  kind
FROM weighed
WHERE (success OR weight <> 'low' AND kind <> 'bucket logs')
  -- Everyday life: a short retention or a filter of some function's log.
  AND (matters OR kind NOT IN ('retention', 'subscription')) AND (matters OR event_name <> 'DeleteLogStream')
