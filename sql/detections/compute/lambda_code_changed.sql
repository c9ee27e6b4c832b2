-- ---
-- title        = "Lambda Code Changed"
-- severity     = "medium"
-- attack       = [
--   { id = "T1648", why = "the new code runs with the function's role, and sees what passes through it" },
--   { id = "T1546", why = "it runs whenever the function is called, without the intruder's credentials" },
-- ]
-- about        = "A function's code or layers were changed by hand, by somebody new to it, or with a layer of a stranger's account."
-- benign       = [
--   "Deployments: silent once the pipeline has deployed on an earlier day; list it in pipelines",
--   "A developer who mends a function in the console",
--   "Layers of vendors: list their accounts in trusted_accounts",
-- ]
-- event_names  = [
--   "UpdateFunctionCode20150331v2", "UpdateFunctionCode20150331", "UpdateFunctionCode20141111", "UpdateFunctionCode",
--   "UpdateFunctionConfiguration20150331v2", "UpdateFunctionConfiguration20150331", "UpdateFunctionConfiguration",
-- ]
-- group_by     = ["account", "actor"]
-- group_window = "24h"
-- baseline     = "30d"
-- runbook      = """
-- 1. Compare the code with your repository: aws lambda get-function --function-name … gives a link to it; look at its layers too.
-- 2. If it was not wanted: deploy it again from the pipeline; aws lambda update-function-configuration --function-name … --layers for the right layers.
-- 3. What did it do since? Look at its log group, and at what its role did: SELECT event_time, event_source, event_name, source_ip_address FROM events WHERE principal = '<the function''s role>' ORDER BY event_time.
-- 4. Rotate the secrets in its variables; they were in the intruder's reach.
-- 5. What else did the actor change? SELECT event_time, event_name, request_parameters FROM events WHERE principal = '…' AND event_source = 'lambda.amazonaws.com' AND is_write ORDER BY event_time.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.lambda-overwrite-code/",
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.lambda-layer-extension/",
--   "https://docs.aws.amazon.com/lambda/latest/dg/configuration-function-zip.html",
-- ]
--
-- [params.pipelines]
-- type    = "list[str]"
-- default = []
-- about   = "ARNs of the principals that deploy functions: no finding, save for layers of a stranger's account"
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = [
--   "017000801446", "580247275435", "094274105915", "177933569100", "464622532012", "451483290750", "943013980633", "114300393969",
-- ]
-- about   = "Accounts whose layers you use. The default ones are AWS's own and those of well-known vendors"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    nullif(regexp_extract(coalesce(json_extract_string(request_parameters, '$.functionName'),
      regexp_extract(error_message, 'on resource: ([^ ]+)', 1)), '(?:function:)?([^:]+)$', 1), '') AS named,
    list_transform(json_texts(request_parameters, '$.layers'),
      lambda l: regexp_extract(l, '^arn:aws[^:]*:lambda:[^:]*:([0-9]{12}):layer:', 1)) AS layer_accounts,
    event_name LIKE 'UpdateFunctionCode%' AS of_code
  FROM events
  WHERE event_source = 'lambda.amazonaws.com'
    AND event_name IN (
      'UpdateFunctionCode20150331v2', 'UpdateFunctionCode20150331', 'UpdateFunctionCode20141111', 'UpdateFunctionCode',
      'UpdateFunctionConfiguration20150331v2', 'UpdateFunctionConfiguration20150331', 'UpdateFunctionConfiguration')
    AND actor_kind <> 'aws_service'
    AND (success OR denied)
),
changed AS (
  SELECT
    c.*,
    foreign_accounts(c.layer_accounts, c.account, known.own, getvariable('lambda_code_changed_trusted_accounts')) AS strangers
  FROM calls AS c, known
  -- Memory, timeouts and variables are everyday life; what runs in the function is not.
  WHERE c.of_code AND coalesce(json_extract_string(c.request_parameters, '$.dryRun'), 'false') <> 'true'
    OR len(json_texts(c.request_parameters, '$.layers')) > 0
),
judged AS (
  SELECT
    c.*,
    EXISTS (SELECT 1 FROM activity AS a
      WHERE a.account = c.account AND a.principal = c.principal AND a.event_source = 'lambda.amazonaws.com'
        AND regexp_matches(a.event_name, '^(UpdateFunctionCode|CreateFunction)') AND a.success AND a.date < c.date) AS habit,
    is_by_hand(c.actor_kind, c.session_name)
      OR coalesce((SELECT min(a.date) FROM activity AS a WHERE a.account = c.account) <= c.date - 14, false) AS telling
  FROM changed AS c
)
SELECT
  event_id,
  event_time,
  account,
  aws_region AS region,
  principal AS actor,
  source_ip_address AS source_ip,
  coalesce(named, 'a function') AS target,
  concat(
    CASE
      WHEN len(strangers) > 0 THEN concat('Function ', named, ' was given a layer of account ', array_to_string(strangers, ', '))
      WHEN of_code THEN concat('The code of function ', named, ' was changed by somebody new to it')
      ELSE concat('The layers of function ', named, ' were changed by somebody new to it')
    END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE
    WHEN len(strangers) > 0 THEN CASE WHEN success THEN 'high' ELSE 'medium' END
    ELSE CASE WHEN success THEN 'medium' ELSE 'low' END
  END AS severity
FROM judged
WHERE len(strangers) > 0
  OR NOT habit AND telling AND NOT list_contains(getvariable('lambda_code_changed_pipelines'), principal)
