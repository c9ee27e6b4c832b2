-- ---
-- title        = "Container From Unknown Registry"
-- severity     = "medium"
-- attack       = [
--   { id = "T1610", why = "the container runs what the intruder put into a registry of their own" },
--   { id = "T1496.001", why = "miners are started this way, by the hundred" },
-- ]
-- about        = "Somebody who never did so defined a task or job whose image comes from a registry that is not yours, or let a great many containers run."
-- benign       = [
--   "A new service with a public base image: list the registry in trusted_registries",
--   "Load tests",
-- ]
-- event_names  = [
--   "RegisterTaskDefinition", "RegisterJobDefinition", "RunTask", "CreateService", "UpdateService",
-- ]
-- group_by     = ["account", "caller"]
-- group_window = "24h"
-- needs        = "remarkable"
-- baseline     = "30d"
-- runbook      = """
-- 1. Which image, by whom? SELECT event_time, event_name, json_extract(request_parameters, '$.containerDefinitions[*].image') AS images FROM events WHERE event_name IN ('RegisterTaskDefinition', 'RegisterJobDefinition') AND principal = '…' ORDER BY event_time.
-- 2. Does it run? aws ecs list-tasks --cluster …; aws batch list-jobs --job-queue …. Stop it: aws ecs stop-task; aws ecs update-service --desired-count 0; aws batch terminate-job.
-- 3. With which role does it run? Look at taskRoleArn, and at what the role did: SELECT event_time, event_name FROM events WHERE principal = '…' ORDER BY event_time.
-- 4. Take the actor its keys and sessions; allow only your own registries.
-- """
-- references   = [
--   "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html",
--   "https://attack.mitre.org/techniques/T1610/",
-- ]
--
-- [params.trusted_registries]
-- type    = "list[str]"
-- default = ["public.ecr.aws/aws", "public.ecr.aws/docker/library", "public.ecr.aws/datadog", "docker.io/library", "amazon/", "mcr.microsoft.com", "registry.k8s.io", "quay.io/prometheus"]
-- about   = "Beginnings of image names you trust, besides registries of your own accounts"
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
--
-- [params.count]
-- type    = "int"
-- default = 20
-- about   = "Containers asked for in one call that are a great many"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    list_filter(list_concat(
      list_transform(json_items(request_parameters, '$.containerDefinitions'), lambda d: json_extract_string(d, '$.image')),
      [json_extract_string(request_parameters, '$.containerProperties.image')]), lambda i: i <> '') AS images,
    coalesce(TRY_CAST(json_extract_string(request_parameters, '$.desiredCount') AS INT), TRY_CAST(json_extract_string(request_parameters, '$.count') AS INT), 0) AS wanted
  FROM events
  WHERE ((event_source = 'ecs.amazonaws.com' AND event_name IN ('RegisterTaskDefinition', 'RunTask', 'CreateService', 'UpdateService'))
      OR (event_source = 'batch.amazonaws.com' AND event_name = 'RegisterJobDefinition'))
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
    AND NOT list_contains(getvariable('container_from_unknown_registry_trusted_principals'), principal)
),
strange AS (
  SELECT
    c.*,
    list_filter(c.images, lambda i: NOT regexp_matches(i, '^\$|^[a-z0-9._-]+(:[A-Za-z0-9._-]+)?$')
      AND (regexp_extract(i, '^([0-9]{12})\.dkr\.ecr', 1) = ''
        OR len(foreign_accounts([regexp_extract(i, '^([0-9]{12})\.dkr\.ecr', 1)], c.account, known.own, getvariable('container_from_unknown_registry_trusted_accounts'))) > 0)
      AND len(list_filter(getvariable('container_from_unknown_registry_trusted_registries'), lambda t: starts_with(i, t))) = 0) AS unknown
  FROM calls AS c, known
),
remarkable AS (
  SELECT * FROM strange
  WHERE len(unknown) > 0 OR wanted >= getvariable('container_from_unknown_registry_count')
),
judged AS (
  SELECT
    s.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = s.account AND a.principal = s.principal AND a.event_source = s.event_source
        AND a.event_name = s.event_name AND a.success AND a.date < s.date) AS habit
  FROM remarkable AS s
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(unknown[1], json_extract_string(request_parameters, '$.serviceName'), json_extract_string(request_parameters, '$.taskDefinition'), 'containers') AS target,
  concat(last_part(caller), CASE WHEN len(unknown) > 0 THEN concat(' defined a container from ', array_to_string(unknown, ', '))
      ELSE concat(' asked for ', wanted, ' containers') END, ', and never did so before', CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE WHEN success THEN 'medium' ELSE 'low' END AS severity,
  caller
FROM judged
WHERE NOT habit
