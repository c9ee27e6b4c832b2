-- ---
-- title        = "Lambda Function Shared"
-- severity     = "high"
-- attack       = [
--   { id = "T1546", why = "whoever may call the function can run its code, with its role, at any time" },
--   { id = "T1648", why = "a function that strangers call is an entrance without credentials of the account" },
--   { id = "T1537", why = "a layer that everybody may read shows the code and secrets in it" },
-- ]
-- about        = "A function or layer may be used by everybody, by an account that is not yours, or over a public URL."
-- benign       = [
--   "Web hooks and public APIs behind a function URL: list them in public_functions",
--   "Functions that a partner's account calls: list the account in trusted_accounts",
-- ]
-- event_names  = [
--   "AddPermission20150331v2", "AddPermission20150331", "AddPermission", "AddLayerVersionPermission20181031",
--   "AddLayerVersionPermission", "CreateFunctionUrlConfig", "UpdateFunctionUrlConfig",
-- ]
-- group_by     = ["account", "target"]
-- group_window = "24h"
-- runbook      = """
-- 1. Take it back: aws lambda remove-permission --function-name … --statement-id …; aws lambda delete-function-url-config --function-name ….
-- 2. Who called it meanwhile? Look at the function's log group, and at Invoke data events: SELECT event_time, user_account_id, source_ip_address FROM events WHERE event_name = 'Invoke' AND contains(request_parameters, '…').
-- 3. What may the function do? aws lambda get-function-configuration --function-name …: read its role, variables and layers; compare its code with your repository.
-- 4. What else did the actor do? SELECT event_time, event_source, event_name FROM events WHERE account = '…' AND principal = '…' AND is_write ORDER BY event_time.
-- """
-- references   = [
--   "https://stratus-red-team.cloud/attack-techniques/AWS/aws.persistence.lambda-backdoor-function/",
--   "https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html",
--   "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html",
-- ]
--
-- [params.trusted_accounts]
-- type    = "list[str]"
-- default = []
-- about   = "Accounts that may call your functions. Accounts of your integrations are trusted anyway"
--
-- [params.public_functions]
-- type    = "list[str]"
-- default = []
-- about   = "Functions that everybody is meant to call: no finding"
-- ---
WITH known AS (
  SELECT list(DISTINCT account) AS own FROM accounts
),
calls AS (
  SELECT
    *,
    -- arn:aws:lambda:eu-west-1:012345678901:function:shop:3 → shop
    coalesce(
      nullif(regexp_extract(json_extract_string(request_parameters, '$.functionName'), '(?:function:)?([^:]+)(?::[^:]*)?$', 1), ''),
      last_part(json_extract_string(request_parameters, '$.layerName')),
      nullif(regexp_extract(error_message, 'on resource: [^ ]*:(?:function|layer):([^ :]+)', 1), '')) AS named,
    event_name LIKE 'AddLayer%' AS of_layer,
    event_name LIKE '%UrlConfig' AS of_url,
    json_extract_string(request_parameters, '$.principal') AS guest,
    coalesce(json_extract_string(request_parameters, '$.sourceArn'), json_extract_string(request_parameters, '$.sourceAccount'),
      json_extract_string(request_parameters, '$.principalOrgID'), json_extract_string(request_parameters, '$.organizationId')) AS only_from,
    coalesce(
      nullif(regexp_extract(json_extract_string(request_parameters, '$.sourceArn'), '^arn:[^:]*:[^:]*:[^:]*:([0-9]{12}):', 1), ''),
      json_extract_string(request_parameters, '$.sourceAccount')) AS source_account
  FROM events
  WHERE event_source = 'lambda.amazonaws.com'
    AND event_name IN ('AddPermission20150331v2', 'AddPermission20150331', 'AddPermission', 'AddLayerVersionPermission20181031',
      'AddLayerVersionPermission', 'CreateFunctionUrlConfig', 'UpdateFunctionUrlConfig')
    AND NOT by_aws_itself(actor_kind, user_type, event_type, issuer_arn)
    AND (success OR denied)
),
guests AS (
  SELECT
    c.*,
    foreign_accounts([regexp_extract(c.guest, '^(?:arn:aws[^:]*:(?:iam|sts)::)?([0-9]{12})(?::|$)', 1)],
      c.account, known.own, getvariable('lambda_function_shared_trusted_accounts')) AS strangers,
    foreign_accounts([c.source_account], c.account, known.own, getvariable('lambda_function_shared_trusted_accounts')) AS sources
  FROM calls AS c, known
),
judged AS (
  SELECT
    *,
    CASE
      WHEN of_url THEN CASE WHEN json_extract_string(request_parameters, '$.authType') = 'NONE' THEN 'url' END
      WHEN guest = '*' AND json_extract_string(request_parameters, '$.functionUrlAuthType') = 'NONE' THEN 'url'
      WHEN guest = '*' AND only_from IS NULL THEN 'everybody'
      WHEN len(strangers) > 0 THEN 'stranger'
      WHEN len(sources) > 0 THEN 'source'
      WHEN guest IS NULL THEN 'unknown'
    END AS variant
  FROM guests
  WHERE coalesce(NOT list_contains(getvariable('lambda_function_shared_public_functions'), named), true)
),
weighed AS (
  SELECT
    *,
    CASE variant WHEN 'everybody' THEN 'high' WHEN 'stranger' THEN 'high' WHEN 'unknown' THEN 'low' ELSE 'medium' END AS weight
  FROM judged
  WHERE variant IS NOT NULL
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
    CASE WHEN of_layer THEN 'Layer ' ELSE 'Function ' END, named,
    CASE variant
      WHEN 'url' THEN ' has a URL that everybody may call'
      WHEN 'everybody' THEN ' may be used by everybody'
      WHEN 'stranger' THEN concat(' may be used by account ', array_to_string(strangers, ', '))
      WHEN 'source' THEN concat(' may be called by ', guest, ' for account ', array_to_string(sources, ', '))
      ELSE ' was shared; the record does not say with whom'
    END,
    CASE WHEN success THEN '' ELSE concat(': tried, and failed with ', error_code) END) AS summary,
  CASE WHEN success OR weight = 'low' THEN weight ELSE one_below(weight) END AS severity
FROM weighed
