-- ---
-- title        = "Services Stopped"
-- severity     = "medium"
-- attack       = [
--   { id = "T1489", why = "what customers or colleagues rely on stands still" },
--   { id = "T1485", why = "deleted tables, functions and stacks have to be rebuilt, if they can be" },
-- ]
-- about        = "Many running things of different kinds were stopped or deleted within half an hour by somebody who does not do that."
-- benign       = [
--   "Schedulers that switch environments off at night: silent once they have done so on an earlier day",
--   "Environments that are torn down: list the role in trusted_principals",
-- ]
-- event_names  = [
--   "StopInstances", "StopDBInstance", "StopDBCluster", "DeleteService", "UpdateService", "DeleteCluster", "DeleteNodegroup",
--   "TerminateEnvironment", "DeleteAutoScalingGroup", "DeleteLoadBalancer", "DeleteFunction20150331", "DeleteFunction",
--   "PutFunctionConcurrency20171031", "DeleteRestApi", "DeleteApi", "DeleteDistribution20200531", "DeleteDistribution",
--   "DisableRule", "DeleteQueue", "DeleteTopic", "DeleteTable", "DeleteStack", "DeleteStateMachine", "DeleteStream",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "6h"
-- only_named   = true
-- needs        = "bursts"
-- lookback     = "30m"
-- baseline     = "30d"
-- runbook      = """
-- 1. Ask the actor; if it is not them, take its keys and sessions away before more is lost.
-- 2. What stands still? SELECT event_time, aws_region, event_source, event_name, request_parameters FROM events WHERE account = '…' AND principal = '…' AND is_write ORDER BY event_time.
-- 3. Start what was stopped; rebuild what was deleted from infrastructure as code; tables from point-in-time recovery.
-- 4. Did data leave before? Look at other alerts of that actor and at downloads of the last days.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Stop_Start.html",
--   "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/delete-service-v2.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs that switch off or tear down environments as their work: at most low"
--
-- [params.things]
-- type    = "int"
-- default = 10
-- about   = "Things stopped or deleted within half an hour; five times as many are high"
--
-- [params.kinds]
-- type    = "int"
-- default = 2
-- about   = "Services they must belong to at least"
-- ---
WITH calls AS (
  SELECT
    *,
    CASE
      WHEN event_source = 'ec2.amazonaws.com' AND event_name = 'StopInstances' THEN len(list_distinct(instances_named(request_parameters)))
      WHEN event_source = 'rds.amazonaws.com' AND event_name IN ('StopDBInstance', 'StopDBCluster')
        OR event_source = 'ecs.amazonaws.com' AND event_name IN ('DeleteService', 'DeleteCluster')
        OR event_source = 'ecs.amazonaws.com' AND event_name = 'UpdateService' AND json_extract_string(request_parameters, '$.desiredCount') = '0'
        OR event_source = 'eks.amazonaws.com' AND event_name IN ('DeleteCluster', 'DeleteNodegroup')
        OR event_source = 'elasticbeanstalk.amazonaws.com' AND event_name = 'TerminateEnvironment'
        OR event_source = 'autoscaling.amazonaws.com' AND event_name = 'DeleteAutoScalingGroup'
        OR event_source = 'elasticloadbalancing.amazonaws.com' AND event_name = 'DeleteLoadBalancer'
        OR event_source = 'lambda.amazonaws.com' AND event_name IN ('DeleteFunction20150331', 'DeleteFunction')
        OR event_source = 'lambda.amazonaws.com' AND event_name = 'PutFunctionConcurrency20171031'
          AND json_extract_string(request_parameters, '$.reservedConcurrentExecutions') = '0'
        OR event_source = 'apigateway.amazonaws.com' AND event_name IN ('DeleteRestApi', 'DeleteApi')
        OR event_source = 'cloudfront.amazonaws.com' AND event_name IN ('DeleteDistribution20200531', 'DeleteDistribution')
        OR event_source = 'events.amazonaws.com' AND event_name = 'DisableRule'
        OR event_source = 'sqs.amazonaws.com' AND event_name = 'DeleteQueue'
        OR event_source = 'sns.amazonaws.com' AND event_name = 'DeleteTopic'
        OR event_source = 'dynamodb.amazonaws.com' AND event_name = 'DeleteTable'
        OR event_source = 'cloudformation.amazonaws.com' AND event_name = 'DeleteStack'
        OR event_source = 'states.amazonaws.com' AND event_name = 'DeleteStateMachine'
        OR event_source IN ('kinesis.amazonaws.com', 'firehose.amazonaws.com') AND event_name = 'DeleteStream' THEN 1
    END AS things
  FROM events
  WHERE actor_kind <> 'aws_service'
    AND success
),
counted AS (
  SELECT
    *,
    sum(things) OVER recent AS stopped,
    list_sort(list_distinct(list(split_part(event_source, '.', 1)) OVER recent)) AS services,
    list(event_id) OVER recent AS ids
  FROM calls
  WHERE things IS NOT NULL
  WINDOW recent AS (
    PARTITION BY account, principal ORDER BY event_time RANGE BETWEEN INTERVAL 30 MINUTE PRECEDING AND CURRENT ROW)
),
bursts AS (
  SELECT * FROM counted
  WHERE stopped >= getvariable('services_stopped_things') AND len(services) >= getvariable('services_stopped_kinds')
),
-- An earlier day with as many deletions, of whatever kind: such work is nothing new.
judged AS (
  SELECT
    c.*,
    is_by_hand(c.actor_kind, c.session_name)
      OR coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account) <= c.date - 14, false) AS telling,
    coalesce((SELECT max(d.calls) FROM (
        SELECT a.account, a.principal, a.date, sum(a.count) AS calls
        FROM activity AS a
        WHERE a.success AND regexp_matches(a.event_name, '^(Stop|Delete|Terminate|Disable)')
        GROUP BY a.account, a.principal, a.date) AS d
      WHERE d.account = c.account AND d.principal = c.principal AND d.date < c.date), 0)
      >= getvariable('services_stopped_things') AS habit
  FROM bursts AS c
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  array_to_string(services, ', ') AS target,
  concat(CAST(stopped AS BIGINT), ' things were stopped or deleted within 30 minutes: ', array_to_string(services, ', ')) AS summary,
  CASE
    WHEN NOT telling OR list_contains(getvariable('services_stopped_trusted_principals'), principal) THEN 'low'
    WHEN stopped >= 5 * getvariable('services_stopped_things') THEN 'high'
    ELSE 'medium'
  END AS severity,
  ids AS event_ids
FROM judged
WHERE NOT habit
