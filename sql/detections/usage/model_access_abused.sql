-- ---
-- title        = "Model Access Abused"
-- severity     = "medium"
-- attack       = [
--   { id = "T1496.004", why = "language models are run at your cost, and their use is sold on" },
--   { id = "T1685.002", why = "the log of what models are asked is switched off first" },
-- ]
-- about        = "Somebody who never used Bedrock unlocked models, called them with a long-term key or kept failing at it, or the log of their use or a guardrail was taken away."
-- benign       = [
--   "The first model of a project: known from the second day on, or list the principals in trusted_principals",
-- ]
-- event_names  = [
--   "PutUseCaseForModelAccess", "PutFoundationModelEntitlement", "CreateFoundationModelAgreement", "InvokeModel",
--   "InvokeModelWithResponseStream", "Converse", "ConverseStream", "DeleteModelInvocationLoggingConfiguration",
--   "DeleteGuardrail",
-- ]
-- group_by     = ["account", "caller", "kind"]
-- group_window = "24h"
-- only_named   = true
-- lookback     = "10m"
-- baseline     = "30d"
-- runbook      = """
-- 1. What was called, from where? SELECT event_time, aws_region, event_name, error_code, json_extract_string(request_parameters, '$.modelId') AS model, source_ip_address FROM events WHERE event_source = 'bedrock.amazonaws.com' AND principal = '…' ORDER BY event_time.
-- 2. Switch the log on again: aws bedrock put-model-invocation-logging-configuration.
-- 3. Deactivate the actor's key: aws iam update-access-key --status Inactive. Look at the cost of Bedrock by region.
-- 4. Close models and regions nobody needs by a service control policy on bedrock:*.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.impact.bedrock-invoke-model/",
--   "https://docs.aws.amazon.com/bedrock/latest/userguide/logging-using-cloudtrail.html",
-- ]
--
-- [params.trusted_principals]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs whose work it is: no finding"
--
-- [params.failures]
-- type    = "int"
-- default = 5
-- about   = "Failed calls of models within ten minutes that make probing"
-- ---
WITH calls AS (
  SELECT
    *,
    caller_of(principal, actor_kind, session_name) AS caller,
    CASE
      WHEN event_name IN ('DeleteModelInvocationLoggingConfiguration', 'DeleteGuardrail') THEN 'unguarded'
      WHEN event_name IN ('PutUseCaseForModelAccess', 'PutFoundationModelEntitlement', 'CreateFoundationModelAgreement') THEN 'unlocked'
      ELSE 'called'
    END AS kind,
    last_part(json_extract_string(request_parameters, '$.modelId')) AS model
  FROM events
  WHERE event_source = 'bedrock.amazonaws.com'
    AND event_name IN ('PutUseCaseForModelAccess', 'PutFoundationModelEntitlement', 'CreateFoundationModelAgreement', 'InvokeModel',
      'InvokeModelWithResponseStream', 'Converse', 'ConverseStream', 'DeleteModelInvocationLoggingConfiguration', 'DeleteGuardrail')
    AND actor_kind <> 'aws_service'
    AND NOT list_contains(getvariable('model_access_abused_trusted_principals'), principal)
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source AND a.success AND a.is_write AND a.date < c.date
        OR a.account = c.account AND a.principal = c.principal AND a.event_source = c.event_source AND a.success AND a.event_name = c.event_name AND a.date < c.date) AS habit,
    count(*) FILTER (NOT c.success) OVER recent AS failures,
    list(c.event_id) OVER recent AS ids
  FROM calls AS c
  WINDOW recent AS (
    PARTITION BY c.account, c.caller, c.kind ORDER BY c.event_time RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(model, 'Bedrock') AS target,
  concat(last_part(caller), CASE kind
      WHEN 'unguarded' THEN CASE event_name WHEN 'DeleteGuardrail' THEN ' deleted a guardrail' ELSE ' switched off the log of model calls' END
      WHEN 'unlocked' THEN concat(' unlocked models: ', event_name)
      ELSE concat(' called ', coalesce(model, 'a model'), CASE WHEN access_key_kind = 'AKIA' THEN ' with a long-term key' ELSE '' END,
        CASE WHEN failures >= getvariable('model_access_abused_failures') THEN concat(', failing ', failures, ' times') ELSE '' END) END,
    CASE WHEN kind = 'unguarded' THEN '' ELSE ', and never did before' END, CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN kind = 'unguarded' THEN CASE WHEN NOT success THEN 'low' WHEN event_name = 'DeleteGuardrail' THEN 'medium' ELSE 'high' END
    WHEN kind = 'unlocked' THEN CASE WHEN success THEN 'medium' ELSE 'low' END
    WHEN failures >= getvariable('model_access_abused_failures') THEN 'high'
    WHEN success THEN CASE WHEN access_key_kind = 'AKIA' THEN 'medium' ELSE 'low' END
    ELSE 'low'
  END AS severity,
  CASE WHEN failures >= getvariable('model_access_abused_failures') THEN ids ELSE [event_id] END AS event_ids,
  caller,
  kind
FROM judged
WHERE (kind = 'unguarded' AND (success OR denied)) OR (kind <> 'unguarded' AND NOT habit)
